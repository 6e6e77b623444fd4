//! Which class a resource belongs to.

use crate::{
    api::{AwsDeployUserClass, well_known},
    domain::desired::Violation,
};

/// A class as the cluster has it.
#[derive(Clone, Copy, Debug)]
pub struct ClassEntry<'a> {
    /// Its name.
    pub name: &'a str,
    /// It carries the annotation of the default class.
    pub is_default: bool,
    /// What it says, or why this version of the operator cannot read it.
    pub class: Result<&'a AwsDeployUserClass, &'a str>,
}

/// What came of looking for a class.
#[derive(Clone, Debug)]
pub enum ClassSelection<'a> {
    /// This one.
    Selected(&'a AwsDeployUserClass),
    /// None: nothing is allowed.
    Refused(Violation),
    /// There is one, and this version of the operator cannot read it. That is no verdict.
    Unreadable(String),
}

/// The name of the class that a resource belongs to, if it can be told from the resource: what it names, else the one
/// that allowed it last. Another class that becomes the default is for resources that come later.
#[must_use]
pub fn requested_class(user: &crate::api::AwsDeployUser) -> Option<&str> {
    let recorded = || Some(user.status.as_ref()?.class.as_ref()?.name.as_str());
    user.spec.class_name.as_deref().or_else(recorded)
}

/// Whether the annotation makes a class the default one.
#[must_use]
pub fn is_default(annotations: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    annotations.and_then(|all| all.get(well_known::ANNOTATION_DEFAULT_CLASS)).is_some_and(|value| value == "true")
}

/// Chooses the class with the wanted name, or the default class.
#[must_use]
pub fn select_class<'a>(wanted: Option<&str>, all: &[ClassEntry<'a>]) -> ClassSelection<'a> {
    let refuse = |message: String| ClassSelection::Refused(Violation { field: "className", message });
    let found: Vec<&ClassEntry<'a>> = match wanted {
        Some(name) => all.iter().filter(|known| known.name == name).collect(),
        None => all.iter().filter(|known| known.is_default).collect(),
    };
    match (found[..].first(), found.len(), wanted) {
        (Some(known), 1, _) => match known.class {
            Ok(class) => ClassSelection::Selected(class),
            Err(why) => ClassSelection::Unreadable(format!(
                "AwsDeployUserClass {} cannot be read by this operator: {why}",
                known.name
            )),
        },
        (Some(_), ..) => {
            let mut names: Vec<&str> = found.iter().map(|known| known.name).collect();
            names.sort_unstable();
            refuse(format!(
                "{} AwsDeployUserClasses are annotated as the default: {}. Name one of them, or have a cluster admin leave the annotation {} on one only",
                names.len(),
                names.join(", "),
                well_known::ANNOTATION_DEFAULT_CLASS
            ))
        }
        (None, _, Some(name)) => refuse(format!(
            "there is no AwsDeployUserClass {name}; a cluster admin makes classes, and without one nothing is allowed"
        )),
        (None, _, None) => refuse(format!(
            "no AwsDeployUserClass is named, and none is the default ({}: \"true\"). Name one; a cluster admin makes them, and without one nothing is allowed",
            well_known::ANNOTATION_DEFAULT_CLASS
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(choice: &ClassSelection<'_>) -> String {
        match choice {
            ClassSelection::Selected(class) => class.metadata.name.clone().unwrap(),
            ClassSelection::Refused(violation) => violation.message.clone(),
            ClassSelection::Unreadable(why) => why.clone(),
        }
    }

    #[test]
    fn a_class_is_found_by_name_or_by_default_and_two_defaults_are_none() {
        let class = |name: &str| AwsDeployUserClass::new(name, crate::api::AwsDeployUserClassSpec::default());
        let (a, b) = (class("a"), class("b"));
        let known = |class: &'static str, is_default, found| ClassEntry { name: class, is_default, class: found };
        let one = [known("a", false, Ok(&a)), known("b", true, Ok(&b)), known("c", false, Err("odd"))];
        assert_eq!(told(&select_class(Some("a"), &one)), "a");
        assert_eq!(told(&select_class(None, &one)), "b");
        assert!(told(&select_class(Some("x"), &one)).contains("no AwsDeployUserClass x"));
        assert!(
            matches!(select_class(Some("c"), &one), ClassSelection::Unreadable(_)),
            "that is no reason to revoke anything"
        );
        let two = [known("b", true, Ok(&b)), known("a", true, Ok(&a))];
        assert!(told(&select_class(None, &two)).contains("the default: a, b."));
        assert!(told(&select_class(None, &one[..1])).contains("none is the default"));
    }
}
