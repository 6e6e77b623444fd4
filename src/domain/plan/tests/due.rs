//! When a key is due, and what it waits for.

use super::*;

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
