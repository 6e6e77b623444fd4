//! Policy documents: their text, their sizes, and what each becomes in IAM.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    api::user::AwsDeployUserSpec,
    domain::{
        desired::{Account, ManagedDocument},
        managed_policy::{self, DocumentDigest, MAX_PATH_CHARACTERS},
        placement::{PlacedDocument, Placement, place},
        policy, policy_document,
        target::Target,
    },
};

const FIELD: &str = "policies.documents";

/// Places the documents. Authorization has replaced templates by documents.
pub(super) fn placement(
    spec: &AwsDeployUserSpec,
    path: &str,
    violate: &mut impl FnMut(&'static str, String),
) -> Placement {
    let mut documents = Vec::new();
    for (number, declared) in spec.policies.documents.iter().enumerate() {
        let name = declared.name.as_str();
        let others = &spec.policies.documents[..number];
        if let Some(other) = others.iter().find(|other| other.name.eq_ignore_ascii_case(name)) {
            violate(
                FIELD,
                format!(
                    "the documents {:?} and {name:?} differ at most in case; IAM treats names of managed policies that do as one",
                    other.name
                ),
            );
        }
        let Some(document) = &declared.document else {
            violate(FIELD, format!("{name} has no document"));
            continue;
        };
        if let Some((wrong, around)) = policy::forbidden_character(document) {
            violate(
                FIELD,
                format!(
                    "the document {name} contains {wrong:?} (U+{:04X}) in {around:?}; IAM allows the characters up to U+00FF only. A hyphen or quotation mark may have been changed by an editor or a web page; type it again",
                    u32::from(wrong)
                ),
            );
        }
        for error in policy_document::errors(document) {
            violate(FIELD, format!("the document {name}: {error}"));
        }
        documents.push(PlacedDocument { name, document, placement: declared.placement });
    }
    let placement = place(&documents);
    for violation in placement.size_violations() {
        violate(FIELD, violation);
    }
    for (name, document) in &placement.managed {
        if let Some(error) = policy_document::managed_error(document) {
            violate(FIELD, format!("the document {name}: {error}"));
        }
    }
    if let (Some(name), Some(why)) = (placement.managed.keys().next(), unsuitable_path(path)) {
        violate(
            FIELD,
            format!(
                "the document {name} would be a managed policy at the path {path}, {why}; make all documents small enough for inline policies, or use a class with another users.path"
            ),
        );
    }
    placement
}

/// Why IAM does not allow this path for policies. It allows less than for users.
fn unsuitable_path(path: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+=,@-/".contains(c);
    let length = path.chars().count();
    if length > MAX_PATH_CHARACTERS {
        return Some(format!("which has {length} characters, IAM allows {MAX_PATH_CHARACTERS}"));
    }
    let wrong = path.chars().find(|c| !allowed(*c))?;
    Some(format!("which contains {wrong:?}: IAM does not allow it in paths of policies"))
}

/// The number of attached policies: the declared ones, and documents that are managed policies.
pub(super) fn check_count(
    attached: &BTreeSet<String>,
    placement: &Placement,
    max: usize,
    violate: &mut impl FnMut(&'static str, String),
) {
    let (declared, placed) = (attached.len(), placement.managed.len());
    if declared + placed <= max {
        return;
    }
    let (field, are) = if placed > 0 {
        let documents = placement.managed.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        (FIELD, format!("would be attached, {placed} of them documents ({documents})"))
    } else {
        ("policies.managed", "are declared".to_owned())
    };
    violate(
        field,
        format!(
            "{} managed policies {are}, the account allows {max} per user (IAM quota PoliciesPerUser); merge some, or have the quota raised and start the operator with --max-attached-policies",
            declared + placed
        ),
    );
}

/// Documents that are managed policies, by ARN.
pub(super) fn managed_documents(
    managed: BTreeMap<String, Value>,
    path: &str,
    target: &Target,
    account: &Account,
) -> BTreeMap<String, ManagedDocument> {
    let arn = |name: &str| managed_policy::arn(&account.partition, &account.id, path, &target.user_name, name);
    let document = |(name, document): (String, Value)| {
        let digest = DocumentDigest::of(&document);
        (arn(&name), ManagedDocument { name, document, digest })
    };
    managed.into_iter().map(document).collect()
}
