//! Which class a resource belongs to.

use crate::{
    api::{AwsDeployUserClass, mark},
    domain::desired::Violation,
};

/// A class as the cluster has it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a str,
    /// It carries the annotation of the default class.
    pub is_default: bool,
    /// What it says, or why this version of the operator cannot read it.
    pub class: Result<&'a AwsDeployUserClass, &'a str>,
}

/// What came of looking for a class.
#[derive(Clone, Debug)]
pub enum Choice<'a> {
    /// This one.
    Class(&'a AwsDeployUserClass),
    /// None: nothing is allowed.
    None(Violation),
    /// There is one, and this version of the operator cannot read it. That is no verdict.
    Unreadable(String),
}

/// The name of the class that a resource belongs to, if it can be told from the resource: what it names, else the one
/// that allowed it last. Another class that becomes the default is for resources that come later.
#[must_use]
pub fn wanted(user: &crate::api::AwsDeployUser) -> Option<&str> {
    let recorded = || Some(user.status.as_ref()?.class.as_ref()?.name.as_str());
    user.spec.class_name.as_deref().or_else(recorded)
}

/// Whether the annotation makes a class the default one.
#[must_use]
pub fn is_default(annotations: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    annotations.and_then(|all| all.get(mark::ANNOTATION_DEFAULT_CLASS)).is_some_and(|value| value == "true")
}

/// Chooses the class with the wanted name, or the default class.
#[must_use]
pub fn choose<'a>(wanted: Option<&str>, all: &[Known<'a>]) -> Choice<'a> {
    let refuse = |message: String| Choice::None(Violation { field: "className", message });
    let found: Vec<&Known<'a>> = match wanted {
        Some(name) => all.iter().filter(|known| known.name == name).collect(),
        None => all.iter().filter(|known| known.is_default).collect(),
    };
    match (found[..].first(), found.len(), wanted) {
        (Some(known), 1, _) => match known.class {
            Ok(class) => Choice::Class(class),
            Err(why) => {
                Choice::Unreadable(format!("AwsDeployUserClass {} cannot be read by this operator: {why}", known.name))
            }
        },
        (Some(_), ..) => {
            let mut names: Vec<&str> = found.iter().map(|known| known.name).collect();
            names.sort_unstable();
            refuse(format!(
                "{} AwsDeployUserClasses are annotated as the default: {}. Name one of them, or have a cluster admin leave the annotation {} on one only",
                names.len(),
                names.join(", "),
                mark::ANNOTATION_DEFAULT_CLASS
            ))
        }
        (None, _, Some(name)) => refuse(format!(
            "there is no AwsDeployUserClass {name}; a cluster admin makes classes, and without one nothing is allowed"
        )),
        (None, _, None) => refuse(format!(
            "no AwsDeployUserClass is named, and none is the default ({}: \"true\"). Name one; a cluster admin makes them, and without one nothing is allowed",
            mark::ANNOTATION_DEFAULT_CLASS
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(choice: &Choice<'_>) -> String {
        match choice {
            Choice::Class(class) => class.metadata.name.clone().unwrap(),
            Choice::None(violation) => violation.message.clone(),
            Choice::Unreadable(why) => why.clone(),
        }
    }

    #[test]
    fn a_class_is_found_by_name_or_by_default_and_two_defaults_are_none() {
        let class = |name: &str| AwsDeployUserClass::new(name, crate::api::AwsDeployUserClassSpec::default());
        let (a, b) = (class("a"), class("b"));
        let known = |class: &'static str, is_default, found| Known { name: class, is_default, class: found };
        let one = [known("a", false, Ok(&a)), known("b", true, Ok(&b)), known("c", false, Err("odd"))];
        assert_eq!(told(&choose(Some("a"), &one)), "a");
        assert_eq!(told(&choose(None, &one)), "b");
        assert!(told(&choose(Some("x"), &one)).contains("no AwsDeployUserClass x"));
        assert!(matches!(choose(Some("c"), &one), Choice::Unreadable(_)), "that is no reason to revoke anything");
        let two = [known("b", true, Ok(&b)), known("a", true, Ok(&a))];
        assert!(told(&choose(None, &two)).contains("the default: a, b."));
        assert!(told(&choose(None, &one[..1])).contains("none is the default"));
    }
}
