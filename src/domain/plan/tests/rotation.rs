//! The rules of rotation one by one, and their order.

use super::*;

// --- the first key ---------------------------------------------------------------------------

#[test]
fn idle_plan_requeues_at_the_next_rotation() {
    let plan = idle().plan();
    assert_eq!((next_effect(&plan).as_str(), plan.rotation.reason), ("nothing", Reason::Scheduled));
    assert_eq!(plan.requeue_at, plan.next_rotation);
    let due = plan.next_rotation.unwrap();
    assert!(due > now() + days(80) - mins(10) && due <= now() + days(80), "{due}");
    assert_eq!(plan.key, None);
}

#[test]
fn new_user_gets_its_first_key_at_once() {
    without_key().does("CreateKey beside ");
    without_key().key("F", days(3)).does("CreateKey beside F");
}

#[test]
fn no_key_is_created_for_a_foreign_secret() {
    without_key().foreign_secret().waits(None, Reason::SecretConflict);
    assert_eq!(without_key().foreign_secret().plan().key.map(|note| note.reason), Some(Reason::SecretConflict));
}

// --- the order -------------------------------------------------------------------------------

#[test]
fn attempt_is_finished_before_anything_else_happens() {
    let everything_due = |case: Case| {
        case.requested()
            .key("K0", days(40))
            .tagged_since("K0", days(40))
            .inactive_since("K0", days(1))
            .facts(|facts| facts.matches_spec = false)
    };
    everything_due(idle()).does("DeleteKey K0 (OverlapEnded)");
    everything_due(idle().intent(secs(5), &["K1", "K0"])).waits(secs(55), Reason::Recovering);
    everything_due(staged()).does("VerifyKey K2");
    everything_due(idle().abandoned(&["K2"])).does("TouchPublished");
}

#[test]
fn rules_are_in_protocol_order() {
    const DEACTIVATE: &str = "revoked and undeclared keys are Inactive";
    const UNKNOWN_JOURNAL: &str = "a journal of unknown format blocks what follows";
    const RETIRE: &str = "a superseded key is Inactive after its overlap";
    const UNREAD: &str = "without its Secrets and journal, a user only loses access";
    const TAG: &str = "a published key is tagged, never before it is published";
    const FENCE: &str = "a paused publisher of an abandoned key is fenced off";
    const ORPHANS: &str = "orphans are deleted behind the fence";
    const CLOSE: &str = "an attempt that is over is closed";
    const PUBLISH: &str = "a staged key that AWS accepts is published";
    const ABANDON: &str = "an attempt that cannot be finished is abandoned";
    let place =
        |rule: &str| RULES.iter().position(|(name, _)| *name == rule).unwrap_or_else(|| panic!("no rule {rule:?}"));
    for (first, then) in [
        (DEACTIVATE, UNKNOWN_JOURNAL),
        (TAG, RETIRE),
        (UNKNOWN_JOURNAL, FENCE),
        (FENCE, ORPHANS),
        (ORPHANS, CLOSE),
        (CLOSE, PUBLISH),
        (PUBLISH, ABANDON),
        (CLOSE, "a deleted user loses its keys first"),
        (ABANDON, "a deleted user loses its keys first"),
        (ABANDON, "a user whose keys must not work gets none"),
        (RETIRE, UNREAD),
        (UNREAD, UNKNOWN_JOURNAL),
        ("a superseded key is deleted after the deletion delay", "a key that is due is replaced"),
        ("a key that is due is replaced", "the Secret matches the spec"),
    ] {
        assert!(place(first) < place(then), "{first:?} comes before {then:?}");
    }
}

// --- credentials: Revoked and Active ----------------------------------------------------------------------

#[test]
fn revocation_deactivates_every_own_key_and_no_other() {
    let case = in_overlap().key("F", days(1)).credentials_revoked();
    case.does("DeactivateKey K1 (CredentialsRevoked)");
    let case = case.inactive("K1");
    case.does("DeactivateKey K2 (CredentialsRevoked)");
    case.inactive("K2").waits(None, Reason::CredentialsRevoked);
}

#[test]
fn revocation_deactivates_a_staged_key() {
    staged().accepted("K2", 3).credentials_revoked().inactive("K1").does("DeactivateKey K2 (CredentialsRevoked)");
    staged()
        .accepted("K2", 3)
        .credentials_revoked()
        .inactive("K1")
        .inactive("K2")
        .waits(None, Reason::CredentialsRevoked);
}

#[test]
fn revoked_user_gets_no_key_and_loses_nothing() {
    without_key().credentials_revoked().waits(None, Reason::CredentialsRevoked);
    idle().requested().credentials_revoked().inactive("K1").waits(None, Reason::CredentialsRevoked);
    idle()
        .key("K0", days(40))
        .tagged("K0")
        .inactive_since("K0", days(1))
        .inactive("K1")
        .credentials_revoked()
        .waits(None, Reason::CredentialsRevoked);
}

#[test]
fn interrupted_attempt_is_cleaned_up_while_revoked() {
    idle()
        .inactive("K1")
        .credentials_revoked()
        .intent(mins(2), &["K1"])
        .key("K2", mins(2))
        .does("AbandonAttempt orphans: K2");
    idle()
        .inactive("K1")
        .credentials_revoked()
        .key("K2", mins(2))
        .inactive("K2")
        .abandoned(&["K2"])
        .fenced()
        .does("DeleteKey K2 (Orphan)");
}

#[test]
fn resume_creates_a_new_key_and_abandons_a_staged_one() {
    idle().inactive("K1").does("CreateKey beside K1");
    staged().inactive("K1").inactive("K2").does("AbandonAttempt orphans: K2");
    in_overlap().inactive("K1").inactive("K2").does("DeleteKey K1 (FreesSlot)");
}

// --- Secrets without a valid MAC -------------------------------------------------------------

#[test]
fn key_without_valid_mac_is_replaced_if_aws_refuses_it_twice() {
    let unverified = || idle().unverified();
    unverified().does("ConfirmSecret K1");
    assert_eq!(unverified().plan().key.map(|note| note.reason), Some(Reason::Pending), "it is not claimed to work");
    // The first refusal may be the lag of AWS.
    let refused = |first, last| unverified().secret_refused(secs(first), secs(last));
    refused(0, 0).waits(secs(1), Reason::RotationPending);
    refused(2, 2).does("ConfirmSecret K1");
    refused(2, 1).does("CreateKey beside K1");
    // A clock that was set back neither counts as a second refusal nor delays the next check without limit.
    refused(-60, -60).does("ConfirmSecret K1");
}

#[test]
fn unverified_secret_proves_nothing_about_a_key() {
    // The key is not tagged: the Secret alone makes it neither ours nor worth a call.
    let forged = || idle().key("F", days(3)).facts(|facts| facts.key_id = "F".into()).unverified();
    assert!(!forged().current.is_ours("F") && forged().current.is_ours("K1"));
    forged().waits(None, Reason::KeyQuotaExceeded);
    forged().requested().waits(None, Reason::KeyQuotaExceeded);
    idle().untagged("K1").unverified().does("CreateKey beside K1");
    idle().inactive("K1").unverified().does("CreateKey beside K1");
    // The real key is not superseded by the one that the Secret names.
    in_overlap().facts(|facts| facts.key_id = "K1".into()).unverified().does("ConfirmSecret K1");
    // No date, request or restart of it is believed.
    idle().requested().unverified().does("ConfirmSecret K1");
}

// --- the Secret ------------------------------------------------------------------------------

#[test]
fn secret_that_differs_from_spec_is_rewritten_with_same_key() {
    idle().facts(|facts| facts.matches_spec = false).does("RewriteSecret");
}

#[test]
fn immutable_secret_is_reported_and_no_key_is_wasted() {
    idle().immutable().does("nothing");
    assert_eq!(idle().immutable().plan().key, None);
    idle().immutable().facts(|facts| facts.matches_spec = false).waits(None, Reason::SecretConflict);
    idle().immutable().edited().waits(None, Reason::SecretConflict);
    idle().immutable().unverified().waits(None, Reason::SecretConflict);
    idle().immutable().requested().waits(None, Reason::SecretConflict);
    idle().immutable().every(days(9)).waits(None, Reason::SecretConflict);
    idle().immutable().inactive("K1").waits(None, Reason::SecretConflict);
    // Made immutable during an attempt: the staged key is kept until the timeout, then abandoned.
    staged().accepted("K2", 3).immutable().waits(mins(5) - secs(5), Reason::SecretConflict);
}

// --- what cannot be read, and answers from before a change -------------------------------------

#[test]
fn unread_secrets_leave_only_the_loss_of_access() {
    let unread = |case: Case| case.no_secret().current(|current| current.secrets_unread = true);
    unread(idle()).waits(None, Reason::Pending);
    unread(idle()).credentials_revoked().does("DeactivateKey K1 (CredentialsRevoked)");
    unread(idle()).credentials_revoked().inactive("K1").waits(None, Reason::Pending);
    unread(idle()).requested().waits(None, Reason::Pending);
    unread(in_overlap()).waits(hours(23), Reason::Pending);
    unread(idle()).abandoned(&["K2"]).waits(None, Reason::Pending);
    // What IAM alone decides is kept in order.
    unread(idle()).policy_missing().does("AttachPolicy arn:aws:iam::aws:policy/P");
    assert_eq!(unread(without_key().no_user()).plan().effects, []);
    // A password is removed, and none is set.
    let console =
        || unread(idle().console_only().inactive("K1")).current(|current| current.console = ConsoleSecret::Missing);
    console().waits(None, Reason::Pending);
    console().credentials_revoked().does("RemovePassword");
    // No record of what is ours is deleted.
    unread(idle()).leaving(DeletionPolicy::Delete).cleans_up_by("nothing");
    unread(without_key().no_user()).cleans_up_by("nothing");
}

#[test]
fn key_set_inactive_in_its_overlap_is_kept_until_it_ends() {
    let inactive = |case: Case, age| case.inactive_since("K1", age);
    // K2 was published an hour ago; the overlap is a day, the deletion delay ten minutes.
    inactive(in_overlap(), mins(30)).waits(hours(23), Reason::Overlap);
    let overlap_over = in_overlap().published("K2", hours(25));
    inactive(overlap_over.clone(), mins(30)).does("DeleteKey K1 (OverlapEnded)");
    inactive(overlap_over, mins(9)).waits(mins(1), Reason::Overlap);
    // It did not work when its successor was published: no consumer depends on it.
    inactive(in_overlap(), hours(2)).does("DeleteKey K1 (OverlapEnded)");
}

#[test]
fn no_key_is_created_without_room_for_its_tag() {
    let tagged = |count: usize| {
        without_key().user(|user| {
            let missing = count - user.tags.len();
            user.tags.extend((0..missing).map(|number| (format!("theirs-{number}"), String::new())));
        })
    };
    tagged(49).does("CreateKey beside ");
    tagged(50).waits(None, Reason::LimitExceeded);
    assert_eq!(tagged(50).plan().key.map(|note| note.reason), Some(Reason::LimitExceeded));
    tagged(49).declared_key(|key| key.description = Some("hub".into())).waits(None, Reason::LimitExceeded);
}

#[test]
fn abandoned_key_that_iam_does_not_know_yet_is_kept_in_mind() {
    let abandoned = |age| {
        let orphans = strings(&["K2"]);
        idle().journal(age, AttemptPhase::Abandoned { orphans }).fenced()
    };
    let unknown = |age| abandoned(age).current(|current| _ = current.unknown_keys.insert("K2".into()));
    abandoned(secs(5)).does("DeleteKey K2 (Orphan)");
    unknown(secs(5)).waits(secs(55), Reason::Recovering);
    unknown(secs(60)).does("CloseJournal");
}

#[test]
fn secrets_of_a_retained_user_have_no_owner() {
    let owned = |case: Case| case.current(|current| current.secret_has_owner = true);
    let retained = |case: Case| owned(case).desired(|desired| desired.retain = true);
    owned(idle()).does("nothing");
    retained(idle()).does("ReleaseSecret");
    retained(idle()).credentials_revoked().does("DeactivateKey K1 (CredentialsRevoked)");
    retained(idle()).credentials_revoked().inactive("K1").does("ReleaseSecret");
    retained(idle()).immutable().facts(|facts| facts.matches_spec = false).does("ReleaseSecret");
}
