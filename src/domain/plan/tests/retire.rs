//! How superseded keys end, and the two key slots of a user.

use super::*;

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
fn inactive_previous_key_is_not_reported_as_valid() {
    let over = in_overlap().overlap(mins(30)).inactive_since("K1", mins(1));
    over.waits(mins(9), Reason::Overlap);
    let deleted_at = now() + mins(9);
    assert_eq!(
        over.plan().rotation.message,
        format!("the previous key K1 is Inactive, and is deleted at {deleted_at}")
    );
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
fn one_list_without_a_key_removes_no_tag() {
    let missing = idle().tagged("K0").current(|current| _ = current.newly_missing_keys.insert("K0".into()));
    missing.clone().does("nothing");
    missing.current(|current| _ = current.deleted_keys.insert("K0".into())).does("UntagUser awsdeploy.dev/key/K0");
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
