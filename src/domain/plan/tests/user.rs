//! Ownership of the user, the finalizer, user and policies.

use super::*;
use crate::domain::plan::{EffectVerb, Freshness};

fn of_another(case: Case) -> Case {
    let other = Owner { cluster: "cluster".into(), namespace: "deploy".into(), name: "other".into(), uid: "u2".into() };
    case.user(|user| user.tags = other.tags())
}

#[test]
fn foreign_user_is_never_changed() {
    for case in [
        of_another(without_key()),
        of_another(idle()),
        of_another(idle()).credentials_revoked(),
        of_another(idle()).abandoned(&["K1"]),
        of_another(idle()).policy_missing(),
        idle().user(|user| user.tags.clear()),
    ] {
        let plan = case.plan();
        assert_eq!(plan.effects, [], "{plan:#?}");
        assert_eq!(plan.requeue_at, None);
        assert_eq!(plan.user.map(|note| note.reason), Some(Reason::NotOwned));
    }
}

#[test]
fn finalizer_is_added_before_anything_in_aws() {
    let case = without_key().no_user().current(|current| current.finalizer = false);
    assert_eq!(case.plan().effects, [Effect::AddFinalizer, Effect::CreateUser]);
    let case = without_key().current(|current| current.finalizer = false);
    case.does("AddFinalizer");
}

#[test]
fn user_is_recorded_before_it_is_created() {
    let unrecorded = |case: Case| case.current(|current| current.user_recorded = false);
    let case = unrecorded(without_key().no_user()).current(|current| current.finalizer = false);
    assert_eq!(case.plan().effects, [Effect::RecordUser, Effect::AddFinalizer, Effect::CreateUser]);
    unrecorded(without_key().no_user()).does("RecordUser");
}

#[test]
fn found_user_is_recorded_before_any_write_but_deactivation() {
    let unrecorded = |case: Case| case.current(|current| current.user_recorded = false);
    unrecorded(idle()).does("RecordUser");
    unrecorded(idle()).requested().does("RecordUser");
    unrecorded(without_key().policy_missing()).does("RecordUser");
    // A key that must not work does not wait for a write of the status.
    unrecorded(idle()).credentials_revoked().does("DeactivateKey K1 (CredentialsRevoked)");
    let without_finalizer = unrecorded(idle()).current(|current| current.finalizer = false);
    without_finalizer.credentials_revoked().does("DeactivateKey K1 (CredentialsRevoked)");
}

#[test]
fn tags_are_recorded_before_they_are_written() {
    let declared = |case: Case| case.desired(|desired| _ = desired.tags.insert("second".into(), "x".into()));
    let recorded = |key: &'static str| move |current: &mut CurrentState| _ = current.hints.tag_keys.insert(key.into());
    // The write of the first tag is known only from the status that preceded it.
    let edited =
        declared(idle()).current(recorded("first")).user(|user| _ = user.tags.insert("first".into(), "x".into()));
    edited.does("RecordUser");
    edited.clone().current(recorded("second")).does("UntagUser first");
    declared(without_key().no_user()).does("RecordUser");
    declared(without_key().no_user()).current(recorded("second")).does("CreateUser");
}

#[test]
fn user_of_an_ending_neighbour_is_awaited() {
    let neighbour = idle().user(|user| _ = user.tags.insert("awsdeploy.dev/uid".into(), "u0".into()));
    assert_eq!(neighbour.plan().requeue_at, None, "a neighbour that stays is terminal");
    let ending = neighbour.current(|current| current.owner_is_ending = true);
    ending.waits(secs(60), Reason::NotOwned);
    let note = ending.plan().user.unwrap().message;
    assert!(note.contains("belongs to an earlier AwsDeployUser deploy/cycle (uid u0)"), "{note}");
    assert!(note.contains("Key=awsdeploy.dev/uid,Value=u1") && !note.contains("Choose another"), "{note}");
}

#[test]
fn writes_to_the_user_need_it_live() {
    let id = || "K1".to_owned();
    for effect in [
        Effect::TagUser(BTreeMap::new()),
        Effect::AttachPolicy(id()),
        Effect::PutInlinePolicy(id(), json!({})),
        Effect::PutBoundary(id()),
        Effect::AddToGroup(id()),
        Effect::ApplyPassword,
        Effect::TagKey(id()),
    ] {
        let can_run = |case: &Case| effect.can_run_on(&case.current, &case.settings);
        let cached = idle().current(|current| (current.keys_read_at, current.grants_live) = (None, false));
        assert!(!can_run(&cached), "{effect}");
        assert!(can_run(&idle()), "{effect}");
        // STS has verified whose key it is.
        let is_key = matches!(effect, Effect::TagKey(_));
        assert_eq!(can_run(&cached.clone().accepted("K1", 1)), is_key, "{effect}");
        assert!(!can_run(&cached.clone().accepted("K1", 0)) && !can_run(&cached.accepted("K2", 1)), "{effect}");
    }
}

#[test]
fn foreign_secret_is_reported_before_the_user_is_created() {
    let case = without_key().no_user().foreign_secret();
    assert_eq!(case.plan().effects, []);
    assert_eq!(case.plan().key.map(|note| note.reason), Some(Reason::SecretConflict));
}

#[test]
fn policies_precede_only_the_first_key() {
    without_key().policy_missing().does("AttachPolicy arn:aws:iam::aws:policy/P");
    let refused = without_key().policy_missing().current(|current| current.user_sync_failed = true);
    refused.waits(None, Reason::Pending);
    // A policy that AWS refuses does not block a rotation: the published key has the same permissions.
    idle().policy_missing().requested().current(|current| current.user_sync_failed = true).does("CreateKey beside K1");
}

#[test]
fn permissions_shrink_before_they_grow() {
    let case = idle().policy_missing().user(|user| {
        let grants = user.grants.as_mut().unwrap();
        grants.attached.insert("arn:aws:iam::aws:policy/Old".into());
        grants.inline.insert("old".into(), json!({}));
    });
    let verbs: Vec<_> = case.plan().effects.iter().map(Effect::verb).collect();
    assert_eq!(verbs, [EffectVerb::DetachPolicy, EffectVerb::DeleteInlinePolicy, EffectVerb::AttachPolicy]);
}

#[test]
fn the_quarantine_of_aws_is_never_detached() {
    let quarantine = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
    idle().user(|user| _ = user.grants.as_mut().unwrap().attached.insert(quarantine.into())).does("nothing");
}

#[test]
fn only_previously_declared_tags_are_removed() {
    let tags =
        |case: Case| case.user(|user| user.tags.extend([("team".into(), "a".into()), ("theirs".into(), "b".into())]));
    tags(idle()).does("nothing");
    tags(idle()).current(|current| _ = current.hints.tag_keys.insert("team".into())).does("UntagUser team");
    let declared =
        |value: &'static str| move |desired: &mut Desired| _ = desired.tags.insert("Team".into(), value.into());
    let recorded = tags(idle()).current(|current| _ = current.hints.tag_keys.insert("Team".into()));
    recorded.clone().desired(declared("a")).does("nothing");
    recorded.desired(declared("b")).does("TagUser Team");
}

#[test]
fn description_of_the_published_key_follows_the_spec() {
    let described = |case: Case| case.declared_key(|key| key.description = Some("Cycle hub".into()));
    let tag = |value: &'static str| move |user: &mut IamUser| _ = user.tags.insert("K1".into(), value.into());
    described(idle()).does("TagUser K1");
    described(idle().user(tag("by hand"))).does("TagUser K1");
    described(idle().user(tag("Cycle hub"))).does("nothing");
    // None declared: a description written in the AWS console is kept.
    idle().user(tag("by hand")).does("nothing");
    // Written in one call with the ownership tag of the key, never before.
    described(idle().untagged("K1")).does("TagKey K1");
}

#[test]
fn revocation_comes_before_policies() {
    let case = idle().policy_missing().credentials_revoked();
    assert_eq!(
        case.plan().effects.iter().map(Effect::verb).collect::<Vec<_>>(),
        [EffectVerb::DeactivateKey, EffectVerb::AttachPolicy]
    );
}

#[test]
fn irreversible_effects_need_live_state() {
    let id = || "K1".to_owned();
    for effect in [
        Effect::CreateKey { known: vec![], repairs: None },
        Effect::AbandonAttempt { orphans: vec![], failed: false },
        Effect::DeactivateKey(id(), RetireReason::OverlapEnded),
        Effect::DeleteKey(id(), RetireReason::Orphan),
        Effect::UntagUser(BTreeSet::new()),
    ] {
        assert_eq!(effect.required_freshness(), Freshness::LiveKeys, "{effect}");
    }
    for effect in [
        Effect::CreateUser,
        Effect::DetachPolicy(id()),
        Effect::DeleteInlinePolicy(id()),
        Effect::RemoveFromGroup(id()),
        Effect::RemovePassword,
        Effect::DeleteUser,
        Effect::DeleteSecret,
        Effect::RemoveFinalizer,
    ] {
        assert_eq!(effect.required_freshness(), Freshness::Live, "{effect}");
    }
}

#[test]
fn each_freshness_requires_more_than_the_previous_one() {
    let seen = |iam_live: bool, grants_live| {
        let case =
            idle().current(|current| (current.keys_read_at, current.grants_live) = (iam_live.then(now), grants_live));
        [Freshness::Cached, Freshness::LiveKeys, Freshness::Live].map(|freshness| freshness.is_met_by(&case.current))
    };
    assert_eq!(seen(false, false), [true, false, false]);
    assert_eq!(seen(true, false), [true, true, false]);
    assert_eq!(seen(true, true), [true, true, true]);
}

#[test]
fn groups_are_removed_before_others_are_added() {
    let case = idle()
        .user(|user| _ = user.grants.as_mut().unwrap().groups.insert("admins".into()))
        .desired(|desired| _ = desired.groups.insert("deployers".into()));
    assert_eq!(case.plan().effects, [Effect::RemoveFromGroup("admins".into()), Effect::AddToGroup("deployers".into())]);
}

#[test]
fn boundary_is_set_before_any_permission() {
    let case = idle().policy_missing().desired(|desired| desired.boundary = Some("B".into()));
    assert_eq!(
        case.plan().effects.iter().map(Effect::verb).collect::<Vec<_>>(),
        [EffectVerb::PutBoundary, EffectVerb::AttachPolicy]
    );
    idle()
        .desired(|desired| desired.boundary = Some("B".into()))
        .user(|user| user.boundary = Some("B".into()))
        .does("nothing");
    idle().user(|user| user.boundary = Some("set by an AWS admin".into())).does("nothing");
}
