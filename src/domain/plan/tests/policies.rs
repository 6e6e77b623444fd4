//! Managed policies of documents: creation, versions, removal, and that no right is missing meanwhile.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    api::user::DocumentPlacement,
    domain::{
        desired::ManagedDocument,
        managed_policy::{self, CurrentPolicies, CurrentPolicy, DocumentDigest, PolicyOwner, RecordedPolicy},
        placement::{PlacedDocument, place},
        policy,
    },
};

fn arn(name: &str) -> String {
    managed_policy::arn("aws", "123456789012", "/awsdeploy/deploy_cycle/", "deploy_cycle", name)
}

fn document(meaning: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": meaning, "Resource": "*"}]})
}

fn managed(name: &str, document: Value) -> (String, ManagedDocument) {
    let digest = DocumentDigest::of(&document);
    (arn(name), ManagedDocument { name: name.into(), document, digest })
}

/// A policy of the resource in IAM: its versions have these documents, and the last one is the default.
fn found(name: &str, versions: &[(&str, &str)], attachments: i32) -> CurrentPolicy {
    let digest = |(version, meaning): &(&str, &str)| ((*version).to_owned(), DocumentDigest::of(&document(meaning)));
    CurrentPolicy {
        arn: arn(name),
        id: "ANPA1".into(),
        owner: PolicyOwner::Ours,
        default_version: versions.last().map(|(version, _)| (*version).to_owned()).unwrap_or_default(),
        documents: versions.iter().map(digest).collect(),
        content: None,
        attachments,
        versions: None,
        holders: None,
    }
}

fn record(versions: &[&str]) -> RecordedPolicy {
    RecordedPolicy {
        id: Some("ANPA1".into()),
        default_version: versions.last().map(|version| (*version).to_owned()),
        versions: strings(versions),
        other_versions: Vec::new(),
    }
}

impl Case {
    /// Declares a document as a managed policy, which the status records.
    fn declares(self, name: &str, meaning: &str) -> Self {
        let (arn, declared) = managed(name, document(meaning));
        self.with_record(name, RecordedPolicy::default()).desired(|desired| _ = desired.documents.insert(arn, declared))
    }

    fn with_record(self, name: &str, record: RecordedPolicy) -> Self {
        self.current(|current| _ = current.hints.policies.insert(arn(name), record))
    }

    fn has(self, policy: CurrentPolicy) -> Self {
        self.current(|current| _ = current.policies.found.insert(policy.arn.clone(), policy))
    }

    fn attached(self, name: &str) -> Self {
        self.user(|user| _ = user.grants.as_mut().unwrap().attached.insert(arn(name)))
    }

    fn policy(self, name: &str, change: impl FnOnce(&mut CurrentPolicy)) -> Self {
        self.current(|current| change(current.policies.found.get_mut(&arn(name)).expect("the policy")))
    }

    #[track_caller]
    fn plans(&self, effects: &[&str]) {
        let planned: Vec<String> = self.plan().effects.iter().map(Effect::to_string).collect();
        let expected: Vec<String> = effects.iter().map(|effect| effect.replace('@', &arn(""))).collect();
        assert_eq!(planned, expected);
    }

    #[track_caller]
    fn notes(&self, reason: Reason, parts: &[&str]) {
        let note = self.plan().user.expect("a note");
        assert_eq!(note.reason, reason, "{}", note.message);
        for part in parts {
            assert!(note.message.contains(part), "{part}: {}", note.message);
        }
    }

    #[track_caller]
    fn removes_by(&self, effect: &str) {
        self.cleans_up_by(&effect.replace('@', &arn("")));
    }
}

/// One document, attached, with two versions of the operator.
fn synced() -> Case {
    idle()
        .declares("s3", "s3:*")
        .with_record("s3", record(&["v1", "v2"]))
        .has(found("s3", &[("v1", "s3:Get*"), ("v2", "s3:*")], 1))
        .attached("s3")
}

#[test]
fn policy_is_recorded_then_created_then_attached() {
    let declared = idle().declares("s3", "s3:*");
    declared.clone().current(|current| current.hints.policies.clear()).does("RecordUser");
    declared.plans(&["CreatePolicy @s3", "AttachPolicy @s3"]);
    declared.clone().has(found("s3", &[("v1", "s3:*")], 0)).plans(&["AttachPolicy @s3"]);
    synced().does("nothing");
    // Neither is looked at while the user is not known.
    declared.user(|user| user.grants = None).does("nothing");
}

#[test]
fn first_key_waits_for_its_documents() {
    let declared = without_key().declares("s3", "s3:*").has(found("s3", &[("v1", "s3:*")], 0)).attached("s3");
    declared.does("CreateKey beside ");
    let foreign = declared.policy("s3", |policy| policy.owner = PolicyOwner::Other("of another".into()));
    foreign.plans(&["DetachPolicy @s3"]);
}

#[test]
fn policy_of_another_owner_is_never_written() {
    let other = |case: Case| case.policy("s3", |policy| policy.owner = PolicyOwner::Other("it is not ours".into()));
    for case in [synced(), synced().declares("s3", "s3:Put*"), synced().desired(|desired| desired.documents.clear())] {
        // Nor does the user keep it: what it gives is not declared.
        other(case).plans(&["DetachPolicy @s3"]);
    }
    other(synced()).notes(Reason::NotOwned, &[&arn("s3"), "it is not ours", "another name"]);
    // What an inline policy gives is kept as long as the managed one gives nothing.
    let inline = |user: &mut IamUser| _ = user.grants.as_mut().unwrap().inline.insert("s3".into(), document("s3:*"));
    other(synced()).user(|user| user.grants.as_mut().unwrap().attached.clear()).user(inline).does("nothing");
}

#[test]
fn restored_resource_tags_its_policy_first_and_once() {
    let earlier = |case: Case| case.policy("s3", |policy| policy.owner = PolicyOwner::Earlier);
    earlier(synced()).plans(&["TagPolicy @s3"]);
    earlier(synced()).policy("s3", |policy| policy.owner = PolicyOwner::Ours).does("nothing");
    let edited = earlier(synced().declares("s3", "s3:Put*").with_record("s3", RecordedPolicy::default()));
    edited.plans(&["TagPolicy @s3", "CreatePolicyVersion @s3"]);
    let detached = earlier(synced()).user(|user| user.grants.as_mut().unwrap().attached.clear());
    detached.plans(&["TagPolicy @s3", "AttachPolicy @s3"]);
    // One that is not declared is removed as it is.
    let removed = detached.desired(|desired| desired.documents.clear());
    removed.policy("s3", |policy| policy.attachments = 0).plans(&["DeletePolicyVersion @s3 v1"]);
}

/// Policies of documents that are not declared any more, and that others have.
fn left(case: Case, number: usize) -> Case {
    (0..number).fold(case, |case, n| {
        let mut policy = found(&format!("left{n}"), &[("v1", "s3:Get*")], 1);
        policy.holders = Some(strings(&["role deployer"]));
        case.with_record(&format!("left{n}"), record(&["v1"])).has(policy)
    })
}

#[test]
fn policies_that_are_left_limit_further_ones() {
    let new = |number| {
        let case = left(synced().declares("new", "s3:*"), number);
        case.current(|current| _ = current.hints.policies.remove(&arn("new")))
    };
    new(9).does("RecordUser");
    let note = new(9).plan().user.expect("policies are left");
    assert_eq!(note.reason, Reason::PolicyInUse, "{}", note.message);
    let full = new(10);
    full.does("nothing");
    full.notes(Reason::LimitExceeded, &["the document new", &arn("left9"), "10 or more"]);
    // What is recorded already is not held up.
    let recorded = full.clone().with_record("new", RecordedPolicy::default());
    recorded.plans(&["CreatePolicy @new", "AttachPolicy @new"]);
    assert!(!full.current(|current| current.hints.policies.clear()).plan().effects.is_empty());
}

#[test]
fn policies_that_could_not_be_read_stop_nothing_else() {
    let unread = |case: Case| {
        case.current(|current| {
            current.policies = CurrentPolicies::unread();
            current.policies_missing_since = Some(ago(secs(600)));
        })
    };
    unread(synced().declares("s3", "s3:Put*")).does("nothing");
    // What takes rights away needs no policy to be read.
    unread(synced().desired(|desired| desired.documents.clear())).plans(&["DetachPolicy @s3"]);
    let bounded = unread(synced()).desired(|desired| desired.boundary = Some("arn:aws:iam::aws:policy/B".into()));
    assert!(matches!(bounded.plan().effects[..], [Effect::PutBoundary(_)]), "{:?}", bounded.plan().effects);
    unread(without_key().declares("s3", "s3:*").attached("s3")).does("nothing");
    let revoked = unread(synced()).desired(|desired| desired.credentials_revoked = true);
    assert!(matches!(revoked.plan().effects[..], [Effect::DeactivateKey(..), ..]), "{:?}", revoked.plan().effects);
    // The user leads to its policies.
    let deleted = unread(synced()).user(|user| {
        user.keys.clear();
        user.grants = Some(Grants::default());
    });
    assert_eq!(deleted.cleanup().effects, []);
    assert_eq!(deleted.cleanup().user.expect("a note").reason, Reason::Deleting);
    // None counts as gone: its record is kept until it was read.
    let deleted = unread(synced()).no_user().no_secret();
    assert_eq!(deleted.cleanup().effects, []);
    let retained = unread(synced()).foreign_secret().leaving(DeletionPolicy::Retain);
    assert_eq!(retained.cleanup().effects, []);
}

#[test]
fn inline_policy_has_the_new_text_before_it_becomes_managed() {
    let inline = |meaning: &str| {
        let inline = document(meaning);
        let case = idle().declares("s3", "s3:Get*");
        case.user(|user| _ = user.grants.as_mut().unwrap().inline.insert("s3".into(), inline))
    };
    inline("s3:*").plans(&["PutInlinePolicy s3", "CreatePolicy @s3", "AttachPolicy @s3", "DeleteInlinePolicy s3"]);
    inline("s3:Get*").plans(&["CreatePolicy @s3", "AttachPolicy @s3", "DeleteInlinePolicy s3"]);
    // Another document is to become inline in the room that is left.
    let text = document(&"x".repeat(1_000));
    let exchange = inline("s3:*").desired(|desired| {
        let large = managed("s3", document(&"y".repeat(1_800)));
        desired.documents = [large].into();
        desired.inline.insert("other".into(), text);
    });
    let first = exchange.plan().effects[0].to_string();
    assert_eq!(first, "PutInlinePolicy other", "{:?}", exchange.plan().effects);
    // No room for it beside the others.
    let large = document(&"x".repeat(2_000));
    let full = inline("*").user(|user| _ = user.grants.as_mut().unwrap().inline.insert("large".into(), large.clone()));
    let full = full.desired(|desired| _ = desired.inline.insert("large".into(), large.clone()));
    full.plans(&["CreatePolicy @s3", "AttachPolicy @s3", "DeleteInlinePolicy s3"]);
}

#[test]
fn corrections_and_removals_come_before_what_may_fail() {
    let removed = found("old", &[("v1", "s3:*")], 0);
    let case = synced().declares("s3", "s3:Put*").declares("new", "s3:*");
    let case = case.with_record("s3", record(&["v1", "v2"])).with_record("old", record(&["v1"])).has(removed);
    case.plans(&["CreatePolicyVersion @s3", "DeletePolicy @old", "CreatePolicy @new", "AttachPolicy @new"]);
}

#[test]
fn policy_whose_name_differs_in_case_is_deleted_first() {
    let renamed = synced().desired(|desired| desired.documents.clear()).declares("S3", "s3:*");
    renamed.plans(&["DetachPolicy @s3", "ReadPolicyHolders @s3"]);
    let detached = renamed.user(|user| user.grants.as_mut().unwrap().attached.clear());
    let detached = detached.policy("s3", |policy| policy.attachments = 0);
    assert_eq!(detached.plan().effects[0].to_string(), format!("DeletePolicyVersion {} v1", arn("s3")));
    let deleted = detached.clone().current(|current| current.policies.found.clear());
    assert_eq!(deleted.plan().effects[0].to_string(), format!("CreatePolicy {}", arn("S3")));
    let held = detached.policy("s3", |policy| policy.holders = Some(strings(&["role deployer"])));
    held.does("nothing");
    held.notes(Reason::PolicyInUse, &[&arn("s3"), "role deployer"]);
}

/// A user with no free attachment: one document is attached, another one is inline, and they change places.
fn full(present: usize, size: usize) -> Case {
    let text = |size: usize| document(&"x".repeat(size));
    let large = managed("large", text(3_000));
    let case = synced().desired(|desired| {
        desired.documents = [large.clone()].into();
        desired.inline = [("s3".to_owned(), text(size))].into();
    });
    let case = case.with_record("large", RecordedPolicy::default());
    case.user(|user| _ = user.grants.as_mut().unwrap().inline.insert("large".into(), text(present)))
        .settings(|settings| settings.max_attached_policies = 1)
}

#[test]
fn documents_change_places_with_no_attachment_free() {
    let put = |case: &Case| case.plan().effects[0].to_string();
    let mut case = full(300, 1_000);
    assert_eq!(put(&case), "PutInlinePolicy s3");
    let written = document(&"x".repeat(1_000));
    case = case.user(|user| _ = user.grants.as_mut().unwrap().inline.insert("s3".into(), written));
    assert_eq!(put(&case), format!("DetachPolicy {}", arn("s3")));
    // Neither fits before the other one is gone: nothing is taken away.
    let stuck = full(1_500, 1_000);
    stuck.plans(&["CreatePolicy @large"]);
    stuck.notes(Reason::LimitExceeded, &["s3 cannot become inline", "PoliciesPerUser"]);
    let free = stuck.settings(|settings| settings.max_attached_policies = 2);
    assert!(free.plan().effects.contains(&Effect::AttachPolicy(arn("large"))), "{:?}", free.plan());
}

#[test]
fn edit_makes_a_version_and_keeps_one_replaced() {
    let edited = synced().declares("s3", "s3:Put*").with_record("s3", record(&["v1", "v2"]));
    edited.plans(&["CreatePolicyVersion @s3"]);
    let made = synced().with_record("s3", record(&["v1", "v2", "v3"])).policy("s3", |policy| {
        policy.add_default("v3", DocumentDigest::of(&document("s3:*")));
    });
    made.plans(&["DeletePolicyVersion @s3 v1"]);
    made.clone().desired(|desired| desired.keep_versions = 0).does(&format!("DeletePolicyVersion {} v1", arn("s3")));
    made.desired(|desired| desired.keep_versions = 2).does("nothing");
}

#[test]
fn document_of_a_kept_version_costs_no_new_one() {
    let back = synced().declares("s3", "s3:Get*").with_record("s3", record(&["v1", "v2"]));
    back.plans(&["SetDefaultPolicyVersion @s3 v1"]);
    let deleted = back.policy("s3", |policy| policy.versions = Some(strings(&["v2"])));
    deleted.plans(&["CreatePolicyVersion @s3"]);
}

#[test]
fn default_switched_by_hand_is_switched_back() {
    let switched = synced().policy("s3", |policy| policy.default_version = "v1".into());
    switched.plans(&["SetDefaultPolicyVersion @s3 v2"]);
    // After a restart the documents of the other versions are not known: they are read.
    let unknown = switched.clone().policy("s3", |policy| _ = policy.documents.remove("v2"));
    unknown.plans(&["ReadPolicyVersions @s3"]);
    let read = unknown.policy("s3", |policy| policy.versions = Some(strings(&["v1", "v2"])));
    read.plans(&["CreatePolicyVersion @s3"]);
}

#[test]
fn version_by_hand_is_replaced_and_never_deleted() {
    let by_hand = synced().policy("s3", |policy| policy.add_default("v7", DocumentDigest::of(&document("*"))));
    by_hand.plans(&["SetDefaultPolicyVersion @s3 v2"]);
    let full = |own: &[&str]| {
        let five = strings(&["v3", "v4", "v5", "v6", "v7"]);
        let edited = synced().declares("s3", "s3:Put*").with_record("s3", record(own));
        edited.policy("s3", |policy| (policy.versions, policy.default_version) = (Some(five), "v7".into()))
    };
    full(&["v3", "v4", "v7"]).plans(&["DeletePolicyVersion @s3 v3"]);
    full(&["v7"]).does("nothing");
    full(&["v7"])
        .notes(Reason::LimitExceeded, &["v3, v4, v5, v6, v7", "5 versions", "delete-policy-version", &arn("s3")]);
}

#[test]
fn removed_document_is_detached_then_deleted_with_its_versions() {
    let mut case = synced().desired(|desired| desired.documents.clear());
    case.plans(&["DetachPolicy @s3"]);
    case =
        case.user(|user| user.grants.as_mut().unwrap().attached.clear()).policy("s3", |policy| policy.attachments = 0);
    case.plans(&["DeletePolicyVersion @s3 v1"]);
    case = case.with_record("s3", record(&["v2"]));
    case.plans(&["DeletePolicy @s3"]);
    // IAM refused it: there are versions by hand.
    case = case.policy("s3", |policy| {
        (policy.versions, policy.holders) = (Some(strings(&["v2", "v3"])), Some(Vec::new()));
    });
    case.plans(&["DeletePolicyVersion @s3 v3"]);
}

#[test]
fn policy_that_others_have_is_kept_and_reported() {
    let removed = synced().desired(|desired| desired.documents.clear());
    let removed = removed.user(|user| user.grants.as_mut().unwrap().attached.clear());
    removed.plans(&["ReadPolicyHolders @s3"]);
    let held = removed.policy("s3", |policy| policy.holders = Some(strings(&["role deployer"])));
    held.does("nothing");
    held.notes(Reason::PolicyInUse, &[&arn("s3"), "role deployer", "detach"]);
    // Nothing that is declared is missing.
    let keyless = held.key_gone("K1").untagged("K1").no_secret();
    keyless.does("CreateKey beside ");
}

#[test]
fn record_is_forgotten_only_after_the_lag_of_lists() {
    let gone = |age| {
        let case = idle().with_record("s3", record(&["v1"]));
        case.current(|current| current.policies_missing_since = Some(ago(age)))
    };
    gone(secs(59)).does("nothing");
    assert_eq!(gone(secs(59)).plan().requeue_at, Some(now() + secs(1)));
    gone(secs(60)).plans(&["ForgetPolicy @s3"]);
    let effect = Effect::ForgetPolicy(arn("s3"));
    let can_run = |case: &Case| effect.can_run_on(&case.current, &case.settings);
    assert!(can_run(&gone(secs(60))) && !can_run(&gone(secs(60)).listed(secs(1))), "on a list from after it");
    // A declared one is created again.
    gone(secs(60)).declares("s3", "s3:*").does(&format!("CreatePolicy {}", arn("s3")));
}

#[test]
fn policies_are_deleted_after_the_user_and_before_the_finalizer() {
    let mut case = synced().policy("s3", |policy| policy.attachments = 0).no_user().no_secret();
    case.removes_by("DeletePolicyVersion @s3 v1");
    case = case.with_record("s3", record(&["v2"]));
    case.removes_by("DeletePolicy @s3");
    let held = case.clone().policy("s3", |policy| policy.holders = Some(strings(&["group ops"])));
    assert_eq!(held.cleanup().effects, []);
    let note = held.cleanup().user.unwrap();
    assert!(note.reason == Reason::PolicyInUse && note.message.contains("group ops"), "{}", note.message);
    // IAM does not list it, perhaps not yet.
    case = case.current(|current| current.policies.found.clear());
    assert_eq!((case.cleanup().effects, case.cleanup().requeue_at), (vec![], Some(now() + secs(60))));
    case.current(|current| current.hints.policies.clear()).removes_by("RemoveFinalizer");
}

#[test]
fn policies_are_recorded_before_the_user_is_deleted() {
    let bare = synced().user(|user| {
        user.keys.clear();
        user.grants = Some(Grants::default());
    });
    bare.removes_by("DeleteUser");
    bare.current(|current| current.hints.policies.clear()).removes_by("RecordUser");
}

#[test]
fn retained_policies_lose_their_tags_before_the_user() {
    let mut case = synced().foreign_secret().leaving(DeletionPolicy::Retain);
    case.removes_by("UntagPolicy @s3");
    case = case.policy("s3", |policy| policy.owner = PolicyOwner::Other("retained".into()));
    assert!(matches!(case.cleanup().effects[..], [Effect::UntagUser(_)]), "{:?}", case.cleanup());
    case.clone().no_user().removes_by("RemoveFinalizer");
    // One that IAM does not list yet has the tags.
    case = case.current(|current| {
        current.policies.found.clear();
        current.policies_missing_since = Some(ago(secs(59)));
    });
    assert_eq!((case.cleanup().effects, case.cleanup().requeue_at), (vec![], Some(now() + secs(1))));
    case = case.current(|current| current.policies_missing_since = Some(ago(secs(60))));
    case.removes_by("ForgetPolicy @s3");
}

#[test]
fn writes_to_a_policy_need_it_live() {
    let arn = || arn("s3");
    for effect in [
        Effect::CreatePolicyVersion(arn()),
        Effect::SetDefaultPolicyVersion(arn(), "v1".into()),
        Effect::DeletePolicyVersion(arn(), "v1".into()),
        Effect::DeletePolicy(arn()),
        Effect::TagPolicy(arn()),
        Effect::UntagPolicy(arn()),
        Effect::AttachPolicy(arn()),
        Effect::DetachPolicy(arn()),
    ] {
        assert_eq!(effect.required_freshness(), crate::domain::plan::Freshness::Live, "{effect}");
    }
}

// --- no right is missing meanwhile --------------------------------------------------------------

/// What IAM does on such a call.
fn apply(case: &mut Case, effect: &Effect) {
    let (desired, current) = (&case.desired, &mut case.current);
    let CurrentUser::Found(user) = &mut current.iam else { panic!("no user") };
    let grants = user.grants.as_mut().unwrap();
    let policies = &mut current.policies.found;
    match effect {
        Effect::CreatePolicy(arn) => {
            assert!(!policies.contains_key(arn), "{effect} for nothing");
            let declared = &desired.documents[arn];
            let mut policy = found(&declared.name, &[], 0);
            policy.add_default("v1", declared.digest);
            policies.insert(arn.clone(), policy);
            current.hints.policies.insert(arn.clone(), record(&["v1"]));
        }
        Effect::CreatePolicyVersion(arn) => {
            let policy = policies.get_mut(arn).expect("a policy");
            let version = format!("v{}", managed_policy::version_number(&policy.default_version) + 1);
            policy.add_default(&version, desired.documents[arn].digest);
            current.hints.policies.get_mut(arn).unwrap().add_default(&version);
        }
        Effect::SetDefaultPolicyVersion(arn, version) => {
            policies.get_mut(arn).expect("a policy").default_version.clone_from(version);
            current.hints.policies.get_mut(arn).unwrap().add_default(version);
        }
        Effect::DeletePolicyVersion(arn, version) => {
            let policy = policies.get_mut(arn).expect("a policy");
            assert_ne!(policy.default_version, *version);
            policy.remove_version(version);
            current.hints.policies.get_mut(arn).unwrap().versions.retain(|known| known != version);
        }
        Effect::DeletePolicy(arn) => {
            assert!(!grants.attached.contains(arn), "{effect} while it is attached");
            assert!(policies.remove(arn).is_some(), "{effect} for nothing");
            current.hints.policies.remove(arn);
        }
        Effect::AttachPolicy(arn) => {
            policies.get_mut(arn).expect("a policy").attachments += 1;
            assert!(grants.attached.insert(arn.clone()), "{effect} for nothing");
        }
        Effect::DetachPolicy(arn) => {
            policies.get_mut(arn).expect("a policy").attachments -= 1;
            assert!(grants.attached.remove(arn), "{effect} for nothing");
        }
        Effect::PutInlinePolicy(name, document) => _ = grants.inline.insert(name.clone(), document.clone()),
        Effect::DeleteInlinePolicy(name) => assert!(grants.inline.remove(name).is_some(), "{effect} for nothing"),
        other => panic!("{other} is about no document"),
    }
}

/// Whether the user has the right of a document, inline or by an attached policy.
fn gives(case: &Case, name: &str, wanted: &Value) -> bool {
    let grants = case.current.user().and_then(|user| user.grants.as_ref()).unwrap();
    let inline = grants.inline.get(name).is_some_and(|found| policy::is_equivalent(found, wanted));
    let policy = case.current.policies.found.get(&arn(name)).filter(|policy| grants.attached.contains(&policy.arn));
    inline || policy.and_then(CurrentPolicy::digest) == Some(DocumentDigest::of(wanted))
}

/// Documents by name, of sizes that change what fits inline.
fn documents() -> impl Strategy<Value = BTreeMap<String, (usize, DocumentPlacement)>> {
    use DocumentPlacement::{Auto, Managed};
    let size = prop_oneof![Just(100_usize), Just(700), Just(1100), Just(2000), Just(4000)];
    proptest::collection::btree_map("[a-d]", (size, prop_oneof![3 => Just(Auto), 1 => Just(Managed)]), 0..5)
}

fn with_documents(case: Case, documents: &BTreeMap<String, (usize, DocumentPlacement)>) -> Case {
    let text = |size: &usize| document(&"x".repeat(*size));
    let all: Vec<_> = documents.iter().map(|(name, (size, placement))| (name, text(size), *placement)).collect();
    let placed: Vec<_> = all
        .iter()
        .map(|(name, document, placement)| PlacedDocument { name, document, placement: *placement })
        .collect();
    let placement = place(&placed);
    case.current(|current| {
        for name in placement.managed.keys() {
            current.hints.policies.entry(arn(name)).or_default();
        }
    })
    .desired(|desired| {
        desired.inline.clone_from(&placement.inline);
        desired.documents = placement.managed.iter().map(|(name, text)| managed(name, text.clone())).collect();
    })
}

/// Executes effects until nothing is to be done; `each` sees every state.
fn converge(mut case: Case, mut each: impl FnMut(&Case, &Effect)) -> Case {
    for _ in 0..100 {
        let plan = case.plan();
        let Some(effect) = plan.effects.first() else { return case };
        apply(&mut case, effect);
        each(&case, effect);
    }
    panic!("no end: {:#?}", case.plan());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// From any declared documents to any others: what both declare alike, or gave before and is edited, is never missing, and
    /// neither quota is exceeded, however tight. Where both are in the way, it is reported.
    #[test]
    fn no_right_is_missing_while_documents_change(before in documents(), after in documents()) {
        let start = converge(with_documents(idle(), &before), |_, _| ());
        let case = with_documents(start.clone(), &after);
        let limit = start.desired.documents.len().max(case.desired.documents.len());
        let case = case.settings(|settings| settings.max_attached_policies = limit);
        let same = |name: &String| before.get(name).map(|(size, _)| size) == after.get(name).map(|(size, _)| size);
        let kept: Vec<_> = after.iter().filter(|(name, _)| same(name)).collect();
        let end = converge(case, |case, effect| {
            for (name, (size, _)) in &kept {
                assert!(gives(case, name, &document(&"x".repeat(*size))), "{name} is missing after {effect}");
            }
            let inline = &case.current.user().unwrap().grants.as_ref().unwrap().inline;
            let total: usize = inline.values().map(policy::counted_characters).sum();
            assert!(total <= policy::MAX_INLINE_CHARACTERS, "{total} inline after {effect}");
            let attached = case.current.user().unwrap().grants.as_ref().unwrap().attached.len();
            assert!(attached <= limit, "{attached} attached after {effect}");
        });
        if end.plan().user.is_some_and(|note| note.reason == Reason::LimitExceeded) {
            return Ok(());
        }
        for (name, (size, _)) in &after {
            prop_assert!(gives(&end, name, &document(&"x".repeat(*size))), "{name} is not given");
        }
        let grants = end.current.user().unwrap().grants.as_ref().unwrap();
        prop_assert_eq!(grants.inline.len() + grants.attached.len(), after.len(), "nothing is left over");
        prop_assert_eq!(end.current.policies.found.len(), grants.attached.len(), "no policy is left over");
        prop_assert_eq!(end.current.hints.policies.len(), grants.attached.len(), "no record is left over");
    }
}
