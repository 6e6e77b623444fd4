//! How we stand to an IAM user of the declared name: it is ours, it may be taken over, or it is left alone.
//!
//! Two sides have to agree before a user is taken over: the cluster, which permits adoption, and AWS, where an admin
//! names the one resource that may have the user. The operator's own policy denies it to write that tag.

use super::Note;
use crate::{
    api::{Reason, well_known},
    domain::{current_state::IamUser, desired::Consent, owner::Ownership, target::Target},
};

/// How we stand to an IAM user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It carries our marks.
    Owned,
    /// It carries nobody's marks, and both sides agree that it becomes ours.
    Adoptable,
    /// It is left alone, and why.
    NotOwned(Note),
}

/// Judges a user that was found. `path` is where the operator works: its IAM policy ends there.
#[must_use]
pub fn evaluate_claim(target: &Target, consent: Consent, path: &str, user: &IamUser) -> Claim {
    let name = &user.name;
    let left_alone = |message: String| Claim::NotOwned(Note::new(Reason::NotOwned, message));
    match target.owner.classify(&user.tags) {
        Ownership::Ours => return Claim::Owned,
        Ownership::Other(who) => {
            return left_alone(format!(
                "the IAM user {name} belongs to {who}; it is left alone. IAM compares names without regard to case. Choose another spec.userName in a new resource"
            ));
        }
        Ownership::Untagged => {}
    }
    let stranger = format!("an IAM user {name} exists that was not made by this operator; it is left alone");
    if consent == Consent::NotRequested {
        return left_alone(format!(
            "{stranger}. Choose another spec.userName in a new resource, have that user removed, or take it over with spec.adoption: IfTagged"
        ));
    }
    if *name != target.user_name {
        return left_alone(format!(
            "{stranger}. It can be adopted under its exact name only: the resource says {}. Set spec.userName to {name} in a new resource",
            target.user_name
        ));
    }
    let mut missing = Vec::new();
    if consent == Consent::NotPermitted {
        missing.push("its class does not permit adoption: a cluster admin can set adoption: Allow there".to_owned());
    }
    let wanted = target.owner.adoptable_by();
    let found = user.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(well_known::TAG_ADOPTABLE_BY));
    if found.is_none_or(|(_, value)| *value != wanted) {
        let is = found.map(|(_, value)| format!(" (the tag is {value:?} now)")).unwrap_or_default();
        missing.push(format!(
            "no AWS admin has consented{is}; one can, by: aws iam tag-user --user-name {name} --tags Key={},Value={wanted}",
            well_known::TAG_ADOPTABLE_BY
        ));
    }
    if let Some(found) = user.path().filter(|found| !found.starts_with(path)) {
        missing.push(format!(
            "its path is {found}, the operator works below {path} only; an AWS admin can move it, which changes its ARN, by: aws iam update-user --user-name {name} --new-path {path}"
        ));
    }
    if missing.is_empty() {
        return Claim::Adoptable;
    }
    left_alone(format!("{stranger}. spec.adoption is IfTagged, but {}", missing.join("; and ")))
}
