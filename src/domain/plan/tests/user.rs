//! The frame around the chain: whose user it is, the finalizer, user and policies.

use super::*;
use crate::domain::plan::Freshness;

fn of_another(case: Case) -> Case {
    let other = Owner { cluster: "cluster".into(), namespace: "deploy".into(), name: "other".into(), uid: "u2".into() };
    case.user(|user| user.tags = other.tags())
}

#[test]
fn a_user_of_somebody_else_is_left_alone_whatever_is_due() {
    for case in [
        of_another(without_key()),
        of_another(at_rest()),
        of_another(at_rest()).suspended(),
        of_another(at_rest()).abandoned(&["K1"]),
        of_another(at_rest()).policy_missing(),
        at_rest().user(|user| user.tags.clear()),
    ] {
        let plan = case.plan();
        assert_eq!(plan.effects, [], "{plan:#?}");
        assert_eq!(plan.requeue_at, None);
        assert_eq!(plan.user.map(|note| note.reason), Some(Reason::NotOwned));
    }
}

#[test]
fn the_finalizer_comes_before_anything_in_aws() {
    let case = without_key().user_absence().current(|current| current.finalizer = false);
    assert_eq!(case.plan().effects, [Effect::AddFinalizer, Effect::CreateUser]);
    let case = without_key().current(|current| current.finalizer = false);
    case.does("AddFinalizer");
}

#[test]
fn a_foreign_secret_is_found_before_the_user_is_made() {
    for case in [without_key().user_absence().foreign_secret(), without_key().user_absence().foreign_journal()] {
        assert_eq!(case.plan().effects, []);
        assert_eq!(case.plan().key.map(|note| note.reason), Some(Reason::SecretConflict));
    }
}

#[test]
fn policies_come_before_the_first_key_and_beside_a_later_one() {
    without_key().policy_missing().does("AttachPolicy arn:aws:iam::aws:policy/P");
    let refused = without_key().policy_missing().current(|current| current.user_sync_failed = true);
    refused.waits(None, Reason::Pending);
    // A rotation is not held up by a policy that AWS refuses: the published key has the same rights.
    at_rest()
        .policy_missing()
        .requested()
        .current(|current| current.user_sync_failed = true)
        .does("CreateKey beside K1");
}

#[test]
fn rights_shrink_before_they_grow() {
    let case = at_rest().policy_missing().user(|user| {
        let grants = user.grants.as_mut().unwrap();
        grants.attached.insert("arn:aws:iam::aws:policy/Old".into());
        grants.inline.insert("old".into(), json!({}));
    });
    let verbs: Vec<_> = case.plan().effects.iter().map(Effect::verb).collect();
    assert_eq!(verbs, ["DetachPolicy", "DeleteInlinePolicy", "AttachPolicy"]);
}

#[test]
fn the_quarantine_of_aws_is_never_detached() {
    let quarantine = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
    at_rest().user(|user| _ = user.grants.as_mut().unwrap().attached.insert(quarantine.into())).does("nothing");
}

#[test]
fn only_tags_that_were_declared_before_are_removed() {
    let tags =
        |case: Case| case.user(|user| user.tags.extend([("team".into(), "a".into()), ("theirs".into(), "b".into())]));
    tags(at_rest()).does("nothing");
    tags(at_rest()).current(|current| _ = current.hints.tag_keys.insert("team".into())).does("UntagUser team");
    let declared =
        |value: &'static str| move |desired: &mut Desired| _ = desired.tags.insert("Team".into(), value.into());
    tags(at_rest()).desired(declared("a")).does("nothing");
    tags(at_rest()).desired(declared("b")).does("TagUser Team");
}

#[test]
fn the_description_of_the_published_key_is_kept_as_declared() {
    let described = |case: Case| case.declared_key(|key| key.description = Some("Cycle hub".into()));
    let tag = |value: &'static str| move |user: &mut IamUser| _ = user.tags.insert("K1".into(), value.into());
    described(at_rest()).does("TagUser K1");
    described(at_rest().user(tag("by hand"))).does("TagUser K1");
    described(at_rest().user(tag("Cycle hub"))).does("nothing");
    // None declared: what the console has written there is somebody else's.
    at_rest().user(tag("by hand")).does("nothing");
    // It comes in one call with the mark that makes the key ours, never before.
    described(at_rest().untagged("K1")).does("TagKey K1");
}

#[test]
fn revocation_comes_before_policies() {
    let case = at_rest().policy_missing().suspended();
    assert_eq!(case.plan().effects.iter().map(Effect::verb).collect::<Vec<_>>(), ["DeactivateKey", "AttachPolicy"]);
}

#[test]
fn what_cannot_be_undone_is_decided_on_live_facts() {
    let id = || "K1".to_owned();
    for effect in [
        Effect::CreateKey { known: vec![], previous_secret: None },
        Effect::AbandonAttempt { orphans: vec![], failed: false },
        Effect::DeactivateKey(id(), RetireReason::OverlapEnded),
        Effect::DeleteKey(id(), RetireReason::Orphan),
        Effect::DeletePreviousSecret(id()),
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
fn each_kind_of_facts_asks_for_more_than_the_one_before() {
    let seen = |iam_live: bool, grants_live| {
        let case = at_rest()
            .current(|current| (current.keys_read_at, current.grants_live) = (iam_live.then(now), grants_live));
        [Freshness::Cached, Freshness::LiveKeys, Freshness::Live].map(|facts| facts.is_met_by(&case.current))
    };
    assert_eq!(seen(false, false), [true, false, false]);
    assert_eq!(seen(true, false), [true, true, false]);
    assert_eq!(seen(true, true), [true, true, true]);
}

#[test]
fn groups_are_left_before_others_are_joined() {
    let case = at_rest()
        .user(|user| _ = user.grants.as_mut().unwrap().groups.insert("admins".into()))
        .desired(|desired| _ = desired.groups.insert("deployers".into()));
    assert_eq!(case.plan().effects, [Effect::RemoveFromGroup("admins".into()), Effect::AddToGroup("deployers".into())]);
}

#[test]
fn the_boundary_comes_before_any_right() {
    let case = at_rest().policy_missing().desired(|desired| desired.boundary = Some("B".into()));
    assert_eq!(case.plan().effects.iter().map(Effect::verb).collect::<Vec<_>>(), ["PutBoundary", "AttachPolicy"]);
    at_rest()
        .desired(|desired| desired.boundary = Some("B".into()))
        .user(|user| user.boundary = Some("B".into()))
        .does("nothing");
    at_rest().user(|user| user.boundary = Some("set by an AWS admin".into())).does("nothing");
}
