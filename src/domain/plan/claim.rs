//! Whether an IAM user of the declared name is owned by the resource, can be adopted, or must not be touched.
//!
//! Two sides must agree before a user is adopted: the class permits adoption, and an AWS admin names in a tag the one
//! resource that may adopt the user. The operator's own IAM policy denies it to write that tag.

use super::Note;
use crate::{
    api::{Reason, well_known},
    domain::{current_state::IamUser, desired::Consent, owner::Ownership, target::Target},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It carries our ownership tags.
    Owned,
    /// It carries no ownership tags, and both sides agree.
    Adoptable,
    /// It must not be changed, and why.
    NotOwned(Note),
}

/// `path` is that of the class: the IAM policy of the operator allows nothing outside it.
#[must_use]
pub fn evaluate_claim(target: &Target, consent: Consent, path: &str, user: &IamUser) -> Claim {
    let name = &user.name;
    let not_owned = |message: String| Claim::NotOwned(Note::new(Reason::NotOwned, message));
    match target.owner.classify(&user.tags) {
        Ownership::Ours => return Claim::Owned,
        Ownership::Other(who) => {
            return not_owned(format!(
                "the IAM user {name} belongs to {who}; it is not changed. IAM compares names without regard to case. Choose another spec.userName in a new resource"
            ));
        }
        Ownership::Untagged => {}
    }
    let conflict = format!("an IAM user {name} exists that was not created by this operator; it is not changed");
    if consent == Consent::NotRequested {
        return not_owned(format!(
            "{conflict}. Choose another spec.userName in a new resource, have that user deleted, or adopt it with spec.adoption: IfTagged"
        ));
    }
    if *name != target.user_name {
        return not_owned(format!(
            "{conflict}. It can be adopted under its exact name only: the resource says {}. Set spec.userName to {name} in a new resource",
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
        // The value may be the name of a resource in another namespace.
        let is = found.map(|_| " (the tag names another resource)").unwrap_or_default();
        missing.push(format!(
            "no AWS admin has consented{is}; an admin consents with: aws iam tag-user --user-name {name} --tags Key={},Value={wanted}",
            well_known::TAG_ADOPTABLE_BY
        ));
    }
    if let Some(found) = user.path().filter(|found| !found.starts_with(path)) {
        missing.push(format!(
            "its path is {found}, the operator is limited to {path}; an AWS admin can move the user, which changes its ARN, with: aws iam update-user --user-name {name} --new-path {path}"
        ));
    }
    if missing.is_empty() {
        return Claim::Adoptable;
    }
    not_owned(format!("{conflict}. spec.adoption is IfTagged, but {}", missing.join("; and ")))
}
