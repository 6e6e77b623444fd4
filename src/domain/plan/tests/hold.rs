//! A superseded key that is still used stays Active for a bounded time.

use super::*;

/// K2 was published at this age, K1 is superseded, the overlap is a day, the hold a week, the window 26 hours.
fn published(age: SignedDuration) -> Case {
    in_overlap().published("K2", age).held_while_used(days(7))
}

#[test]
fn last_use_is_never_read_without_a_hold() {
    in_overlap()
        .published("K2", hours(24))
        .last_used("K1", Some(secs(1)), secs(1))
        .does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn last_use_is_read_only_after_the_overlap() {
    published(hours(23)).waits(hours(1), Reason::Overlap);
    published(hours(24)).does("ReadLastUsed K1");
    // An answer from the time of the overlap says nothing about the end of it.
    published(hours(24)).last_used("K1", None, hours(1)).does("ReadLastUsed K1");
}

#[test]
fn unused_key_retires_once_aws_would_have_reported_a_use() {
    let unused = published(hours(24)).last_used("K1", Some(days(3)), secs(0));
    unused.waits(hours(2), Reason::Overlap);
    assert_eq!(unused.plan().deactivate_at["K1"], now() + hours(2));
    published(hours(26)).last_used("K1", None, hours(2)).does("ReadLastUsed K1");
    published(hours(26)).last_used("K1", None, secs(0)).does("DeactivateKey K1 (OverlapEnded)");
    published(hours(25)).overlap(hours(30)).waits(hours(5), Reason::Overlap);
}

#[test]
fn used_key_is_held_and_reported_with_its_last_use() {
    let used = published(hours(24)).last_used("K1", Some(hours(5)), secs(0));
    used.waits(hours(21), Reason::StillUsed);
    let message = used.plan().rotation.message;
    assert!(
        message.contains(&ago(hours(5)).to_string()) && message.contains(&(now() + days(7)).to_string()),
        "{message}"
    );
    assert!(message.contains("Secret cycle"), "{message}");
    // Read again when the window ends, not every minute.
    published(hours(25)).last_used("K1", Some(hours(6)), hours(1)).waits(hours(20), Reason::StillUsed);
    published(hours(45)).last_used("K1", Some(hours(26)), hours(21)).does("ReadLastUsed K1");
    published(hours(45)).last_used("K1", Some(hours(26)), secs(0)).does("DeactivateKey K1 (OverlapEnded)");
    published(hours(45)).last_used("K1", Some(hours(2)), secs(0)).waits(hours(24), Reason::StillUsed);
}

#[test]
fn consumer_that_switched_within_minutes_causes_no_warning() {
    published(hours(24))
        .last_used("K1", Some(hours(24) - mins(10)), secs(0))
        .waits(hours(2) + mins(10), Reason::Overlap);
    let late = published(hours(24)).last_used("K1", Some(hours(24) - mins(20)), secs(0));
    late.waits(hours(2) + mins(20), Reason::StillUsed);
}

#[test]
fn hold_is_bounded() {
    published(days(8) - secs(1))
        .last_used("K1", Some(hours(1)), hours(1))
        .waits(secs(1), Reason::PreviousKeyEndingSoon);
    published(days(8)).last_used("K1", Some(hours(1)), hours(1)).does("DeactivateKey K1 (HoldExpired)");
    published(days(8)).does("DeactivateKey K1 (HoldExpired)");
    // Unused for long enough at the very end causes no warning.
    published(days(8)).last_used("K1", Some(days(3)), hours(1)).does("DeactivateKey K1 (OverlapEnded)");
    published(days(9)).inactive_since("K1", mins(10)).does("DeleteKey K1 (OverlapEnded)");
}

#[test]
fn used_key_is_reported_a_day_and_an_hour_before_its_end() {
    let used = |age| published(age).last_used("K1", Some(hours(1)), secs(0));
    used(days(6)).waits(days(1), Reason::StillUsed);
    used(days(7)).waits(hours(23), Reason::PreviousKeyEnding);
    used(days(8) - mins(30)).waits(mins(30), Reason::PreviousKeyEndingSoon);
    let message = used(days(7)).plan().rotation.message;
    for part in [(now() + days(1)).to_string().as_str(), "K1 was used at", "for s3 in us-east-1", "Secret cycle"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // A wait for a rotation does not hide it.
    used(days(7)).requested().waits(hours(23), Reason::PreviousKeyEnding);
    let unused = published(days(7)).last_used("K1", Some(days(7)), secs(0));
    unused.does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn short_hold_is_reported_once() {
    let used =
        |hold, age| in_overlap().published("K2", age).held_while_used(hold).last_used("K1", Some(mins(5)), secs(0));
    used(hours(12), hours(24)).waits(hours(11), Reason::StillUsed);
    used(hours(12), hours(35)).waits(hours(1), Reason::PreviousKeyEndingSoon);
    used(hours(1), hours(24)).waits(hours(1), Reason::StillUsed);
}

#[test]
fn failed_last_use_read_never_counts_as_unused() {
    let silent = |case: Case| case.current(|current| current.last_used_failed = true);
    silent(published(days(2))).waits(days(6), Reason::Overlap);
    silent(published(days(2))).facts(|facts| facts.matches_spec = false).does("RewriteSecret");
    silent(published(days(2)).no_secret()).does_not("DeactivateKey K1 (OverlapEnded)");
    silent(published(days(8))).does("DeactivateKey K1 (HoldExpired)");
}

#[test]
fn requested_rotation_gets_the_slot_of_an_unused_key() {
    published(hours(24)).requested().does("ReadLastUsed K1");
    let used = published(hours(24)).requested().last_used("K1", Some(hours(5)), secs(0));
    used.waits(hours(21), Reason::RotationPending);
    published(hours(26)).requested().last_used("K1", None, secs(0)).does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn use_in_the_future_holds_no_longer_than_one_now() {
    published(hours(24)).last_used("K1", Some(-days(300)), secs(0)).waits(hours(26), Reason::StillUsed);
}

#[test]
fn clock_set_back_retires_no_key_early() {
    // Read while the clock was ahead; now the overlap is not over any more.
    published(hours(20)).last_used("K1", None, -hours(6)).waits(hours(6), Reason::Overlap);
}
