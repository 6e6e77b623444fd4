//! Console access without an access key, and what becomes of a key that is not declared any more.

use super::*;

#[test]
fn a_user_without_a_key_gets_none_and_is_as_declared() {
    let case = without_key().console_only();
    case.waits(None, Reason::NotRequested);
    let plan = case.plan();
    assert_eq!(plan.key.map(|note| note.reason), Some(Reason::NotRequested));
    assert_eq!(plan.next_rotation, None);
    // Not even what is named like the Secret of a key is in the way.
    without_key().console_only().foreign_secret().does("nothing");
    without_key().console_only().foreign_journal().does("nothing");
    without_key().console_only().rotated_before(days(1)).does("nothing");
}

#[test]
fn a_key_that_is_not_declared_any_more_is_inactive_at_once_then_gone_then_its_secret() {
    at_rest().console_only().does("DeactivateKey K1 (RemovedFromSpec)");
    at_rest().console_only().policy_missing().does("DeactivateKey K1 (RemovedFromSpec)");
    let inactive = |age| at_rest().console_only().inactive_since("K1", age);
    inactive(mins(1)).waits(mins(9), Reason::NotRequested);
    inactive(mins(10)).does("DeleteKey K1 (RemovedFromSpec)");
    let gone = at_rest().console_only().key_gone("K1");
    gone.does("DeleteSecret");
    gone.clone()
        .facts(|facts| _ = facts.previous.insert("before".into(), "K0".into()))
        .does("DeletePreviousSecret before");
    gone.clone().no_secret().does("UntagUser awsdeploy.dev/key/K1");
    gone.no_secret().untagged("K1").does("nothing");
    // Two at once: the later one waits for its own dwell.
    let both = in_overlap().console_only();
    both.does("DeactivateKey K1 (RemovedFromSpec)");
    both.clone().inactive("K1").does("DeactivateKey K2 (RemovedFromSpec)");
    both.inactive_since("K1", mins(10)).inactive_since("K2", mins(4)).does("DeleteKey K1 (RemovedFromSpec)");
}

#[test]
fn keys_of_others_stay() {
    at_rest().console_only().key("F", days(5)).inactive_since("K1", mins(10)).does("DeleteKey K1 (RemovedFromSpec)");
    without_key().console_only().key("F", days(5)).does("nothing");
}

#[test]
fn an_attempt_under_way_is_brought_to_its_end_first() {
    staged().console_only().does("DeactivateKey K1 (RemovedFromSpec)");
    let withdrawn = || staged().console_only().inactive_since("K1", mins(1));
    withdrawn().does("DeactivateKey K2 (RemovedFromSpec)");
    withdrawn().inactive("K2").does("AbandonAttempt orphans: K2");
    // IAM's list does not show it yet; AWS has accepted it; the dwell of the other key is over.
    withdrawn().key_gone("K2").does("AbandonAttempt orphans: K2");
    withdrawn().key_gone("K2").accepted("K2", 3).inactive_since("K1", mins(10)).does("AbandonAttempt orphans: K2");
    let abandoned = || at_rest().console_only().inactive_since("K1", mins(10)).abandoned(&["K2"]);
    abandoned().does("TouchPublished");
    abandoned().fenced().does("DeleteKey K2 (Orphan)");
    abandoned().fenced().current(|current| _ = current.deleted_keys.insert("K2".into())).does("CloseJournal");
    let cut_off = |age| without_key().console_only().intent(age, &[]);
    cut_off(secs(20)).waits(secs(40), Reason::Recovering);
    cut_off(mins(2)).does("AbandonAttempt orphans: ");
    // Published a moment before: known as ours, then closed, then withdrawn as any other.
    let published = at_rest().console_only().inactive("K1").key("K2", secs(5)).inactive("K2");
    let published = published.published("K2", secs(2)).keyed("K2", secs(5));
    published.does("TagKey K2");
    published.tagged_since("K2", secs(1)).does("CloseJournal");
    at_rest().console_only().unknown_journal().does("DeactivateKey K1 (RemovedFromSpec)");
    let inactive = at_rest().console_only().inactive_since("K1", mins(10));
    inactive.unknown_journal().waits(None, Reason::UnknownJournal);
}

#[test]
fn suspension_keeps_the_keys_for_forensics_here_too() {
    let suspended = at_rest().console_only().user(|user| user.login_profile = Some(false)).suspended();
    suspended.does("DeactivateKey K1 (Suspended)");
    suspended.inactive_since("K1", days(1)).waits(None, Reason::Suspended);
}

#[test]
fn a_key_that_is_declared_again_is_a_new_one() {
    at_rest().inactive_since("K1", mins(1)).does("CreateKey beside K1");
    without_key().does("CreateKey beside ");
}
