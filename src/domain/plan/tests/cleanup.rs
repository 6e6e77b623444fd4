//! Deletion, by policy.

use DeletionPolicy::{Delete, Force, Retain};

use super::*;

#[test]
fn without_our_finalizer_nothing_is_done() {
    for policy in [Delete, Retain, Force] {
        idle().leaving(policy).current(|current| current.finalizer = false).cleans_up_by("nothing");
    }
}

#[test]
fn delete_order_is_keys_policies_user_secret_finalizer() {
    let mut case = in_overlap().user(|user| {
        let grants = user.grants.as_mut().unwrap();
        grants.attached.insert("P".into());
        grants.inline.insert("own".into(), json!({}));
    });
    case.cleans_up_by("DeactivateKey K1 (Cleanup)");
    case = case.inactive("K1");
    case.cleans_up_by("DeactivateKey K2 (Cleanup)");
    case = case.inactive("K2");
    case.cleans_up_by("DeleteKey K1 (Cleanup)");
    case = case.key_gone("K1");
    case.cleans_up_by("DeleteKey K2 (Cleanup)");
    case = case.key_gone("K2");
    case.cleans_up_by("DetachPolicy P");
    case = case.user(|user| user.grants.as_mut().unwrap().attached.clear());
    case.cleans_up_by("DeleteInlinePolicy own");
    case = case.user(|user| user.grants.as_mut().unwrap().inline.clear());
    case.cleans_up_by("DeleteUser");
    case = case.no_user();
    case.cleans_up_by("DeleteSecret");
    case = case.no_secret();
    case.cleans_up_by("RemoveFinalizer");
}

#[test]
fn unread_policies_are_read_before_the_user_is_deleted() {
    without_key().user(|user| user.grants = None).cleans_up_by("ReadGrants");
}

#[test]
fn foreign_key_blocks_deletion_before_anything_is_removed() {
    let case = idle().key("F", days(1));
    let plan = case.cleanup();
    assert_eq!(plan.effects, []);
    let note = plan.user.unwrap();
    assert_eq!(note.reason, Reason::ForeignKeys);
    assert!(
        note.message.contains('F') && note.message.contains("Force") && note.message.contains("Retain"),
        "{}",
        note.message
    );
    case.clone().leaving(Force).cleans_up_by("DeactivateKey K1 (Cleanup)");
    case.clone().inactive("K1").leaving(Force).cleans_up_by("DeactivateKey F (Cleanup)");
    case.leaving(Retain).cleans_up_by("ReleaseSecret");
}

#[test]
fn retain_releases_the_secret_before_the_user_is_untagged() {
    let mut case = idle()
        .leaving(Retain)
        .user(|user| user.tags.extend([("team".into(), "a".into()), ("K1".into(), "hub".into())]));
    case.cleans_up_by("ReleaseSecret");
    case = case.foreign_secret();
    let Effect::UntagUser(tags) = &case.cleanup().effects[0] else { panic!("{:?}", case.cleanup()) };
    assert!(
        tags.iter().all(|tag| tag.starts_with("awsdeploy.dev/")) && tags.contains(&key_tag("K1")) && tags.len() == 6,
        "{tags:?}"
    );
    case = case.no_user();
    case.cleans_up_by("RemoveFinalizer");
}

#[test]
fn retain_changes_no_key_and_no_permission() {
    let case = in_overlap().leaving(Retain).foreign_secret();
    case.cleans_up_by(&format!(
        "UntagUser {}",
        case.current.user().unwrap().tags.keys().cloned().collect::<Vec<_>>().join(", ")
    ));
}

#[test]
fn deletion_waits_for_a_young_intent() {
    for policy in [Delete, Retain] {
        let young = idle().leaving(policy).intent(secs(20), &["K1"]).key("K2", secs(20));
        assert_eq!(young.cleanup().effects, []);
        assert_eq!(young.cleanup().requeue_at, Some(now() + secs(40)));
        idle().leaving(policy).intent(secs(60), &["K1"]).key("K2", secs(59)).cleans_up_by("AbandonAttempt orphans: K2");
    }
    idle().leaving(Force).intent(secs(20), &["K1"]).key("K2", secs(20)).cleans_up_by("DeactivateKey K1 (Cleanup)");
}

#[test]
fn deletion_abandons_staged_and_finishes_published_attempts() {
    staged().cleans_up_by("AbandonAttempt orphans: K2");
    let published = staged().published("K2", secs(1));
    published.cleans_up_by("TagKey K2");
    published.tagged("K2").cleans_up_by("CloseJournal");
}

#[test]
fn deletion_deletes_orphans_only_behind_the_fence() {
    let mut case = idle().key("K2", mins(1)).abandoned(&["K2"]);
    case.cleans_up_by("TouchPublished");
    case = case.fenced();
    case.cleans_up_by("DeleteKey K2 (Orphan)");
    case = case.key_gone("K2").current(|current| _ = current.deleted_keys.insert("K2".into()));
    case.cleans_up_by("CloseJournal");
    idle().published("K2", secs(1)).key("K2", mins(1)).abandoned(&["K2"]).cleans_up_by("TagKey K2");
}

#[test]
fn foreign_user_is_not_touched_and_does_not_block_deletion() {
    let foreign = || idle().user(|user| user.tags.clear()).absent_for(mins(1));
    foreign().cleans_up_by("DeleteSecret");
    foreign().leaving(Retain).cleans_up_by("ReleaseSecret");
    foreign().leaving(Force).no_secret().cleans_up_by("RemoveFinalizer");
}

#[test]
fn foreign_secret_is_kept() {
    without_key().no_user().foreign_secret().cleans_up_by("RemoveFinalizer");
}

#[test]
fn journal_without_a_user_is_closed() {
    // No garbage collector deletes it: it has no owner.
    for policy in [Delete, Retain, Force] {
        let left = || idle().no_user().no_secret().leaving(policy);
        left().intent(secs(1), &[]).cleans_up_by("CloseJournal");
        left().unknown_journal().cleans_up_by("CloseJournal");
        left().cleans_up_by("RemoveFinalizer");
    }
}

#[test]
fn deletion_waits_before_it_trusts_a_missing_user() {
    let foreign = |case: Case| case.user(|user| user.tags.clear());
    for policy in [Delete, Retain, Force] {
        for case in [idle().no_user(), foreign(idle()), without_key().no_user().keyed("K2", secs(5))] {
            let unseen = |since| case.clone().leaving(policy).absent_for(since);
            let plan = unseen(secs(20)).cleanup();
            assert_eq!((plan.effects, plan.requeue_at), (Vec::new(), Some(now() + secs(40))), "{policy:?}");
            assert!(plan.user.unwrap().message.contains("deploy_cycle"), "the user is named");
            assert_ne!(next_effect(&unseen(secs(60)).cleanup()), "nothing");
            // The clock was set back.
            assert_eq!(unseen(secs(-20)).cleanup().requeue_at, Some(now() + secs(60)));
        }
    }
}

#[test]
fn deletion_blockers_are_removed_before_the_user() {
    let mut case = without_key().user(|user| {
        user.grants.as_mut().unwrap().groups.insert("g".into());
        user.deletion_blockers = Some(vec![DeletionBlocker::LoginProfile, DeletionBlocker::SshKey("S".into())]);
    });
    case.cleans_up_by("RemoveFromGroup g");
    case = case.user(|user| user.grants.as_mut().unwrap().groups.clear());
    case.cleans_up_by("RemoveDeletionBlocker console password");
    case = case.user(|user| _ = user.deletion_blockers.as_mut().unwrap().remove(0));
    case.cleans_up_by("RemoveDeletionBlocker SSH key S");
    case.user(|user| user.deletion_blockers = Some(Vec::new())).cleans_up_by("DeleteUser");
}
