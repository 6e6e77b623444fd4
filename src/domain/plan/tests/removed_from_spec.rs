//! Console access without an access key, and the removal of a key that is not declared any more.

use super::*;

#[test]
fn user_without_declared_key_gets_none() {
    let case = without_key().console_only();
    case.waits(None, Reason::NotRequested);
    let plan = case.plan();
    assert_eq!(plan.key.map(|note| note.reason), Some(Reason::NotRequested));
    assert_eq!(plan.next_rotation, None);
    // A Secret with the name of the target Secret is no conflict then.
    without_key().console_only().foreign_secret().does("nothing");
    without_key().console_only().rotated_before(days(1)).does("nothing");
}

#[test]
fn undeclared_key_is_deactivated_deleted_then_its_secret() {
    idle().console_only().does("DeactivateKey K1 (RemovedFromSpec)");
    idle().console_only().policy_missing().does("DeactivateKey K1 (RemovedFromSpec)");
    let inactive = |age| idle().console_only().inactive_since("K1", age);
    inactive(mins(1)).waits(mins(9), Reason::NotRequested);
    inactive(mins(10)).does("DeleteKey K1 (RemovedFromSpec)");
    let gone = idle().console_only().key_gone("K1");
    gone.does("DeleteSecret");
    gone.clone().no_secret().does("UntagUser awsdeploy.dev/key/K1");
    gone.no_secret().untagged("K1").does("nothing");
    // Each key has its own deletion delay.
    let both = in_overlap().console_only();
    both.does("DeactivateKey K1 (RemovedFromSpec)");
    both.clone().inactive("K1").does("DeactivateKey K2 (RemovedFromSpec)");
    both.inactive_since("K1", mins(10)).inactive_since("K2", mins(4)).does("DeleteKey K1 (RemovedFromSpec)");
}

#[test]
fn foreign_keys_are_kept() {
    idle().console_only().key("F", days(5)).inactive_since("K1", mins(10)).does("DeleteKey K1 (RemovedFromSpec)");
    without_key().console_only().key("F", days(5)).does("nothing");
}

#[test]
fn attempt_of_an_undeclared_key_is_finished_first() {
    staged().console_only().does("DeactivateKey K1 (RemovedFromSpec)");
    let removed = || staged().console_only().inactive_since("K1", mins(1));
    removed().does("DeactivateKey K2 (RemovedFromSpec)");
    removed().inactive("K2").does("AbandonAttempt orphans: K2");
    // IAM's list does not show it yet; AWS has accepted it; the deletion delay of the other key is over.
    removed().key_gone("K2").does("AbandonAttempt orphans: K2");
    removed().key_gone("K2").accepted("K2", 3).inactive_since("K1", mins(10)).does("AbandonAttempt orphans: K2");
    let abandoned = || idle().console_only().inactive_since("K1", mins(10)).abandoned(&["K2"]);
    abandoned().does("TouchPublished");
    abandoned().fenced().does("DeleteKey K2 (Orphan)");
    abandoned().fenced().current(|current| _ = current.deleted_keys.insert("K2".into())).does("CloseJournal");
    let interrupted = |age| without_key().console_only().intent(age, &[]);
    interrupted(secs(20)).waits(secs(40), Reason::Recovering);
    interrupted(mins(2)).does("AbandonAttempt orphans: ");
    // Published a moment before: tagged, closed, then removed as any other.
    let published = idle().console_only().inactive("K1").key("K2", secs(5)).inactive("K2");
    let published = published.published("K2", secs(2)).keyed("K2", secs(5));
    published.does("TagKey K2");
    published.tagged_since("K2", secs(1)).does("CloseJournal");
    idle().console_only().unknown_journal().does("DeactivateKey K1 (RemovedFromSpec)");
    let inactive = idle().console_only().inactive_since("K1", mins(10));
    inactive.unknown_journal().waits(None, Reason::UnknownJournal);
}

#[test]
fn revocation_keeps_undeclared_keys_for_forensics() {
    let revoked = idle().console_only().user(|user| user.login_profile = Some(false)).credentials_revoked();
    revoked.does("DeactivateKey K1 (CredentialsRevoked)");
    revoked.inactive_since("K1", days(1)).waits(None, Reason::CredentialsRevoked);
}

#[test]
fn key_declared_again_is_a_new_one() {
    idle().inactive_since("K1", mins(1)).does("CreateKey beside K1");
    without_key().does("CreateKey beside ");
}
