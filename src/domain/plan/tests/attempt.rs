//! Attempts to create a key: finished, or abandoned and cleaned up.

use super::*;

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
