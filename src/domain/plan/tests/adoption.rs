//! Adoption of an existing IAM user: both sides agree, or nothing is written.

use super::*;
use crate::{
    api::well_known,
    domain::{desired::Consent, plan::Freshness},
};

const CONSENT: &str = "cluster/deploy/cycle";

/// A user of unknown origin: no ownership tags, nothing published.
fn untagged() -> Case {
    without_key().user(|user| user.tags.clear())
}

fn tag(key: &'static str, value: &'static str) -> impl FnOnce(&mut IamUser) {
    move |user| _ = user.tags.insert(key.into(), value.into())
}

fn permitted(case: Case) -> Case {
    case.desired(|desired| desired.adoption = Consent::Permitted)
}

fn adoptable() -> Case {
    permitted(untagged()).user(tag(well_known::TAG_ADOPTABLE_BY, CONSENT))
}

#[track_caller]
fn is_refused(case: &Case, parts: &[&str]) {
    let plan = case.plan();
    assert_eq!(plan.effects, [], "nothing is written");
    let note = plan.user.expect("a note");
    assert_eq!(note.reason, Reason::NotOwned);
    for part in parts {
        assert!(note.message.contains(part), "{part:?} in {}", note.message);
    }
}

#[test]
fn user_is_adopted_with_consent_of_both_sides() {
    adoptable().does("AdoptUser");
    let upper = permitted(untagged()).user(tag("AwsDeploy.dev/Adoptable-By", CONSENT));
    upper.does("AdoptUser");
    assert_eq!(Effect::AdoptUser(vec![]).required_freshness(), Freshness::Live, "the consent must still be there");
    adoptable().current(|current| current.finalizer = false).does("AddFinalizer");
    adoptable().current(|current| current.user_recorded = false).does("RecordUser");
}

#[test]
fn missing_consent_is_named_and_nothing_is_written() {
    let command =
        "aws iam tag-user --user-name deploy_cycle --tags Key=awsdeploy.dev/adoptable-by,Value=cluster/deploy/cycle";
    let cluster = "adoption: Allow";
    let not_permitted = |case: Case| case.desired(|desired| desired.adoption = Consent::NotPermitted);
    is_refused(&permitted(untagged()), &[command]);
    is_refused(&not_permitted(untagged()), &[command, cluster]);
    is_refused(&not_permitted(untagged().user(tag(well_known::TAG_ADOPTABLE_BY, CONSENT))), &[cluster]);
    is_refused(&untagged().user(tag(well_known::TAG_ADOPTABLE_BY, CONSENT)), &["spec.adoption: IfTagged"]);
}

#[test]
fn consent_to_another_resource_does_not_count() {
    for value in [
        "other/deploy/cycle",
        "cluster/other/cycle",
        "cluster/deploy/other",
        "Cluster/Deploy/Cycle",
        "deploy/cycle",
        "cluster/deploy/cycle ",
        "cluster/deploy/cycle/",
        "*",
        "",
    ] {
        is_refused(
            &permitted(untagged()).user(tag(well_known::TAG_ADOPTABLE_BY, value)),
            &["the tag names another resource", CONSENT],
        );
    }
}

#[test]
fn user_of_another_resource_is_never_adopted() {
    for change in
        [("c2", "deploy", "cycle", "u1"), ("cluster", "deploy", "other", "u2"), ("cluster", "deploy", "cycle", "u0")]
    {
        let (cluster, namespace, name, uid) = change;
        let other = Owner { cluster: cluster.into(), namespace: namespace.into(), name: name.into(), uid: uid.into() };
        is_refused(&adoptable().user(|user| user.tags.extend(other.tags())), &["belongs to"]);
    }
    for tag_key in [
        well_known::TAG_CLUSTER,
        well_known::TAG_NAMESPACE,
        well_known::TAG_NAME,
        well_known::TAG_UID,
        "AWSDEPLOY.DEV/UID",
    ] {
        is_refused(&adoptable().user(tag(tag_key, "x")), &["belongs to"]);
    }
}

#[test]
fn name_that_differs_in_case_is_not_adopted() {
    is_refused(
        &adoptable().user(|user| user.name = "Deploy-Cycle".into()),
        &["exact name", "Set spec.userName to Deploy-Cycle"],
    );
}

#[test]
fn user_outside_the_path_is_not_adopted() {
    let at = |arn: &'static str| adoptable().user(move |user| user.arn = arn.into());
    for arn in
        ["arn:aws:iam::123456789012:user/deploy_cycle", "arn:aws:iam::123456789012:user/awsdeployer/deploy_cycle"]
    {
        is_refused(&at(arn), &["update-user --user-name deploy_cycle --new-path /awsdeploy/"]);
    }
    at("arn:aws:iam::123456789012:user/awsdeploy/team/deploy_cycle").does("AdoptUser");
    at("arn:aws:iam::123456789012:user/deploy_cycle").desired(|desired| desired.path = "/".into()).does("AdoptUser");
}

#[test]
fn adoption_lists_what_the_user_loses() {
    let case = adoptable().policy_missing().desired(|desired| _ = desired.inline.insert("own".into(), json!({"a": 1})));
    let case = case.user(|user| {
        let grants = user.grants.as_mut().unwrap();
        grants.attached = ["arn:aws:iam::aws:policy/Old".into(), "arn:aws:iam::aws:policy/P".into()].into();
        grants.attached.insert("arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3".into());
        grants.inline = [("theirs".into(), json!({})), ("own".into(), json!({"a": 2}))].into();
        grants.groups = ["admins".to_owned()].into();
    });
    let losses = strings(&[
        "managed policy arn:aws:iam::aws:policy/Old",
        "inline policy theirs",
        "group admins",
        "the current document of inline policy own",
    ]);
    assert_eq!(case.plan().effects, [Effect::AdoptUser(losses)], "ownership tags are written before anything else");
}

#[test]
fn secret_conflict_is_reported_before_adoption() {
    assert_eq!(adoptable().foreign_secret().plan().effects, []);
    assert_eq!(adoptable().foreign_secret().plan().key.map(|note| note.reason), Some(Reason::SecretConflict));
}

#[test]
fn adoption_removes_only_the_consent_to_this_resource() {
    let adopted = |value| without_key().user(tag(well_known::TAG_ADOPTABLE_BY, value));
    adopted(CONSENT).does("UntagUser awsdeploy.dev/adoptable-by");
    // An admin prepares the adoption by another resource.
    adopted("cluster/deploy/successor").does("CreateKey beside ");
    adopted("cluster/deploy/successor").leaving(DeletionPolicy::Retain).cleans_up_by(
        "UntagUser awsdeploy.dev/cluster, awsdeploy.dev/name, awsdeploy.dev/namespace, awsdeploy.dev/overlap, awsdeploy.dev/uid",
    );
    let retained = adopted(CONSENT).leaving(DeletionPolicy::Retain).cleanup();
    assert!(next_effect(&retained).contains("adoptable-by"), "the consent to this resource is removed too");
}

#[test]
fn adoption_keeps_existing_keys_and_uses_a_free_slot() {
    let adopted = || without_key().key("F1", days(300));
    adopted().does("CreateKey beside F1");
    let full = adopted().key("F2", days(200));
    full.waits(None, Reason::KeyQuotaExceeded);
    let note = full.plan().key.expect("a note");
    assert_eq!(note.reason, Reason::KeyQuotaExceeded, "that is why no key is published");
    assert!(note.message.contains("F1, F2"), "{}", note.message);
}
