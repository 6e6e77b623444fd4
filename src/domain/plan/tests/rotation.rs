//! The chain, rule by rule, and its order.

use super::*;

// --- the first key ---------------------------------------------------------------------------

#[test]
fn nothing_due_means_nothing_done_and_the_next_rotation_is_the_wake_up() {
    let plan = at_rest().plan();
    assert_eq!((words(&plan).as_str(), plan.rotation.reason), ("nothing", Reason::Scheduled));
    assert_eq!(plan.requeue_at, plan.next_rotation);
    let due = plan.next_rotation.unwrap();
    assert!(due > now() + days(80) - mins(10) && due <= now() + days(80), "{due}");
    assert_eq!(plan.key, None);
}

#[test]
fn a_new_user_gets_its_first_key_at_once() {
    without_key().does("CreateKey beside ");
    without_key().key("F", days(3)).does("CreateKey beside F");
}

#[test]
fn no_key_is_made_for_a_secret_that_is_not_ours() {
    without_key().foreign_secret().waits(None, Reason::SecretConflict);
    without_key().foreign_journal().waits(None, Reason::SecretConflict);
    assert_eq!(without_key().foreign_secret().plan().key.map(|note| note.reason), Some(Reason::SecretConflict));
}

// --- an attempt on its way -------------------------------------------------------------------

#[test]
fn a_staged_key_is_verified_until_aws_has_accepted_it_often_enough_in_a_row() {
    staged().does("VerifyKey K2");
    staged().checked("K2", 1, secs(1)).does("VerifyKey K2");
    staged()
        .checked("K2", 2, SignedDuration::from_millis(400))
        .waits(SignedDuration::from_millis(600), Reason::Verifying);
    staged().accepted("K2", 3).does("Publish K2");
    staged().settings(|settings| settings.verify_successes = 0).does("Publish K2");
}

#[test]
fn the_acceptance_of_another_key_does_not_count() {
    staged().accepted("K1", 3).does("VerifyKey K2");
}

#[test]
fn an_accepted_first_key_is_handed_out_only_once_the_user_is_as_declared() {
    let first = without_key().key("K2", secs(5)).keyed("K2", secs(5)).accepted("K2", 3);
    first.does("Publish K2");
    let refused = first.policy_missing().current(|current| current.user_sync_failed = true);
    refused.waits(mins(5) - secs(5), Reason::Pending);
    staged().accepted("K2", 3).policy_missing().current(|current| current.user_sync_failed = true).does("Publish K2");
}

#[test]
fn a_staged_key_is_not_published_over_a_secret_that_is_not_ours() {
    let taken = without_key().key("K2", secs(5)).keyed("K2", secs(5)).accepted("K2", 3).foreign_secret();
    taken.waits(mins(5) - secs(5), Reason::SecretConflict);
}

#[test]
fn a_staged_key_that_aws_does_not_accept_in_time_is_given_up() {
    let late = |age| at_rest().key("K2", age).keyed("K2", age).checked("K2", 0, SignedDuration::ZERO);
    late(mins(5)).does("AbandonAttempt orphans: K2, failed");
    late(mins(5) - secs(1)).waits(secs(1), Reason::Verifying);
    // An acceptance that came late is still an acceptance.
    late(mins(6)).accepted("K2", 3).does("Publish K2");
}

#[test]
fn a_staged_key_that_was_revoked_is_given_up_even_if_sts_still_accepts_it() {
    staged().inactive("K2").accepted("K2", 3).does("AbandonAttempt orphans: K2");
}

#[test]
fn a_published_key_is_tagged_then_its_attempt_is_closed() {
    let published = staged().published("K2", secs(1));
    published.does("TagKey K2");
    published.clone().tagged_since("K2", secs(1)).does("CloseJournal");
    // The list of IAM lags; the Secret is the proof.
    published.key_gone("K2").does("TagKey K2");
}

#[test]
fn no_key_is_tagged_before_it_is_published() {
    for case in [staged(), staged().accepted("K2", 3), at_rest().key("K2", mins(2)).abandoned(&["K2"])] {
        assert_ne!(words(&case.plan()), "TagKey K2");
    }
}

#[test]
fn a_lost_tag_of_the_published_key_comes_back() {
    at_rest().untagged("K1").does("TagKey K1");
    at_rest().untagged("K1").edited().does("CreateKey beside K1");
}

// --- an attempt that was cut off -------------------------------------------------------------

#[test]
fn an_orphan_is_looked_for_in_a_list_that_was_made_after_the_dwell() {
    let abandons = |case: &Case| {
        let plan = case.plan();
        assert_eq!(words(&plan), "AbandonAttempt orphans: ");
        plan.effects[0].can_run_on(&case.current, &case.settings)
    };
    let attempt = at_rest().intent(secs(90), &["K1"]);
    assert!(abandons(&attempt), "read just now");
    assert!(abandons(&attempt.clone().listed(secs(30))), "the list is a minute younger than the attempt");
    assert!(!abandons(&attempt.clone().listed(secs(31))), "it may not show yet what the attempt has made");
    assert!(!abandons(&attempt.current(|current| current.keys_read_at = None)), "remembered");
    // A staged key is known by its id: no list is needed for it, if it only was read in this pass.
    let staged = at_rest().key("K2", mins(6)).keyed("K2", mins(6)).listed(mins(20));
    assert!(staged.plan().effects[0].can_run_on(&staged.current, &staged.settings));
}

#[test]
fn an_intent_without_an_answer_waits_out_the_dwell() {
    at_rest().intent(secs(59), &["K1"]).key("K2", secs(58)).waits(secs(1), Reason::Recovering);
    at_rest().intent(secs(60), &["K1"]).key("K2", secs(59)).does("AbandonAttempt orphans: K2");
    at_rest().intent(secs(60), &["K1"]).does("AbandonAttempt orphans: ");
}

#[test]
fn an_orphan_is_neither_known_nor_tagged_nor_published_nor_older_than_its_attempt() {
    let case = || without_key().key("K2", mins(2)).intent(mins(2), &[]);
    case().does("AbandonAttempt orphans: K2");
    case().intent(mins(2), &["K2"]).does("AbandonAttempt orphans: ");
    case().tagged("K2").does("AbandonAttempt orphans: ");
    case().published("K2", mins(1)).does("AbandonAttempt orphans: ");
    case().intent(mins(2) - secs(1), &[]).does("AbandonAttempt orphans: ");
}

#[test]
fn a_key_made_long_after_an_attempt_began_is_not_its_orphan() {
    // The operator was cut off and stayed down; a person made a key by hand meanwhile.
    at_rest().intent(hours(5), &["K1"]).key("F", hours(4)).does("AbandonAttempt orphans: ");
    at_rest().intent(hours(5), &["K1"]).key("K2", hours(5) - secs(20)).does("AbandonAttempt orphans: K2");
}

#[test]
fn of_two_keys_that_could_be_the_orphan_none_is_deleted() {
    // An attempt makes one key: one of the two is a person's, and nobody can tell which.
    without_key().intent(mins(2), &[]).key("K2", mins(2)).key("F", mins(1)).does("AbandonAttempt orphans: ");
}

#[test]
fn an_orphan_is_deleted_only_behind_the_fence() {
    let case = at_rest().key("K2", mins(2)).abandoned(&["K2"]);
    case.does("TouchPublished");
    case.clone().facts(|facts| facts.fence = Some("an earlier attempt".into())).does("TouchPublished");
    let fenced = case.fenced();
    fenced.does("DeleteKey K2 (Orphan)");
    // Not shown by a list that lags: deleted all the same.
    fenced.clone().key_gone("K2").does("DeleteKey K2 (Orphan)");
    fenced.current(|current| _ = current.deleted_keys.insert("K2".into())).does("CloseJournal");
}

#[test]
fn without_a_secret_there_is_nothing_to_fence() {
    without_key().key("K2", mins(2)).abandoned(&["K2"]).does("DeleteKey K2 (Orphan)");
}

#[test]
fn a_key_that_was_published_although_it_was_given_up_stays() {
    let case = at_rest().key("K2", mins(2)).abandoned(&["K2"]).published("K2", secs(1));
    case.does("TagKey K2");
    let tagged = case.tagged("K2");
    tagged.does("TouchPublished");
    tagged.fenced().does("CloseJournal");
}

#[test]
fn a_journal_of_unknown_format_stops_everything_that_is_not_safe() {
    at_rest().unknown_journal().waits(None, Reason::UnknownJournal);
    at_rest().unknown_journal().requested().waits(None, Reason::UnknownJournal);
    // Keys that are known to be ours are revoked all the same.
    at_rest().unknown_journal().suspended().does("DeactivateKey K1 (Suspended)");
    at_rest().unknown_journal().console_only().does("DeactivateKey K1 (RemovedFromSpec)");
    without_key().unknown_journal().waits(None, Reason::UnknownJournal);
}

// --- the order -------------------------------------------------------------------------------

#[test]
fn an_attempt_comes_to_its_end_before_anything_else_happens() {
    let everything_due =
        |case: Case| case.requested().key("K0", days(40)).tagged("K0").facts(|facts| facts.matches_spec = false);
    everything_due(at_rest()).does("DeactivateKey K0 (OverlapEnded)");
    everything_due(at_rest().intent(secs(5), &["K1", "K0"])).waits(secs(55), Reason::Recovering);
    everything_due(staged()).does("VerifyKey K2");
    everything_due(at_rest().abandoned(&["K2"])).does("TouchPublished");
}

#[test]
fn the_chain_is_in_the_order_of_the_protocol() {
    let place =
        |rule: &str| RULES.iter().position(|(name, _)| *name == rule).unwrap_or_else(|| panic!("no rule {rule:?}"));
    for (first, then) in [
        ("suspended keys are Inactive", "a journal of unknown format is left alone"),
        ("keys that are not declared any more are Inactive", "a journal of unknown format is left alone"),
        ("a journal of unknown format is left alone", "the published key of an abandoned attempt stays"),
        ("suspended keys are Inactive", "orphans are deleted behind the fence"),
        ("the published key of an abandoned attempt stays", "a paused publisher of an abandoned key is fenced off"),
        ("a paused publisher of an abandoned key is fenced off", "orphans are deleted behind the fence"),
        ("orphans are deleted behind the fence", "an abandoned attempt is closed"),
        ("a published key is tagged, never before it is published", "a finished attempt is closed"),
        ("a finished attempt is closed", "a staged key that AWS accepts is published"),
        ("a staged key that was revoked is given up", "a staged key that AWS accepts is published"),
        ("a staged key that AWS accepts is published", "a staged key that cannot be published in time is given up"),
        ("an intent without an answer is abandoned after the dwell", "a suspended user gets no key"),
        ("a Secret that is not ours is not written", "a key that is due is replaced"),
        ("a superseded key is retired after its overlap", "a key that is due is replaced"),
        ("a key that is due is replaced", "the Secret is as declared"),
    ] {
        assert!(place(first) < place(then), "{first:?} comes before {then:?}");
    }
}

// --- suspend and resume ----------------------------------------------------------------------

#[test]
fn suspend_sets_every_key_of_ours_inactive_and_no_other() {
    let case = in_overlap().key("F", days(1)).suspended();
    case.does("DeactivateKey K1 (Suspended)");
    let case = case.inactive("K1");
    case.does("DeactivateKey K2 (Suspended)");
    case.inactive("K2").waits(None, Reason::Suspended);
}

#[test]
fn a_staged_key_is_revoked_too() {
    staged().accepted("K2", 3).suspended().inactive("K1").does("DeactivateKey K2 (Suspended)");
    staged().accepted("K2", 3).suspended().inactive("K1").inactive("K2").waits(None, Reason::Suspended);
}

#[test]
fn a_suspended_user_gets_no_key_and_keeps_what_it_has() {
    without_key().suspended().waits(None, Reason::Suspended);
    at_rest().requested().suspended().inactive("K1").waits(None, Reason::Suspended);
    at_rest()
        .key("K0", days(40))
        .tagged("K0")
        .inactive_since("K0", days(1))
        .inactive("K1")
        .suspended()
        .waits(None, Reason::Suspended);
}

#[test]
fn an_attempt_that_was_cut_off_is_cleaned_up_although_the_user_is_suspended() {
    at_rest().inactive("K1").suspended().intent(mins(2), &["K1"]).key("K2", mins(2)).does("AbandonAttempt orphans: K2");
    at_rest()
        .inactive("K1")
        .suspended()
        .key("K2", mins(2))
        .inactive("K2")
        .abandoned(&["K2"])
        .fenced()
        .does("DeleteKey K2 (Orphan)");
}

#[test]
fn resume_makes_a_new_key_and_gives_a_staged_one_up() {
    at_rest().inactive("K1").does("CreateKey beside K1");
    staged().inactive("K1").inactive("K2").does("AbandonAttempt orphans: K2");
    in_overlap().inactive("K1").inactive("K2").does("DeleteKey K1 (FreesSlot)");
}

// --- when a key is due -----------------------------------------------------------------------

#[test]
fn a_key_whose_secret_is_lost_is_replaced() {
    at_rest().no_secret().does("CreateKey beside K1");
    at_rest().edited().does("CreateKey beside K1");
}

#[test]
fn a_published_key_that_is_gone_or_inactive_is_replaced() {
    at_rest().key_gone("K1").user(|user| _ = user.tags.remove(&key_tag("K1"))).does("CreateKey beside ");
    at_rest().inactive("K1").does("CreateKey beside K1");
}

#[test]
fn a_key_published_a_moment_ago_may_be_missing_from_the_list() {
    at_rest().key_gone("K1").published("K1", secs(59)).does("nothing");
    at_rest().key_gone("K1").published("K1", secs(60)).does("CreateKey beside ");
}

#[test]
fn a_rotate_request_is_honoured_once() {
    at_rest().requested().does("CreateKey beside K1");
    at_rest().requested().facts(|facts| facts.rotate_honoured = Some("please".into())).does("nothing");
    at_rest().facts(|facts| facts.rotate_honoured = Some("please".into())).does("nothing");
}

#[test]
fn a_key_is_replaced_on_schedule() {
    at_rest().every(days(10)).does("CreateKey beside K1");
    at_rest().every(days(11)).does("nothing");
    let never = at_rest().declared_key(|key| key.schedule = RotationSchedule::Never);
    never.waits(None, Reason::ManualOnly);
}

#[test]
fn a_scheduled_rotation_waits_for_its_window_and_a_needed_one_does_not() {
    // It is Saturday, 10:00.
    let tomorrow = |case: Case| case.window("0 2 * * 0", hours(4));
    let begins = hours(16) + SignedDuration::from_secs((hours(2) * permille() / 1000).as_secs());
    let due = tomorrow(at_rest().every(days(10)));
    due.waits(begins, Reason::RotationPending);
    assert_eq!(due.plan().next_rotation, Some(now() + begins), "the status shows when it really begins");
    assert_eq!(tomorrow(at_rest().every(days(30))).plan().rotation.reason, Reason::Scheduled);
    at_rest().every(days(10)).window("0 9 * * 6", hours(4)).does("CreateKey beside K1");
    due.clone().requested().does("CreateKey beside K1");
    due.clone().no_secret().does("CreateKey beside K1");
    due.clone().inactive("K1").does("CreateKey beside K1");
    tomorrow(without_key()).does("CreateKey beside ");
}

#[test]
fn an_old_key_retires_when_its_overlap_ends_whatever_window_is_open() {
    in_overlap().published("K2", hours(24)).window("0 2 * * 0", hours(4)).does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn a_renamed_secret_gets_a_new_key_and_the_journal_names_the_old_one() {
    let renamed = at_rest().no_secret().current(|current| current.hints.secret_name = Some("before".into()));
    renamed.does("CreateKey beside K1, leaving before with K1");
    at_rest()
        .no_secret()
        .current(|current| current.hints.secret_name = Some("cycle".into()))
        .does("CreateKey beside K1");
}

#[test]
fn an_earlier_target_goes_with_its_key() {
    let left = |case: Case| case.facts(|facts| _ = facts.previous.insert("before".into(), "K1".into()));
    left(in_overlap()).does("nothing");
    left(in_overlap().inactive_since("K1", mins(1))).does("DeletePreviousSecret before");
    left(in_overlap().key_gone("K1").untagged("K1")).does("DeletePreviousSecret before");
}

// --- pauses ----------------------------------------------------------------------------------

#[test]
fn after_a_failed_attempt_the_next_one_waits_longer_and_longer() {
    for (times, pause) in [(1, 5), (2, 10), (3, 20), (7, 300), (50, 300)] {
        let spread = secs(pause) / 10 * permille() / 1000;
        at_rest().requested().failed(times, secs(1)).waits(secs(pause) + spread - secs(1), Reason::BackingOff);
        at_rest().requested().failed(times, secs(pause) + spread).does("CreateKey beside K1");
    }
    without_key().failed(3, secs(1)).waits(secs(19) + secs(2) * permille() / 1000, Reason::BackingOff);
    at_rest().requested().failed(0, secs(1)).does("CreateKey beside K1");
}

#[test]
fn losing_keys_again_and_again_is_no_way_to_burn_them() {
    let young = |case: Case| case.user(|user| user.keys[0].created_at = ago(secs(20)));
    for case in [at_rest().no_secret(), at_rest().edited(), at_rest().inactive("K1"), at_rest().requested()] {
        young(case.clone()).waits(secs(40), Reason::RotationPending);
        young(case).settings(|settings| settings.min_rotation_interval = mins(20)).does("CreateKey beside K1");
    }
    // Also when the key is gone and only the report is left.
    without_key().rotated_before(secs(20)).waits(secs(40), Reason::RotationPending);
    without_key().rotated_before(mins(1)).does("CreateKey beside ");
    // A key that somebody else made does not count, and a first or scheduled key is not held back.
    without_key().key("F", secs(5)).does("CreateKey beside F");
    young(at_rest()).published("K1", secs(20)).every(secs(10)).does("CreateKey beside K1");
}

#[test]
fn a_clock_that_was_ahead_holds_no_key_back() {
    let future = |made| at_rest().no_secret().user(|user| user.keys[0].created_at = now() + made);
    future(days(300)).does("CreateKey beside K1");
    future(mins(10)).does("CreateKey beside K1");
    without_key().rotated_before(-mins(10)).does("CreateKey beside ");
    // Clocks of one moment may differ by a little.
    future(secs(10)).waits(secs(70), Reason::RotationPending);
    // The pause after a key of today still holds.
    future(days(300)).key("K2", secs(20)).tagged("K2").waits(secs(40), Reason::RotationPending);
}

// --- retiring --------------------------------------------------------------------------------

#[test]
fn a_clock_that_went_back_does_not_make_a_dead_key_young() {
    let published = |age| at_rest().key_gone("K1").published("K1", age);
    for age in [secs(5), -secs(5)] {
        assert_eq!(words(&published(age).plan()), "nothing", "{age}");
    }
    // Published ten minutes ahead of AWS's clock as it is now: the key is not missing from a list that lags.
    published(-mins(10)).does("CreateKey beside ");
}

#[test]
fn a_superseded_key_stays_through_its_overlap_then_inactive_then_gone() {
    in_overlap().waits(hours(23), Reason::Overlap);
    in_overlap().published("K2", hours(24)).does("DeactivateKey K1 (OverlapEnded)");
    in_overlap().overlap(hours(1)).does("DeactivateKey K1 (OverlapEnded)");
    in_overlap().inactive_since("K1", mins(9)).waits(mins(1), Reason::Overlap);
    in_overlap().inactive_since("K1", mins(10)).does("DeleteKey K1 (OverlapEnded)");
    // A lost note of the deactivation starts the waiting time anew.
    in_overlap().inactive("K1").waits(mins(10), Reason::Overlap);
}

#[test]
fn no_key_is_retired_while_the_published_one_does_not_work() {
    let over = || in_overlap().published("K2", days(2));
    over().does("DeactivateKey K1 (OverlapEnded)");
    for case in [over().inactive("K2"), over().edited()] {
        assert_ne!(words(&case.plan()), "DeactivateKey K1 (OverlapEnded)");
    }
    over().key_gone("K2").does("CreateKey beside K1");
}

#[test]
fn the_overlap_of_a_key_that_is_newer_than_the_published_one_counts_from_the_newer() {
    // The target was renamed to and fro, or an older Secret came back from a backup: K2 is what consumers hold.
    let back = at_rest().key("K2", hours(1)).tagged("K2");
    back.waits(hours(23), Reason::Overlap);
    back.overlap(hours(1)).does("DeactivateKey K2 (OverlapEnded)");
}

#[test]
fn tags_of_keys_that_are_gone_go_with_their_descriptions() {
    at_rest()
        .tagged("K0")
        .user(|user| _ = user.tags.insert("K0".into(), "hub".into()))
        .does("UntagUser K0, awsdeploy.dev/key/K0");
    // Not the tags of keys that are there, nor of the published one, which the list may not show yet.
    at_rest().user(|user| _ = user.tags.insert("K1".into(), "hub".into())).does("nothing");
    at_rest().key_gone("K1").published("K1", secs(1)).does("nothing");
}

#[test]
fn what_a_list_does_not_show_is_judged_by_when_it_was_made() {
    // The pass was slow: the list is of the time when K2 was made, tagged and published.
    let missing = at_rest().tagged_since("K2", mins(3)).published("K2", mins(3));
    missing.clone().does("CreateKey beside K1");
    missing.clone().listed(mins(3) - secs(59)).does("nothing");
    missing.clone().listed(mins(10)).does("nothing");
    missing.clone().no_secret().does("UntagUser awsdeploy.dev/key/K2");
    missing.no_secret().listed(mins(3) - secs(59)).does("CreateKey beside K1");
}

#[test]
fn a_tag_written_a_moment_ago_stays_although_the_list_does_not_show_its_key() {
    // K2 was published, the Secret was deleted by hand at once, and IAM's list lags.
    let deleted = |age| at_rest().no_secret().tagged_since("K2", age);
    deleted(secs(5)).does("CreateKey beside K1");
    deleted(secs(60)).does("UntagUser awsdeploy.dev/key/K2");
}

// --- making room -----------------------------------------------------------------------------

#[test]
fn a_rotation_waits_for_the_overlap_before_it() {
    in_overlap().requested().waits(hours(23), Reason::RotationPending);
    in_overlap().requested().inactive_since("K1", mins(1)).waits(mins(9), Reason::RotationPending);
}

#[test]
fn a_lost_key_does_not_wait_for_an_inactive_one() {
    in_overlap().no_secret().inactive("K1").does("DeleteKey K1 (FreesSlot)");
    in_overlap().no_secret().inactive("K2").does("DeleteKey K2 (FreesSlot)");
    // Two dead ones: the published one is kept longer, consumers know its name.
    in_overlap().inactive("K1").inactive("K2").does("DeleteKey K1 (FreesSlot)");
}

#[test]
fn of_two_lost_keys_the_one_that_was_used_longest_ago_makes_room() {
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
    // An answer of an hour ago is not one to take a key away by, and neither is none.
    used(Some(5), Some(2)).last_used("K2", Some(hours(2)), hours(1)).does("ReadLastUsed K1, K2");
    in_overlap().no_secret().current(|current| current.last_used_failed = true).waits(None, Reason::RotationPending);
}

#[test]
fn foreign_keys_are_told_and_never_touched() {
    let both = without_key().key("F1", days(9)).key("F2", days(8));
    both.waits(None, Reason::KeyQuotaExceeded);
    assert!(both.plan().rotation.message.contains("F1, F2"));
    let one = at_rest().requested().key("F", days(1));
    one.waits(None, Reason::KeyQuotaExceeded);
    assert!(one.plan().rotation.message.contains("one was not"), "{}", one.plan().rotation.message);
    assert_eq!(one.plan().key, None, "the published key works");
    at_rest().key("F", days(1)).does("nothing");
}

#[test]
fn a_lost_key_beside_a_foreign_one_is_told_as_a_taken_slot() {
    // K1 may be all that running consumers have, F is not ours: only a person can make room.
    for case in [at_rest().no_secret(), at_rest().edited()] {
        case.key("F", days(1)).waits(None, Reason::KeyQuotaExceeded);
    }
    at_rest().no_secret().key("F", days(1)).inactive("K1").does("DeleteKey K1 (FreesSlot)");
}

#[test]
fn no_rule_touches_a_foreign_key() {
    let foreign = |case: Case| case.key("F", days(400)).inactive("F");
    for case in [
        at_rest(),
        without_key(),
        without_key().suspended(),
        at_rest().requested(),
        at_rest().no_secret(),
        at_rest().edited(),
    ] {
        for effect in foreign(case).plan().effects {
            let touched = matches!(&effect, Effect::DeactivateKey(id, _) | Effect::DeleteKey(id, _) if id == "F");
            assert!(!touched, "{effect}");
        }
    }
}

// --- the Secret ------------------------------------------------------------------------------

#[test]
fn a_secret_that_is_not_as_declared_is_written_again_with_the_same_key() {
    at_rest().facts(|facts| facts.matches_spec = false).does("RewriteSecret");
}

#[test]
fn an_immutable_secret_is_told_when_it_stands_in_the_way_and_no_key_is_burned() {
    at_rest().immutable().does("nothing");
    assert_eq!(at_rest().immutable().plan().key, None);
    at_rest().immutable().facts(|facts| facts.matches_spec = false).waits(None, Reason::SecretConflict);
    at_rest().immutable().edited().waits(None, Reason::SecretConflict);
    at_rest().immutable().requested().waits(None, Reason::SecretConflict);
    at_rest().immutable().every(days(9)).waits(None, Reason::SecretConflict);
    at_rest().immutable().inactive("K1").waits(None, Reason::SecretConflict);
    // Made immutable while a key was under way: it is kept until the time limit, then given up.
    staged().accepted("K2", 3).immutable().waits(mins(5) - secs(5), Reason::SecretConflict);
}

// --- wake-ups --------------------------------------------------------------------------------

#[test]
fn whoever_waits_is_woken_later_not_at_once_again() {
    // A retirement that is overdue and held back must not become a busy loop.
    let overdue = || in_overlap().published("K2", days(3));
    overdue().unknown_journal().waits(None, Reason::UnknownJournal);
    overdue().foreign_journal().waits(None, Reason::SecretConflict);
    overdue().immutable().facts(|facts| facts.matches_spec = false).waits(None, Reason::SecretConflict);
    in_overlap().unknown_journal().waits(hours(23), Reason::UnknownJournal);
}

#[test]
fn an_old_key_that_is_activated_again_stays_active_if_the_overlap_was_made_longer_first() {
    let over = at_rest().key("K2", days(2)).tagged("K2").published("K2", days(2));
    over.clone().does("DeactivateKey K1 (OverlapEnded)");
    over.overlap(days(3)).waits(days(1), Reason::Overlap);
}
