//! What follows when AWS quarantines the user.

use super::*;
use crate::{
    api::well_known,
    domain::{desired::OnQuarantine, plan::Freshness},
};

const V3: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";

impl Case {
    fn quarantined(self, policy: OnQuarantine) -> Self {
        self.user(|user| _ = user.grants.as_mut().unwrap().attached.insert(V3.into()))
            .desired(|desired| desired.on_quarantine = policy)
    }

    /// The quarantine was first seen at this age.
    fn dated(self, age: SignedDuration) -> Self {
        self.user(|user| _ = user.tags.insert(well_known::TAG_QUARANTINED_AT.into(), ago(age).to_string()))
    }

    /// Rotates for a quarantine that was first seen at this age.
    fn rotates(self, age: SignedDuration) -> Self {
        self.quarantined(OnQuarantine::Rotate).dated(age)
    }
}

// --- whatever the policy ---------------------------------------------------------------------

#[test]
fn a_quarantine_is_told_with_its_policy_its_meaning_and_what_to_do() {
    assert_eq!(at_rest().plan().user, None);
    for (policy, told) in [
        (OnQuarantine::Alert, "Nothing was done"),
        (OnQuarantine::Rotate, "is replaced"),
        (OnQuarantine::Suspend, "are Inactive and kept until the policy is detached"),
    ] {
        let note = at_rest().key("F", days(1)).quarantined(policy).plan().user.unwrap();
        assert_eq!(note.reason, Reason::Quarantined);
        for part in [V3, told, "Keys of others are left alone and may be the leaked ones: F", "detach the policy"] {
            assert!(note.message.contains(part), "{}", note.message);
        }
        assert!(note.message.len() <= 1024, "an Event holds a kilobyte: {}", note.message.len());
    }
}

#[test]
fn an_alert_does_nothing() {
    at_rest().quarantined(OnQuarantine::Alert).does("nothing");
    in_overlap().quarantined(OnQuarantine::Alert).waits(hours(23), Reason::Overlap);
    // A date that is left from another policy means nothing then.
    at_rest().quarantined(OnQuarantine::Alert).dated(hours(1)).does("nothing");
}

#[test]
fn what_follows_from_a_quarantine_is_decided_on_policies_that_were_just_read() {
    let at = now();
    for effect in [
        Effect::RecordQuarantine(at),
        Effect::ClearQuarantine,
        Effect::DeactivateKey("K1".into(), RetireReason::Quarantined),
    ] {
        assert_eq!(effect.required_freshness(), Freshness::Live, "{effect}");
    }
}

// --- Rotate ----------------------------------------------------------------------------------

#[test]
fn a_quarantine_is_dated_once_and_the_date_goes_with_it() {
    let seen = at_rest().quarantined(OnQuarantine::Rotate);
    assert_eq!(seen.plan().effects.first(), Some(&Effect::RecordQuarantine(now())));
    seen.clone().every(days(10)).does("RecordQuarantine");
    seen.clone()
        .user(|user| _ = user.tags.insert(well_known::TAG_QUARANTINED_AT.into(), "?".into()))
        .does("RecordQuarantine");
    // Written when the clock was ahead: every new key would be a bad one.
    seen.dated(-mins(10)).does("RecordQuarantine");
    at_rest().dated(days(1)).does("ClearQuarantine");
    // Policies that were not read are not policies that are gone.
    at_rest().dated(days(1)).user(|user| user.grants = None).does("nothing");
}

#[test]
fn every_key_that_existed_then_is_replaced_and_the_new_one_is_not() {
    at_rest().rotates(mins(5)).does("CreateKey beside K1");
    at_rest().rotates(days(10)).does("CreateKey beside K1");
    at_rest().rotates(days(10) + secs(1)).does("nothing");
    // Made when the clock was ahead.
    at_rest().user(|user| user.keys[0].created_at = now() + hours(1)).rotates(mins(5)).does("CreateKey beside K1");
    // The list does not show the new key yet.
    at_rest().key_gone("K1").published("K1", secs(5)).rotates(mins(5)).does("nothing");
}

#[test]
fn the_bad_key_has_no_overlap_and_goes_when_the_new_one_is_published() {
    let published = |age| in_overlap().user(|user| user.keys[1].created_at = ago(age)).published("K2", age);
    published(secs(20)).rotates(mins(5)).does("DeactivateKey K1 (Quarantined)");
    published(secs(20)).held_while_used(days(7)).rotates(mins(5)).does("DeactivateKey K1 (Quarantined)");
    published(secs(20)).rotates(mins(5)).inactive_since("K1", secs(10)).waits(mins(10) - secs(10), Reason::Overlap);
    // Not while the new one is only staged.
    staged().rotates(mins(5)).does("VerifyKey K2");
    staged().accepted("K2", 3).rotates(mins(5)).does("Publish K2");
}

#[test]
fn with_both_slots_taken_by_bad_keys_the_older_one_makes_room_at_once() {
    let both = in_overlap().rotates(mins(5));
    both.does("DeactivateKey K1 (Quarantined)");
    both.clone().inactive("K1").does("DeleteKey K1 (FreesSlot)");
    both.clone().key_gone("K1").untagged("K1").does("CreateKey beside K2");
    both.inactive("K2").does("DeleteKey K2 (FreesSlot)");
}

#[test]
fn a_foreign_key_in_the_slot_is_told_and_the_bad_key_stays_until_there_is_another() {
    at_rest().key("F", days(1)).rotates(mins(5)).waits(None, Reason::KeyQuotaExceeded);
}

#[test]
fn no_key_is_made_in_the_second_of_the_date() {
    at_rest().rotates(secs(0)).waits(secs(1), Reason::RotationPending);
    at_rest().rotates(secs(1)).does("CreateKey beside K1");
}

#[test]
fn a_rotation_for_a_quarantine_waits_for_no_window_and_no_schedule() {
    let never = at_rest().declared_key(|key| key.schedule = RotationSchedule::Never);
    never.rotates(mins(5)).does("CreateKey beside K1");
    at_rest().window("0 2 * * 0", hours(4)).rotates(mins(5)).does("CreateKey beside K1");
}

#[test]
fn after_a_failure_it_waits_like_any_other() {
    at_rest().rotates(mins(5)).failed(3, secs(1)).waits(secs(19) + secs(2) * permille() / 1000, Reason::BackingOff);
}

// --- Suspend ---------------------------------------------------------------------------------

#[test]
fn a_quarantine_that_suspends_sets_every_key_of_ours_inactive_before_anything_else() {
    let both = in_overlap().key("F", days(1)).policy_missing().quarantined(OnQuarantine::Suspend);
    both.does("DeactivateKey K1 (Quarantined)");
    let both = both.inactive("K1");
    both.does("DeactivateKey K2 (Quarantined)");
    let off = in_overlap().inactive("K1").inactive("K2").quarantined(OnQuarantine::Suspend);
    off.waits(None, Reason::Quarantined);
    assert_eq!(off.plan().key.map(|note| note.reason), Some(Reason::Quarantined));
    staged().accepted("K2", 3).inactive("K1").quarantined(OnQuarantine::Suspend).does("DeactivateKey K2 (Quarantined)");
}

#[test]
fn when_the_policy_is_detached_a_new_key_is_made() {
    at_rest().inactive("K1").does("CreateKey beside K1");
    // The manifest's own suspension stays.
    at_rest().inactive("K1").suspended().waits(None, Reason::Suspended);
    at_rest().inactive("K1").suspended().quarantined(OnQuarantine::Suspend).waits(None, Reason::Suspended);
}
