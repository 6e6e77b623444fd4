//! What a deletion does, by policy.

use DeletionPolicy::{Delete, Force, Retain};

use super::*;

#[test]
fn without_our_finalizer_nothing_is_done() {
    for policy in [Delete, Retain, Force] {
        at_rest().leaving(policy).current(|current| current.finalizer = false).leaves_by("nothing");
    }
}

#[test]
fn delete_takes_keys_first_then_rights_then_the_user_then_the_secret_then_the_finalizer() {
    let mut case = in_overlap().user(|user| {
        let grants = user.grants.as_mut().unwrap();
        grants.attached.insert("P".into());
        grants.inline.insert("own".into(), json!({}));
    });
    case.leaves_by("DeactivateKey K1 (Cleanup)");
    case = case.inactive("K1");
    case.leaves_by("DeactivateKey K2 (Cleanup)");
    case = case.inactive("K2");
    case.leaves_by("DeleteKey K1 (Cleanup)");
    case = case.key_gone("K1");
    case.leaves_by("DeleteKey K2 (Cleanup)");
    case = case.key_gone("K2");
    case.leaves_by("DetachPolicy P");
    case = case.user(|user| user.grants.as_mut().unwrap().attached.clear());
    case.leaves_by("DeleteInlinePolicy own");
    case = case.user(|user| user.grants.as_mut().unwrap().inline.clear());
    case.leaves_by("DeleteUser");
    case = case.user_absence();
    case.leaves_by("DeleteSecret");
    case = case.no_secret();
    case.leaves_by("RemoveFinalizer");
}

#[test]
fn rights_that_were_not_read_are_read_before_the_user_is_deleted() {
    without_key().user(|user| user.grants = None).leaves_by("ReadGrants");
}

#[test]
fn a_foreign_key_makes_a_deletion_wait_before_anything_is_taken() {
    let case = at_rest().key("F", days(1));
    let plan = case.cleanup();
    assert_eq!(plan.effects, []);
    let note = plan.user.unwrap();
    assert_eq!(note.reason, Reason::ForeignKeys);
    assert!(
        note.message.contains('F') && note.message.contains("Force") && note.message.contains("Retain"),
        "{}",
        note.message
    );
    case.clone().leaving(Force).leaves_by("DeactivateKey K1 (Cleanup)");
    case.clone().inactive("K1").leaving(Force).leaves_by("DeactivateKey F (Cleanup)");
    case.leaving(Retain).leaves_by("ReleaseSecret");
}

#[test]
fn retain_releases_the_secret_before_the_user_is_unmarked() {
    let mut case = at_rest()
        .leaving(Retain)
        .user(|user| user.tags.extend([("team".into(), "a".into()), ("K1".into(), "hub".into())]));
    case.leaves_by("ReleaseSecret");
    case = case.foreign_secret();
    let Effect::UntagUser(marks) = &case.cleanup().effects[0] else { panic!("{:?}", case.cleanup()) };
    assert!(
        marks.iter().all(|mark| mark.starts_with("awsdeploy.dev/"))
            && marks.contains(&key_tag("K1"))
            && marks.len() == 5,
        "{marks:?}"
    );
    case = case.user_absence();
    case.leaves_by("RemoveFinalizer");
}

#[test]
fn retain_leaves_keys_and_rights_as_they_are() {
    let case = in_overlap().leaving(Retain).foreign_secret();
    case.leaves_by(&format!(
        "UntagUser {}",
        case.current.user().unwrap().tags.keys().cloned().collect::<Vec<_>>().join(", ")
    ));
}

#[test]
fn an_intent_is_waited_out_so_that_its_key_is_not_taken_for_a_foreign_one() {
    for policy in [Delete, Retain] {
        let young = at_rest().leaving(policy).intent(secs(20), &["K1"]).key("K2", secs(20));
        assert_eq!(young.cleanup().effects, []);
        assert_eq!(young.cleanup().requeue_at, Some(now() + secs(40)));
        at_rest().leaving(policy).intent(secs(60), &["K1"]).key("K2", secs(59)).leaves_by("AbandonAttempt orphans: K2");
    }
    at_rest().leaving(Force).intent(secs(20), &["K1"]).key("K2", secs(20)).leaves_by("DeactivateKey K1 (Cleanup)");
}

#[test]
fn a_staged_key_is_abandoned_and_a_published_one_is_brought_to_its_end() {
    staged().leaves_by("AbandonAttempt orphans: K2");
    let published = staged().published("K2", secs(1));
    published.leaves_by("TagKey K2");
    published.tagged("K2").leaves_by("CloseJournal");
}

#[test]
fn in_a_deletion_too_orphans_go_only_behind_the_fence() {
    let mut case = at_rest().key("K2", mins(1)).abandoned(&["K2"]);
    case.leaves_by("TouchPublished");
    case = case.fenced();
    case.leaves_by("DeleteKey K2 (Orphan)");
    case = case.key_gone("K2").current(|current| _ = current.deleted_keys.insert("K2".into()));
    case.leaves_by("CloseJournal");
    at_rest().published("K2", secs(1)).key("K2", mins(1)).abandoned(&["K2"]).leaves_by("TagKey K2");
}

#[test]
fn a_user_that_is_not_ours_is_not_touched_and_does_not_hold_the_resource() {
    let foreign = || at_rest().user(|user| user.tags.clear()).unseen_for(mins(1));
    foreign().leaves_by("DeleteSecret");
    foreign().leaving(Retain).leaves_by("ReleaseSecret");
    foreign().leaving(Force).no_secret().leaves_by("RemoveFinalizer");
}

#[test]
fn a_secret_that_is_not_ours_stays() {
    without_key().user_absence().foreign_secret().leaves_by("RemoveFinalizer");
    without_key().user_absence().foreign_journal().leaves_by("RemoveFinalizer");
}

#[test]
fn a_journal_without_a_user_is_closed() {
    at_rest().user_absence().no_secret().intent(secs(1), &[]).leaves_by("CloseJournal");
}

#[test]
fn a_user_that_is_not_seen_may_be_there_all_the_same() {
    let foreign = |case: Case| case.user(|user| user.tags.clear());
    for policy in [Delete, Retain, Force] {
        for unseen in [at_rest().user_absence(), foreign(at_rest()), without_key().user_absence().keyed("K2", secs(5))]
        {
            let unseen = |since| unseen.clone().leaving(policy).unseen_for(since);
            let plan = unseen(secs(20)).cleanup();
            assert_eq!((plan.effects, plan.requeue_at), (Vec::new(), Some(now() + secs(40))), "{policy:?}");
            assert!(plan.user.unwrap().message.contains("deploy-cycle"), "whose absence is waited for");
            assert_ne!(words(&unseen(secs(60)).cleanup()), "nothing");
            // A clock that was set back.
            assert_eq!(unseen(secs(-20)).cleanup().requeue_at, Some(now() + secs(60)));
        }
    }
}

#[test]
fn what_was_found_to_block_goes_before_the_user() {
    let mut case = without_key().user(|user| {
        user.grants.as_mut().unwrap().groups.insert("g".into());
        user.deletion_blockers = Some(vec![DeletionBlocker::LoginProfile, DeletionBlocker::SshKey("S".into())]);
    });
    case.leaves_by("RemoveFromGroup g");
    case = case.user(|user| user.grants.as_mut().unwrap().groups.clear());
    case.leaves_by("RemoveDeletionBlocker console password");
    case = case.user(|user| _ = user.deletion_blockers.as_mut().unwrap().remove(0));
    case.leaves_by("RemoveDeletionBlocker SSH key S");
    case.user(|user| user.deletion_blockers = Some(Vec::new())).leaves_by("DeleteUser");
}
