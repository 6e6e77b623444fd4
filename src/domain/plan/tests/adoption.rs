//! Taking over an IAM user that exists: both sides agree, or nothing of it is written.

use super::*;
use crate::{
    api::well_known,
    domain::{desired::Consent, plan::Freshness},
};

const CONSENT: &str = "cluster/deploy/cycle";

/// A user that somebody made: no mark of ours, nothing published.
fn strangers() -> Case {
    without_key().user(|user| user.tags.clear())
}

fn tag(key: &'static str, value: &'static str) -> impl FnOnce(&mut IamUser) {
    move |user| _ = user.tags.insert(key.into(), value.into())
}

fn permitted(case: Case) -> Case {
    case.desired(|desired| desired.adoption = Consent::Permitted)
}

fn adoptable() -> Case {
    permitted(strangers()).user(tag(well_known::TAG_ADOPTABLE_BY, CONSENT))
}

#[track_caller]
fn refused(case: &Case, told: &[&str]) {
    let plan = case.plan();
    assert_eq!(plan.effects, [], "nothing is written");
    let note = plan.user.expect("it is told");
    assert_eq!(note.reason, Reason::NotOwned);
    for told in told {
        assert!(note.message.contains(told), "{told:?} in {}", note.message);
    }
}

#[test]
fn with_the_consent_of_both_sides_a_user_is_taken_over() {
    adoptable().does("AdoptUser");
    let upper = permitted(strangers()).user(tag("AwsDeploy.dev/Adoptable-By", CONSENT));
    upper.does("AdoptUser");
    assert_eq!(
        Effect::AdoptUser(vec![]).required_freshness(),
        Freshness::Live,
        "a consent that is gone by now is none"
    );
    adoptable().current(|current| current.finalizer = false).does("AddFinalizer");
}

#[test]
fn without_the_consent_of_one_side_nothing_is_written_and_the_side_is_named() {
    let command =
        "aws iam tag-user --user-name deploy-cycle --tags Key=awsdeploy.dev/adoptable-by,Value=cluster/deploy/cycle";
    let cluster = "adoption: Allow";
    let not_permitted = |case: Case| case.desired(|desired| desired.adoption = Consent::NotPermitted);
    refused(&permitted(strangers()), &[command]);
    refused(&not_permitted(strangers()), &[command, cluster]);
    refused(&not_permitted(strangers().user(tag(well_known::TAG_ADOPTABLE_BY, CONSENT))), &[cluster]);
    refused(&strangers().user(tag(well_known::TAG_ADOPTABLE_BY, CONSENT)), &["spec.adoption: IfTagged"]);
}

#[test]
fn a_consent_to_another_resource_is_none() {
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
        refused(
            &permitted(strangers()).user(tag(well_known::TAG_ADOPTABLE_BY, value)),
            &[&format!("{value:?} now"), CONSENT],
        );
    }
}

#[test]
fn a_user_of_another_resource_is_never_taken_over() {
    for change in
        [("c2", "deploy", "cycle", "u1"), ("cluster", "deploy", "other", "u2"), ("cluster", "deploy", "cycle", "u0")]
    {
        let (cluster, namespace, name, uid) = change;
        let other = Owner { cluster: cluster.into(), namespace: namespace.into(), name: name.into(), uid: uid.into() };
        refused(&adoptable().user(|user| user.tags.extend(other.tags())), &["belongs to"]);
    }
    for mark in [
        well_known::TAG_CLUSTER,
        well_known::TAG_NAMESPACE,
        well_known::TAG_NAME,
        well_known::TAG_UID,
        "AWSDEPLOY.DEV/UID",
    ] {
        refused(&adoptable().user(tag(mark, "x")), &["belongs to"]);
    }
}

#[test]
fn a_name_that_differs_in_case_is_another_name() {
    refused(
        &adoptable().user(|user| user.name = "Deploy-Cycle".into()),
        &["exact name", "Set spec.userName to Deploy-Cycle"],
    );
}

#[test]
fn a_user_outside_of_the_operators_path_is_left_where_it_is() {
    let at = |arn: &'static str| adoptable().user(move |user| user.arn = arn.into());
    for arn in
        ["arn:aws:iam::123456789012:user/deploy-cycle", "arn:aws:iam::123456789012:user/awsdeployer/deploy-cycle"]
    {
        refused(&at(arn), &["update-user --user-name deploy-cycle --new-path /awsdeploy/"]);
    }
    at("arn:aws:iam::123456789012:user/awsdeploy/team/deploy-cycle").does("AdoptUser");
    at("arn:aws:iam::123456789012:user/deploy-cycle").desired(|desired| desired.path = "/".into()).does("AdoptUser");
}

#[test]
fn what_a_user_loses_is_known_before_it_is_taken_over() {
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
        "the present document of inline policy own",
    ]);
    assert_eq!(case.plan().effects, [Effect::AdoptUser(losses)], "the marks come before anything else");
}

#[test]
fn a_secret_conflict_is_found_before_a_user_is_taken_over() {
    assert_eq!(adoptable().foreign_secret().plan().effects, []);
    assert_eq!(adoptable().foreign_secret().plan().key.map(|note| note.reason), Some(Reason::SecretConflict));
}

#[test]
fn afterwards_the_consent_is_taken_off_and_only_ours() {
    let adopted = |value| without_key().user(tag(well_known::TAG_ADOPTABLE_BY, value));
    adopted(CONSENT).does("UntagUser awsdeploy.dev/adoptable-by");
    // An admin prepares to hand the user over: not ours to decide.
    adopted("cluster/deploy/successor").does("CreateKey beside ");
    adopted("cluster/deploy/successor")
        .leaving(DeletionPolicy::Retain)
        .leaves_by("UntagUser awsdeploy.dev/cluster, awsdeploy.dev/name, awsdeploy.dev/namespace, awsdeploy.dev/uid");
    let retained = adopted(CONSENT).leaving(DeletionPolicy::Retain).cleanup();
    assert!(words(&retained).contains("adoptable-by"), "a resource that leaves does not want it back");
}

#[test]
fn keys_that_are_there_stay_and_the_new_one_takes_a_free_slot() {
    let adopted = || without_key().key("F1", days(300));
    adopted().does("CreateKey beside F1");
    let full = adopted().key("F2", days(200));
    full.waits(None, Reason::KeyQuotaExceeded);
    let note = full.plan().key.expect("told");
    assert_eq!(note.reason, Reason::KeyQuotaExceeded, "that is why nobody has a key");
    assert!(note.message.contains("F1, F2"), "{}", note.message);
}
