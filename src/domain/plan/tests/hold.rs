//! A superseded key that is still used is held, for a while.

use super::*;

/// K2 was published so long ago, K1 is superseded, the overlap is a day, the hold a week, the window 26 hours.
fn published(age: SignedDuration) -> Case {
    in_overlap().published("K2", age).held_while_used(days(7))
}

#[test]
fn without_hold_aws_is_never_asked() {
    in_overlap()
        .published("K2", hours(24))
        .last_used("K1", Some(secs(1)), secs(1))
        .does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn aws_is_asked_when_the_overlap_is_over_and_not_before() {
    published(hours(23)).waits(hours(1), Reason::Overlap);
    published(hours(24)).does("ReadLastUsed K1");
    // An answer from the time of the overlap says nothing about the end of it.
    published(hours(24)).last_used("K1", None, hours(1)).does("ReadLastUsed K1");
}

#[test]
fn a_key_that_is_not_used_goes_as_soon_as_aws_would_have_told_of_a_use() {
    let unused = published(hours(24)).last_used("K1", Some(days(3)), secs(0));
    unused.waits(hours(2), Reason::Overlap);
    assert_eq!(unused.plan().deactivate_at["K1"], now() + hours(2));
    published(hours(26)).last_used("K1", None, hours(2)).does("ReadLastUsed K1");
    published(hours(26)).last_used("K1", None, secs(0)).does("DeactivateKey K1 (OverlapEnded)");
    published(hours(25)).overlap(hours(30)).waits(hours(5), Reason::Overlap);
}

#[test]
fn a_key_that_is_used_is_held_and_told_with_the_time_of_its_use() {
    let used = published(hours(24)).last_used("K1", Some(hours(5)), secs(0));
    used.waits(hours(21), Reason::StillUsed);
    let told = used.plan().rotation.message;
    assert!(told.contains(&ago(hours(5)).to_string()) && told.contains(&(now() + days(7)).to_string()), "{told}");
    assert!(told.contains("Secret cycle"), "{told}");
    // Asked again when it should be quiet, not every minute.
    published(hours(25)).last_used("K1", Some(hours(6)), hours(1)).waits(hours(20), Reason::StillUsed);
    published(hours(45)).last_used("K1", Some(hours(26)), hours(21)).does("ReadLastUsed K1");
    published(hours(45)).last_used("K1", Some(hours(26)), secs(0)).does("DeactivateKey K1 (OverlapEnded)");
    published(hours(45)).last_used("K1", Some(hours(2)), secs(0)).waits(hours(24), Reason::StillUsed);
}

#[test]
fn a_consumer_that_moved_within_minutes_is_no_reason_to_warn() {
    published(hours(24))
        .last_used("K1", Some(hours(24) - mins(10)), secs(0))
        .waits(hours(2) + mins(10), Reason::Overlap);
    let late = published(hours(24)).last_used("K1", Some(hours(24) - mins(20)), secs(0));
    late.waits(hours(2) + mins(20), Reason::StillUsed);
}

#[test]
fn no_key_is_held_for_ever() {
    published(days(8) - secs(1)).last_used("K1", Some(hours(1)), hours(1)).waits(secs(1), Reason::StillUsed);
    published(days(8)).last_used("K1", Some(hours(1)), hours(1)).does("DeactivateKey K1 (HoldExpired)");
    published(days(8)).does("DeactivateKey K1 (HoldExpired)");
    // Out of use at the very end is no reason to warn.
    published(days(8)).last_used("K1", Some(days(3)), hours(1)).does("DeactivateKey K1 (OverlapEnded)");
    published(days(9)).inactive_since("K1", mins(10)).does("DeleteKey K1 (OverlapEnded)");
}

#[test]
fn aws_saying_nothing_is_never_taken_as_unused_and_everything_else_goes_on() {
    let silent = |case: Case| case.current(|current| current.last_used_failed = true);
    silent(published(days(2))).waits(days(6), Reason::Overlap);
    silent(published(days(2))).facts(|facts| facts.matches_spec = false).does("RewriteSecret");
    silent(published(days(2)).no_secret()).does_not("DeactivateKey K1 (OverlapEnded)");
    silent(published(days(8))).does("DeactivateKey K1 (HoldExpired)");
}

#[test]
fn a_request_that_waits_for_the_slot_gets_it_when_the_key_is_quiet() {
    published(hours(24)).requested().does("ReadLastUsed K1");
    let used = published(hours(24)).requested().last_used("K1", Some(hours(5)), secs(0));
    used.waits(hours(21), Reason::RotationPending);
    published(hours(26)).requested().last_used("K1", None, secs(0)).does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn a_use_in_the_future_holds_no_longer_than_one_of_now() {
    published(hours(24)).last_used("K1", Some(-days(300)), secs(0)).waits(hours(26), Reason::StillUsed);
}

#[test]
fn a_clock_that_went_back_retires_no_key_early() {
    // Asked when the clock was ahead; now the overlap is not over any more.
    published(hours(20)).last_used("K1", None, -hours(6)).waits(hours(6), Reason::Overlap);
}
