//! Nothing that a tenant writes keeps a key Active beyond the end of its overlap.

use super::{super::plan_revocation, *};
use crate::{
    api::{class::OnRevoked, well_known},
    domain::{authorize::Revocation, plan::RevocationPolicy},
};

fn deactivates(plan: &Plan, key: &str) -> bool {
    matches!(plan.effects.first(), Some(Effect::DeactivateKey(id, _)) if id == key)
}

/// K2 was published two days ago, and the overlap of K1, a day, is over.
fn after_overlap() -> Case {
    idle().key("K2", days(2)).tagged_since("K2", days(2)).published("K2", days(2))
}

/// Its Secret is the tenant's to edit, and a frozen resource gets no other key that would end the overlap.
#[test]
fn frozen_user_loses_its_previous_key_whatever_its_secret_is() {
    let frozen = RevocationPolicy {
        revocation: Revocation { action: OnRevoked::Freeze, reason: None, until: None },
        on_quarantine: idle().desired.on_quarantine,
        credentials_revoked: false,
    };
    for (what, case) in [
        ("unchanged", after_overlap()),
        ("without a valid MAC", after_overlap().unverified()),
        ("edited", after_overlap().edited()),
        ("deleted", after_overlap().no_secret()),
    ] {
        let plan = plan_revocation(&case.desired.target, &frozen, &case.current, now(), &case.settings);
        assert!(deactivates(&plan, "K1"), "{what}: {:?}", plan.effects);
    }
}

#[test]
fn live_user_loses_its_previous_key_whatever_its_secret_is() {
    for (what, case) in vec![
        ("unchanged", after_overlap()),
        ("without a valid MAC", after_overlap().unverified()),
        ("edited", after_overlap().edited()),
        ("deleted", after_overlap().no_secret()),
        ("of another owner", after_overlap().foreign_secret()),
        ("immutable", after_overlap().immutable()),
        ("unreadable", after_overlap().no_secret().current(|current| current.secrets_unread = true)),
        ("beside an unknown journal", after_overlap().unknown_journal()),
        ("an earlier one", after_overlap().superseded("K1", days(2)).published_again("K1", days(10))),
    ] {
        let plan = case.plan();
        assert!(deactivates(&plan, "K1"), "{what}: {:?}", plan.effects);
    }
}

/// The spec of a resource that is not allowed is not believed; the tag of its user is.
#[test]
fn frozen_user_keeps_its_previous_key_for_the_recorded_overlap() {
    let frozen = RevocationPolicy {
        revocation: Revocation { action: OnRevoked::Freeze, reason: None, until: None },
        on_quarantine: idle().desired.on_quarantine,
        credentials_revoked: false,
    };
    let plan = |case: &Case| plan_revocation(&case.desired.target, &frozen, &case.current, now(), &case.settings);
    let recorded = |overlap: &str| {
        let tag = (well_known::TAG_OVERLAP.to_owned(), overlap.to_owned());
        after_overlap().overlap(days(3_650)).user(|user| user.tags.extend([tag]))
    };
    let kept = plan(&recorded("PT72H"));
    assert_eq!((kept.effects.len(), kept.requeue_at), (0, Some(now() + days(1))), "{kept:?}");
    assert_eq!(kept.deactivate_at.get("K1"), Some(&(now() + days(1))), "the status reports it");
    for overlap in ["PT48H", "PT1S", "-PT72H"] {
        assert!(deactivates(&plan(&recorded(overlap)), "K1"), "{overlap}");
    }
    // Only an AWS admin can remove the tag.
    assert_eq!(plan(&recorded("a day")).effects, []);
}

/// K1 was superseded by K2 an hour ago and has a day; the Secret with K1 came back from a backup.
fn restored() -> Case {
    in_overlap().superseded("K1", hours(1)).published_again("K1", days(10))
}

#[test]
fn restored_secret_is_replaced_before_its_key_ends() {
    // The check of a new key takes up to 5 minutes, and consumers about 16 to read it.
    let needed = restored().settings.consumer_switch_time() + mins(5);
    restored().waits(hours(23) - needed, Reason::RotationPending);
    restored().requested().waits(hours(23) - needed, Reason::RotationPending);
    let late = || in_overlap().published("K2", hours(24) - mins(10)).superseded("K1", hours(24) - mins(10));
    let late = || late().published_again("K1", days(10));
    late().does("DeactivateKey K2 (FreesSlot)");
    late().inactive("K2").does("DeleteKey K2 (FreesSlot)");
    late().key_gone("K2").untagged("K2").does("CreateKey beside K1");
    let replaced = late().key_gone("K2").untagged("K2").key("K3", mins(1)).tagged("K3").published("K3", secs(30));
    // The key was late: consumers have at least the time to read it.
    let switched = replaced.settings.consumer_switch_time() - secs(30);
    replaced.waits(switched, Reason::Overlap);
    // Put back when its overlap is over: nothing is freed for it.
    let over = idle().superseded("K1", days(2)).key("K3", mins(1)).tagged("K3").published("K3", secs(30));
    over.published_again("K1", days(10)).waits(switched, Reason::Overlap);
    // Put back once more: its end stays.
    let again = replaced.published_again("K1", days(10));
    assert_eq!(again.plan().deactivate_at.get("K1"), Some(&(now() + switched)));
}

#[test]
fn key_whose_first_successor_was_lost_has_time_to_switch() {
    let lost = idle().superseded("K1", days(2)).key("K3", mins(1)).tagged("K3").published("K3", mins(1));
    lost.waits(lost.settings.consumer_switch_time() - mins(1), Reason::Overlap);
    lost.published("K3", hours(1)).does("DeactivateKey K1 (OverlapEnded)");
}

/// A tag of the resource that cannot be recorded in its status, because a tenant changes it all the time.
#[test]
fn superseded_key_ends_before_the_status_is_written() {
    let unrecorded = after_overlap().desired(|desired| _ = desired.tags.insert("team".into(), "a".into()));
    unrecorded.does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn superseded_key_ends_where_no_successor_can_follow() {
    let lost = |age| idle().superseded("K1", age).foreign_secret();
    lost(hours(23)).waits(hours(1), Reason::SecretConflict);
    lost(hours(24)).does("DeactivateKey K1 (OverlapEnded)");
    // Otherwise it is what consumers have until there is another one.
    idle().superseded("K1", days(2)).no_secret().does("CreateKey beside K1");
}

#[test]
fn inactive_key_beside_a_restored_one_leaves_its_slot() {
    let restored = || after_overlap().superseded("K1", days(2)).published_again("K1", days(10)).requested();
    restored().inactive_since("K2", mins(10)).does("DeleteKey K2 (FreesSlot)");
    restored().inactive_since("K2", mins(9)).waits(mins(1), Reason::RotationPending);
}

#[test]
fn frozen_user_keeps_a_key_for_its_longest_extension() {
    let key = idle().held_while_used(days(7)).desired.key.unwrap();
    assert_eq!(key.longest_overlap(&idle().settings), days(8));
}
