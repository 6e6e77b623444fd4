//! Selects the class of a resource.

use crate::{
    api::{AwsDeployUserClass, well_known},
    domain::desired::Violation,
};

/// Class in the cluster, readable or not.
#[derive(Clone, Copy, Debug)]
pub struct ClassEntry<'a> {
    pub name: &'a str,
    /// The class has the annotation of the default class.
    pub is_default: bool,
    /// The class, or why this version of the operator cannot deserialize it.
    pub class: Result<&'a AwsDeployUserClass, &'a str>,
}

/// Result of [`select_class`].
#[derive(Clone, Debug)]
pub enum ClassSelection<'a> {
    Selected(&'a AwsDeployUserClass),
    /// No class applies: nothing is allowed.
    Refused(Violation),
    /// The class exists, but this version of the operator cannot read it: neither allowed nor denied.
    Unreadable(String),
}

/// Class named by the resource, else the class that last authorized it: a new default class does not apply to existing
/// resources.
#[must_use]
pub fn requested_class(user: &crate::api::AwsDeployUser) -> Option<&str> {
    let recorded = || Some(user.status.as_ref()?.class.as_ref()?.name.as_str());
    user.spec.class_name.as_deref().or_else(recorded)
}

/// Whether the annotations make a class the default class.
#[must_use]
pub fn is_default(annotations: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    annotations.and_then(|all| all.get(well_known::ANNOTATION_DEFAULT_CLASS)).is_some_and(|value| value == "true")
}

/// Selects the class of this name, or the default class.
#[must_use]
pub fn select_class<'a>(requested: Option<&str>, all: &[ClassEntry<'a>]) -> ClassSelection<'a> {
    let refuse = |message: String| ClassSelection::Refused(Violation { field: "className", message });
    let found: Vec<&ClassEntry<'a>> = match requested {
        Some(name) => all.iter().filter(|entry| entry.name == name).collect(),
        None => all.iter().filter(|entry| entry.is_default).collect(),
    };
    match (found[..].first(), found.len(), requested) {
        (Some(entry), 1, _) => match entry.class {
            Ok(class) => ClassSelection::Selected(class),
            Err(why) => ClassSelection::Unreadable(format!(
                "this version of the operator cannot read AwsDeployUserClass {}: {why}; upgrade the operator or correct the class",
                entry.name
            )),
        },
        (Some(_), ..) => {
            let mut names: Vec<&str> = found.iter().map(|entry| entry.name).collect();
            names.sort_unstable();
            refuse(format!(
                "{} AwsDeployUserClasses are annotated as default: {}; set spec.className, or have a cluster admin remove the annotation {} from all but one",
                names.len(),
                names.join(", "),
                well_known::ANNOTATION_DEFAULT_CLASS
            ))
        }
        (None, _, Some(name)) => refuse(format!(
            "AwsDeployUserClass {name} does not exist, and without a class nothing is allowed; ask a cluster admin to create it"
        )),
        (None, _, None) => refuse(format!(
            "spec.className is not set and no AwsDeployUserClass is the default ({}: \"true\"); set spec.className, or ask a cluster admin for a default class",
            well_known::ANNOTATION_DEFAULT_CLASS
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(selection: &ClassSelection<'_>) -> String {
        match selection {
            ClassSelection::Selected(class) => class.metadata.name.clone().unwrap(),
            ClassSelection::Refused(violation) => violation.message.clone(),
            ClassSelection::Unreadable(why) => why.clone(),
        }
    }

    #[test]
    fn class_is_selected_by_name_or_by_a_single_default() {
        let class = |name: &str| AwsDeployUserClass::new(name, crate::api::AwsDeployUserClassSpec::default());
        let (a, b) = (class("a"), class("b"));
        let entry = |class: &'static str, is_default, found| ClassEntry { name: class, is_default, class: found };
        let one = [entry("a", false, Ok(&a)), entry("b", true, Ok(&b)), entry("c", false, Err("odd"))];
        assert_eq!(describe(&select_class(Some("a"), &one)), "a");
        assert_eq!(describe(&select_class(None, &one)), "b");
        assert!(describe(&select_class(Some("x"), &one)).contains("AwsDeployUserClass x does not exist"));
        assert!(
            matches!(select_class(Some("c"), &one), ClassSelection::Unreadable(_)),
            "an unreadable class must not cause a revocation"
        );
        let two = [entry("b", true, Ok(&b)), entry("a", true, Ok(&a))];
        assert!(describe(&select_class(None, &two)).contains("as default: a, b;"));
        assert!(describe(&select_class(None, &one[..1])).contains("no AwsDeployUserClass is the default"));
    }
}
