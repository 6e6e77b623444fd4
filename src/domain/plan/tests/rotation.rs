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

// --- a running attempt -----------------------------------------------------------------------

#[test]
fn staged_key_needs_consecutive_acceptances() {
    staged().does("VerifyKey K2");
    staged().checked("K2", 1, secs(1)).does("VerifyKey K2");
    staged()
        .checked("K2", 2, SignedDuration::from_millis(400))
        .waits(SignedDuration::from_millis(600), Reason::Verifying);
    staged().accepted("K2", 3).does("Publish K2");
    staged().settings(|settings| settings.verify_successes = 0).does("Publish K2");
}

#[test]
fn acceptance_of_another_key_does_not_count() {
    staged().accepted("K1", 3).does("VerifyKey K2");
}

#[test]
fn first_key_is_published_only_when_the_user_matches_the_spec() {
    let first = without_key().key("K2", secs(5)).keyed("K2", secs(5)).accepted("K2", 3);
    first.does("Publish K2");
    let refused = first.policy_missing().current(|current| current.user_sync_failed = true);
    refused.waits(mins(5) - secs(5), Reason::Pending);
    staged().accepted("K2", 3).policy_missing().current(|current| current.user_sync_failed = true).does("Publish K2");
}

#[test]
fn staged_key_is_not_published_over_a_foreign_secret() {
    let conflict = without_key().key("K2", secs(5)).keyed("K2", secs(5)).accepted("K2", 3).foreign_secret();
    conflict.waits(mins(5) - secs(5), Reason::SecretConflict);
}

#[test]
fn staged_key_not_accepted_in_time_is_abandoned() {
    let late = |age| idle().key("K2", age).keyed("K2", age).checked("K2", 0, SignedDuration::ZERO);
    late(mins(5)).does("AbandonAttempt orphans: K2, failed");
    late(mins(5) - secs(1)).waits(secs(1), Reason::Verifying);
    // An acceptance that came late is still an acceptance.
    late(mins(6)).accepted("K2", 3).does("Publish K2");
}

#[test]
fn inactive_staged_key_is_abandoned_even_if_sts_accepts_it() {
    staged().inactive("K2").accepted("K2", 3).does("AbandonAttempt orphans: K2");
}

#[test]
fn published_key_is_tagged_then_its_attempt_is_closed() {
    let published = staged().published("K2", secs(1));
    published.does("TagKey K2");
    published.clone().tagged_since("K2", secs(1)).does("CloseJournal");
    // IAM's list lags; the Secret is the proof.
    published.key_gone("K2").does("TagKey K2");
}

#[test]
fn no_key_is_tagged_before_it_is_published() {
    for case in [staged(), staged().accepted("K2", 3), idle().key("K2", mins(2)).abandoned(&["K2"])] {
        assert_ne!(next_effect(&case.plan()), "TagKey K2");
    }
}

#[test]
fn lost_tag_of_the_published_key_is_restored() {
    idle().untagged("K1").does("TagKey K1");
    idle().untagged("K1").edited().does("CreateKey beside K1");
}

// --- an interrupted attempt ------------------------------------------------------------------

#[test]
fn orphan_search_needs_a_list_read_after_the_recovery_delay() {
    let abandons = |case: &Case| {
        let plan = case.plan();
        assert_eq!(next_effect(&plan), "AbandonAttempt orphans: ");
        plan.effects[0].can_run_on(&case.current, &case.settings)
    };
    let attempt = idle().intent(secs(90), &["K1"]);
    assert!(abandons(&attempt), "read just now");
    assert!(abandons(&attempt.clone().listed(secs(30))), "the list is a minute younger than the attempt");
    assert!(!abandons(&attempt.clone().listed(secs(31))), "it may not show yet the key of the attempt");
    assert!(!abandons(&attempt.current(|current| current.keys_read_at = None)), "cached");
    // A staged key is known by its id: the age of the list does not matter, if it was read in this reconcile.
    let staged = idle().key("K2", mins(6)).keyed("K2", mins(6)).listed(mins(20));
    assert!(staged.plan().effects[0].can_run_on(&staged.current, &staged.settings));
}

#[test]
fn unanswered_intent_waits_for_the_recovery_delay() {
    idle().intent(secs(59), &["K1"]).key("K2", secs(58)).waits(secs(1), Reason::Recovering);
    idle().intent(secs(60), &["K1"]).key("K2", secs(59)).does("AbandonAttempt orphans: K2");
    idle().intent(secs(60), &["K1"]).does("AbandonAttempt orphans: ");
}

#[test]
fn orphan_is_not_known_tagged_published_or_older_than_attempt() {
    let case = || without_key().key("K2", mins(2)).intent(mins(2), &[]);
    case().does("AbandonAttempt orphans: K2");
    case().intent(mins(2), &["K2"]).does("AbandonAttempt orphans: ");
    case().tagged("K2").does("AbandonAttempt orphans: ");
    case().published("K2", mins(1)).does("AbandonAttempt orphans: ");
    case().intent(mins(2) - secs(1), &[]).does("AbandonAttempt orphans: ");
}

#[test]
fn key_created_long_after_an_attempt_is_not_its_orphan() {
    // The operator was interrupted and stayed down; a person created a key meanwhile.
    idle().intent(hours(5), &["K1"]).key("F", hours(4)).does("AbandonAttempt orphans: ");
    idle().intent(hours(5), &["K1"]).key("K2", hours(5) - secs(20)).does("AbandonAttempt orphans: K2");
}

#[test]
fn ambiguous_orphans_are_not_deleted() {
    // An attempt creates one key: the other one is a person's, and it is unknown which.
    without_key().intent(mins(2), &[]).key("K2", mins(2)).key("F", mins(1)).does("AbandonAttempt orphans: ");
}

#[test]
fn orphan_is_deleted_only_behind_the_fence() {
    let case = idle().key("K2", mins(2)).abandoned(&["K2"]);
    case.does("TouchPublished");
    case.clone().facts(|facts| facts.fence = Some("an earlier attempt".into())).does("TouchPublished");
    let fenced = case.fenced();
    fenced.does("DeleteKey K2 (Orphan)");
    // Not shown by a list that lags: deleted all the same.
    fenced.clone().key_gone("K2").does("DeleteKey K2 (Orphan)");
    fenced.current(|current| _ = current.deleted_keys.insert("K2".into())).does("CloseJournal");
}

#[test]
fn without_a_secret_no_fence_is_needed() {
    without_key().key("K2", mins(2)).abandoned(&["K2"]).does("DeleteKey K2 (Orphan)");
}

#[test]
fn published_key_of_an_abandoned_attempt_is_kept() {
    let case = idle().key("K2", mins(2)).abandoned(&["K2"]).published("K2", secs(1));
    case.does("TagKey K2");
    let tagged = case.tagged("K2");
    tagged.does("TouchPublished");
    tagged.fenced().does("CloseJournal");
}

#[test]
fn unknown_journal_blocks_all_but_retirement() {
    idle().unknown_journal().waits(None, Reason::UnknownJournal);
    idle().unknown_journal().requested().waits(None, Reason::UnknownJournal);
    // Keys that are known to be ours are deactivated all the same.
    idle().unknown_journal().credentials_revoked().does("DeactivateKey K1 (CredentialsRevoked)");
    idle().unknown_journal().console_only().does("DeactivateKey K1 (RemovedFromSpec)");
    without_key().unknown_journal().waits(None, Reason::UnknownJournal);
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

// --- when a key is due -----------------------------------------------------------------------

#[test]
fn key_whose_secret_is_lost_is_replaced() {
    idle().no_secret().does("CreateKey beside K1");
    idle().edited().does("CreateKey beside K1");
}

#[test]
fn deleted_or_inactive_published_key_is_replaced() {
    idle().key_gone("K1").user(|user| _ = user.tags.remove(&key_tag("K1"))).does("CreateKey beside ");
    idle().inactive("K1").does("CreateKey beside K1");
}

#[test]
fn recently_published_key_may_be_missing_from_the_list() {
    idle().key_gone("K1").published("K1", secs(59)).does("nothing");
    idle().key_gone("K1").published("K1", secs(60)).does("CreateKey beside ");
}

#[test]
fn rotate_request_is_honoured_once() {
    idle().requested().does("CreateKey beside K1");
    idle().requested().facts(|facts| facts.rotate_honoured = Some("please".into())).does("nothing");
    idle().facts(|facts| facts.rotate_honoured = Some("please".into())).does("nothing");
}

#[test]
fn key_is_replaced_on_schedule() {
    idle().every(days(10)).does("CreateKey beside K1");
    idle().every(days(11)).does("nothing");
    let never = idle().declared_key(|key| key.schedule = RotationSchedule::Never);
    never.waits(None, Reason::ManualOnly);
}

#[test]
fn only_scheduled_rotations_wait_for_a_window() {
    // It is Saturday, 10:00.
    let tomorrow = |case: Case| case.window("0 2 * * 0", hours(4));
    let begins = hours(16) + SignedDuration::from_secs((hours(2) * permille() / 1000).as_secs());
    let due = tomorrow(idle().every(days(10)));
    due.waits(begins, Reason::RotationPending);
    assert_eq!(due.plan().next_rotation, Some(now() + begins), "the status shows when it really begins");
    assert_eq!(tomorrow(idle().every(days(30))).plan().rotation.reason, Reason::Scheduled);
    idle().every(days(10)).window("0 9 * * 6", hours(4)).does("CreateKey beside K1");
    due.clone().requested().does("CreateKey beside K1");
    due.clone().no_secret().does("CreateKey beside K1");
    due.clone().inactive("K1").does("CreateKey beside K1");
    tomorrow(without_key()).does("CreateKey beside ");
}

#[test]
fn retirement_ignores_windows() {
    in_overlap().published("K2", hours(24)).window("0 2 * * 0", hours(4)).does("DeactivateKey K1 (OverlapEnded)");
}

// --- pauses ----------------------------------------------------------------------------------

#[test]
fn no_key_is_created_during_a_back_off() {
    for case in [idle().requested(), without_key()] {
        case.clone().backing_off(secs(19), Reason::Throttled).waits(secs(19), Reason::Throttled);
    }
    idle().requested().backing_off(secs(0), Reason::Throttled).does("CreateKey beside K1");
}

#[test]
fn secret_that_is_not_kept_is_rewritten_after_the_back_off() {
    let mislabelled = || {
        idle().current(|current| {
            let PublishedSecret::Ours(facts) = &mut current.published else { return };
            facts.matches_spec = false;
        })
    };
    mislabelled().does("RewriteSecret");
    mislabelled().backing_off(secs(9), Reason::Throttled).does("RewriteSecret");
    mislabelled().backing_off(secs(9), Reason::SecretConflict).waits(None, Reason::SecretConflict);
    mislabelled().backing_off(secs(0), Reason::SecretConflict).does("RewriteSecret");
}

#[test]
fn accepted_key_is_not_abandoned_by_a_restart() {
    let late = || idle().key("K2", mins(6)).keyed("K2", mins(6));
    late().does("VerifyKey K2");
    late().checked("K2", 0, mins(2)).does("VerifyKey K2");
    late().checked("K2", 1, SignedDuration::ZERO).waits(secs(1), Reason::Verifying);
    late().checked("K2", 0, SignedDuration::ZERO).does("AbandonAttempt orphans: K2, failed");
    // It is not refused: the Secret cannot be written.
    let conflict = without_key().key("K2", mins(6)).keyed("K2", mins(6)).foreign_secret();
    conflict.accepted("K2", 3).does("AbandonAttempt orphans: K2");
}

#[test]
fn repeated_loss_of_keys_is_rate_limited() {
    let young = |case: Case| case.user(|user| user.keys[0].created_at = ago(secs(20)));
    for case in [idle().no_secret(), idle().edited(), idle().inactive("K1"), idle().requested()] {
        young(case.clone()).waits(mins(10) - secs(20), Reason::RotationPending);
        young(case).settings(|settings| settings.repair_interval = secs(20)).does("CreateKey beside K1");
    }
    // Also when the key was deleted and only the status is left.
    without_key()
        .rotated_before(mins(5))
        .attempted_before(secs(20))
        .waits(mins(10) - secs(20), Reason::RotationPending);
    without_key().rotated_before(mins(5)).attempted_before(mins(10)).does("CreateKey beside ");
    // A foreign key does not count, and a first key is not delayed.
    without_key().key("F", secs(5)).does("CreateKey beside F");
    // A schedule that is edited again and again makes no keys faster than the shortest interval.
    let scheduled = || young(idle()).published("K1", secs(20)).every(secs(10));
    scheduled().settings(|settings| settings.min_rotation_interval = secs(20)).does("CreateKey beside K1");
    scheduled().settings(|settings| settings.min_rotation_interval = secs(30)).waits(secs(10), Reason::RotationPending);
}

#[test]
fn pause_doubles_for_each_repair_in_a_row() {
    let repaired = |count, age: SignedDuration| {
        let last_time = ago(age);
        idle()
            .user(|user| user.keys[0].created_at = last_time)
            .no_secret()
            .current(|current| current.hints.repairs = Some(KeyRepairs { count, last_time }))
    };
    for (count, pause) in [(1, mins(20)), (2, mins(40)), (7, mins(1280)), (8, hours(24)), (i32::MAX, hours(24))] {
        repaired(count, secs(60)).waits(pause - secs(60), Reason::RotationPending);
        let case = repaired(count, pause);
        case.does("CreateKey beside K1");
        let Some(Effect::CreateKey { repairs: Some(next), .. }) = case.plan().effects.first().cloned() else {
            panic!()
        };
        assert_eq!(next, count.unsigned_abs().saturating_add(1));
        // The key lasted: the row ends, and the next loss is repaired at once.
        let Some(Effect::CreateKey { repairs, .. }) = repaired(count, pause * 2).plan().effects.first().cloned() else {
            panic!()
        };
        assert_eq!(repairs, Some(1));
    }
    // The conditions say when.
    let plan = repaired(2, mins(1)).plan();
    let until = (ago(mins(1)) + mins(40)).to_string();
    assert!(plan.rotation.message.contains(&until) && plan.key.unwrap().message.contains(&until));
    // A lost status costs the doubling only.
    let case = repaired(5, secs(60)).current(|current| current.hints.repairs = None);
    case.waits(mins(9), Reason::RotationPending);
    // A request is no repair, and is no way around the interval.
    let requested = || idle().requested().user(|user| user.keys[0].created_at = ago(mins(10)));
    let Some(Effect::CreateKey { repairs: None, .. }) = requested().plan().effects.first().cloned() else { panic!() };
}

#[test]
fn abandoned_attempt_counts_whatever_the_next_key_is_for() {
    let abandoned = |case: Case| case.attempted_before(secs(20));
    abandoned(without_key()).waits(secs(40), Reason::RotationPending);
    for case in [idle().no_secret(), idle().inactive("K1"), idle().requested()] {
        case.does(&format!("CreateKey beside {}", known(&case)));
        abandoned(case).waits(mins(10) - secs(20), Reason::RotationPending);
    }
    let scheduled = || idle().every(days(1));
    scheduled().does("CreateKey beside K1");
    abandoned(scheduled()).waits(mins(10) - secs(20), Reason::RotationPending);
    // An attempt in progress is none that was abandoned.
    let first = without_key().key("K2", secs(5)).keyed("K2", secs(5));
    first.does("VerifyKey K2");
    assert_eq!(first.plan().key.unwrap().message, "no access key is published yet");
    // No key was ever published, so that none was lost.
    let again = abandoned(without_key()).plan();
    assert_eq!(again.key.unwrap().message, "no access key is published yet");
    let Some(Effect::CreateKey { repairs, .. }) =
        without_key().attempted_before(mins(1)).plan().effects.first().cloned()
    else {
        panic!()
    };
    assert_eq!(repairs, Some(1), "the next pause is twice as long");
}

fn known(case: &Case) -> String {
    case.current.user().unwrap().keys.iter().map(|key| key.id.clone()).collect()
}

#[test]
fn only_first_keys_wait_for_the_pace_of_their_namespace() {
    let paced = |case: Case| case.current(|current| current.first_key_at = Some(now() + secs(90)));
    paced(without_key()).waits(secs(90), Reason::RotationPending);
    without_key().current(|current| current.first_key_at = Some(now())).does("CreateKey beside ");
    for case in
        [idle().no_secret(), idle().inactive("K1"), idle().requested(), without_key().attempted_before(hours(1))]
    {
        paced(case.clone()).does(&format!("CreateKey beside {}", known(&case)));
    }
}

#[test]
fn clock_that_was_ahead_delays_no_key() {
    let future = |made| idle().no_secret().user(|user| user.keys[0].created_at = now() + made);
    future(days(300)).does("CreateKey beside K1");
    future(mins(10)).does("CreateKey beside K1");
    without_key().attempted_before(-mins(10)).does("CreateKey beside ");
    // Clocks may differ by a little.
    future(secs(10)).waits(mins(10) + secs(10), Reason::RotationPending);
    // The interval after the newest credible key still applies.
    future(days(300)).key("K2", secs(20)).tagged("K2").waits(mins(10) - secs(20), Reason::RotationPending);
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

// --- retiring --------------------------------------------------------------------------------

#[test]
fn clock_set_back_does_not_revive_a_dead_key() {
    let published = |age| idle().key_gone("K1").published("K1", age);
    for age in [secs(5), -secs(5)] {
        assert_eq!(next_effect(&published(age).plan()), "nothing", "{age}");
    }
    // Published ten minutes ahead of AWS's present clock: the lag of the list does not explain the missing key.
    published(-mins(10)).does("CreateKey beside ");
}

#[test]
fn superseded_key_is_deactivated_then_deleted_after_overlap() {
    in_overlap().waits(hours(23), Reason::Overlap);
    in_overlap().published("K2", hours(24)).does("DeactivateKey K1 (OverlapEnded)");
    in_overlap().overlap(hours(1)).does("DeactivateKey K1 (OverlapEnded)");
    let over = || in_overlap().overlap(mins(30));
    over().inactive_since("K1", mins(9)).waits(mins(1), Reason::Overlap);
    over().inactive_since("K1", mins(10)).does("DeleteKey K1 (OverlapEnded)");
    // If the status has lost the time of the deactivation, the delay starts again.
    over().inactive("K1").waits(mins(10), Reason::Overlap);
}

#[test]
fn no_key_retires_while_its_successor_is_not_active() {
    let over = || in_overlap().published("K2", days(2));
    over().does("DeactivateKey K1 (OverlapEnded)");
    over().inactive("K2").does("DeleteKey K2 (FreesSlot)");
    over().key_gone("K2").does("CreateKey beside K1");
}

#[test]
fn tags_of_deleted_keys_are_removed_with_descriptions() {
    idle()
        .tagged("K0")
        .user(|user| _ = user.tags.insert("K0".into(), "hub".into()))
        .does("UntagUser K0, awsdeploy.dev/key/K0");
    // A tag of ours is no description of a key, whatever a tag of a key says.
    idle().tagged("awsdeploy.dev/uid").does("UntagUser awsdeploy.dev/key/awsdeploy.dev/uid");
    // Not the tags of listed keys, nor of the published one, which the list may not show yet.
    idle().user(|user| _ = user.tags.insert("K1".into(), "hub".into())).does("nothing");
    idle().key_gone("K1").published("K1", secs(1)).does("nothing");
}

#[test]
fn missing_keys_are_judged_by_the_age_of_the_list() {
    // The reconcile was slow: the list was read when K2 was created, tagged and published.
    let missing = idle().tagged_since("K2", mins(3)).published("K2", mins(3));
    missing.clone().does("CreateKey beside K1");
    missing.clone().listed(mins(3) - secs(59)).does("nothing");
    missing.clone().listed(mins(10)).does("nothing");
    missing.clone().no_secret().does("UntagUser awsdeploy.dev/key/K2");
    missing.no_secret().listed(mins(3) - secs(59)).does("CreateKey beside K1");
}

#[test]
fn recent_tag_of_an_unlisted_key_is_kept() {
    // K2 was published, the Secret was deleted by hand at once, and IAM's list lags.
    let deleted = |age| idle().no_secret().tagged_since("K2", age);
    deleted(secs(5)).does("CreateKey beside K1");
    deleted(secs(60)).does("UntagUser awsdeploy.dev/key/K2");
}

// --- key slots -------------------------------------------------------------------------------

#[test]
fn rotation_waits_for_the_previous_overlap() {
    in_overlap().requested().waits(hours(23), Reason::RotationPending);
    in_overlap().requested().inactive_since("K1", mins(1)).waits(hours(23), Reason::RotationPending);
    let over = in_overlap().overlap(mins(30)).requested();
    over.inactive_since("K1", mins(1)).waits(mins(9), Reason::RotationPending);
}

/// An alert compares the time of the next rotation with the clock.
#[test]
fn rotation_that_waits_or_is_not_wanted_is_not_overdue() {
    let due = || idle().every(days(10));
    due().does("CreateKey beside K1");
    assert!(due().plan().next_rotation.is_some_and(|at| at < now()), "it is overdue if that fails");
    assert_eq!(due().credentials_revoked().inactive("K1").plan().next_rotation, None);
    let slot = in_overlap().every(mins(30));
    slot.waits(hours(23), Reason::RotationPending);
    assert_eq!(slot.plan().next_rotation, None, "the previous key has its slot");
    let foreign = due().key("F", days(1));
    foreign.waits(None, Reason::KeyQuotaExceeded);
    assert_eq!(foreign.plan().next_rotation, None, "another alert reports it");
    assert!(in_overlap().plan().next_rotation.is_some_and(|at| at > now()), "a time in the future is no alert");
}

#[test]
fn lost_key_does_not_wait_for_an_inactive_one() {
    in_overlap().no_secret().inactive("K1").does("DeleteKey K1 (FreesSlot)");
    in_overlap().no_secret().inactive("K2").does("DeleteKey K2 (FreesSlot)");
    // Two dead keys: the published one is kept longer.
    in_overlap().inactive("K1").inactive("K2").does("DeleteKey K1 (FreesSlot)");
}

#[test]
fn of_two_lost_keys_the_least_recently_used_is_deleted() {
    let used = |k1: Option<i64>, k2: Option<i64>| {
        in_overlap().no_secret().last_used("K1", k1.map(hours), secs(1)).last_used("K2", k2.map(hours), secs(1))
    };
    in_overlap().no_secret().does("ReadLastUsed K1, K2");
    used(Some(5), Some(2)).does("DeactivateKey K1 (FreesSlot)");
    used(Some(2), Some(5)).does("DeactivateKey K2 (FreesSlot)");
    used(Some(2), None).does("DeactivateKey K2 (FreesSlot)");
    used(None, None).does("DeactivateKey K1 (FreesSlot)");
    used(Some(5), Some(2)).inactive("K1").does("DeleteKey K1 (FreesSlot)");
    used(Some(5), Some(2)).key_gone("K1").untagged("K1").does("CreateKey beside K2");
    // Neither an answer of an hour ago nor a failed read is enough to delete a key.
    used(Some(5), Some(2)).last_used("K2", Some(hours(2)), hours(1)).does("ReadLastUsed K1, K2");
    in_overlap()
        .no_secret()
        .current(|current| current.last_used_failed = true)
        .waits(hours(23), Reason::RotationPending);
}

#[test]
fn foreign_keys_are_reported_and_never_touched() {
    let both = without_key().key("F1", days(9)).key("F2", days(8));
    both.waits(None, Reason::KeyQuotaExceeded);
    assert!(both.plan().rotation.message.contains("F1, F2"));
    let one = idle().requested().key("F", days(1));
    one.waits(None, Reason::KeyQuotaExceeded);
    assert!(one.plan().rotation.message.contains("one was not"), "{}", one.plan().rotation.message);
    assert_eq!(one.plan().key, None, "the published key works");
    idle().key("F", days(1)).does("nothing");
}

#[test]
fn lost_key_beside_a_foreign_one_exceeds_the_quota() {
    // K1 may be all that running consumers have, F is not ours: only a person can free a slot.
    for case in [idle().no_secret(), idle().edited()] {
        case.key("F", days(1)).waits(None, Reason::KeyQuotaExceeded);
    }
    idle().no_secret().key("F", days(1)).inactive("K1").does("DeleteKey K1 (FreesSlot)");
}

#[test]
fn no_rule_touches_a_foreign_key() {
    let foreign = |case: Case| case.key("F", days(400)).inactive("F");
    for case in [
        idle(),
        without_key(),
        without_key().credentials_revoked(),
        idle().requested(),
        idle().no_secret(),
        idle().edited(),
    ] {
        for effect in foreign(case).plan().effects {
            let touched = matches!(&effect, Effect::DeactivateKey(id, _) | Effect::DeleteKey(id, _) if id == "F");
            assert!(!touched, "{effect}");
        }
    }
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

// --- requeues --------------------------------------------------------------------------------

#[test]
fn overdue_retirement_needs_no_write_to_a_secret() {
    let overdue = || in_overlap().published("K2", days(3));
    let deactivates = "DeactivateKey K1 (OverlapEnded)";
    overdue().unknown_journal().does(deactivates);
    overdue().immutable().facts(|facts| facts.matches_spec = false).does(deactivates);
    in_overlap().unknown_journal().waits(hours(23), Reason::UnknownJournal);
}

#[test]
fn longer_overlap_keeps_a_reactivated_key_active() {
    let over = idle().key("K2", days(2)).tagged("K2").published("K2", days(2));
    over.clone().does("DeactivateKey K1 (OverlapEnded)");
    over.overlap(days(3)).waits(days(1), Reason::Overlap);
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
