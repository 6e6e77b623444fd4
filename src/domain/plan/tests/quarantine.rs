//! The quarantine of a user by AWS.

use super::*;
use crate::{
    api::well_known,
    domain::{desired::OnQuarantine, plan::Freshness},
};

const V3: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";

impl Case {
    pub(super) fn quarantined(self, policy: OnQuarantine) -> Self {
        self.user(|user| _ = user.grants.as_mut().unwrap().attached.insert(V3.into()))
            .desired(|desired| desired.on_quarantine = policy)
    }

    /// The quarantine was first observed at this age.
    fn recorded(self, age: SignedDuration) -> Self {
        self.user(|user| _ = user.tags.insert(well_known::TAG_QUARANTINED_AT.into(), ago(age).to_string()))
    }

    /// Rotates for a quarantine that was first observed at this age.
    fn rotates(self, age: SignedDuration) -> Self {
        self.quarantined(OnQuarantine::Rotate).recorded(age)
    }
}

// --- every policy ----------------------------------------------------------------------------

#[test]
fn quarantine_note_names_policy_meaning_and_remedy() {
    assert_eq!(idle().plan().user, None);
    for (policy, action) in [
        (OnQuarantine::Alert, "Nothing was done"),
        (OnQuarantine::Rotate, "is replaced"),
        (OnQuarantine::Revoke, "are Inactive and kept until the policy is detached"),
    ] {
        let note = idle().key("F", days(1)).quarantined(policy).plan().user.unwrap();
        assert_eq!(note.reason, Reason::Quarantined);
        for part in [V3, action, "not touched and may be the leaked ones: F", "detach the policy"] {
            assert!(note.message.contains(part), "{}", note.message);
        }
        assert!(note.message.len() <= 1024, "an Event has at most 1 KiB: {}", note.message.len());
    }
}

#[test]
fn quarantine_alert_does_nothing() {
    idle().quarantined(OnQuarantine::Alert).does("nothing");
    in_overlap().quarantined(OnQuarantine::Alert).waits(hours(23), Reason::Overlap);
    // A record left from another policy means nothing then.
    idle().quarantined(OnQuarantine::Alert).recorded(hours(1)).does("nothing");
}

#[test]
fn quarantine_effects_need_live_policies() {
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
fn quarantine_is_recorded_once_and_cleared_when_it_ends() {
    let seen = idle().quarantined(OnQuarantine::Rotate);
    assert_eq!(seen.plan().effects.first(), Some(&Effect::RecordQuarantine(now())));
    seen.clone().every(days(10)).does("RecordQuarantine");
    seen.clone()
        .user(|user| _ = user.tags.insert(well_known::TAG_QUARANTINED_AT.into(), "?".into()))
        .does("RecordQuarantine");
    // Written while the clock was ahead: every new key would count as compromised.
    seen.recorded(-mins(10)).does("RecordQuarantine");
    idle().recorded(days(1)).does("ClearQuarantine");
    // Policies that were not read may still be attached.
    idle().recorded(days(1)).user(|user| user.grants = None).does("nothing");
}

#[test]
fn only_keys_older_than_the_quarantine_are_replaced() {
    idle().rotates(mins(5)).does("CreateKey beside K1");
    idle().rotates(days(10)).does("CreateKey beside K1");
    idle().rotates(days(10) + secs(1)).does("nothing");
    // Created while the clock was ahead.
    idle().user(|user| user.keys[0].created_at = now() + hours(1)).rotates(mins(5)).does("CreateKey beside K1");
    // The list does not show the new key yet.
    idle().key_gone("K1").published("K1", secs(5)).rotates(mins(5)).does("nothing");
}

#[test]
fn compromised_key_has_no_overlap() {
    let published = |age| in_overlap().user(|user| user.keys[1].created_at = ago(age)).published("K2", age);
    published(secs(20)).rotates(mins(5)).does("DeactivateKey K1 (Quarantined)");
    published(secs(20)).held_while_used(days(7)).rotates(mins(5)).does("DeactivateKey K1 (Quarantined)");
    published(secs(20)).rotates(mins(5)).inactive_since("K1", secs(10)).waits(mins(10) - secs(10), Reason::Overlap);
    // Not while the new one is only staged.
    staged().rotates(mins(5)).does("VerifyKey K2");
    staged().accepted("K2", 3).rotates(mins(5)).does("Publish K2");
}

#[test]
fn of_two_compromised_keys_the_older_is_deleted_at_once() {
    let both = in_overlap().rotates(mins(5));
    both.does("DeactivateKey K1 (Quarantined)");
    both.clone().inactive("K1").does("DeleteKey K1 (FreesSlot)");
    both.clone().key_gone("K1").untagged("K1").does("CreateKey beside K2");
    both.inactive("K2").does("DeleteKey K2 (FreesSlot)");
}

#[test]
fn foreign_key_in_the_slot_keeps_the_compromised_key() {
    idle().key("F", days(1)).rotates(mins(5)).waits(None, Reason::KeyQuotaExceeded);
}

/// AWS has published the leak, and a tenant that takes the right to write its Secret away keeps no key by that.
#[test]
fn leaked_key_that_cannot_be_replaced_has_its_overlap() {
    let leaked = |age| idle().immutable().rotates(age);
    leaked(hours(23)).waits(hours(1), Reason::SecretConflict);
    leaked(hours(24)).does("DeactivateKey K1 (Quarantined)");
    let unread = |case: Case| case.no_secret().current(|current| current.secrets_unread = true);
    unread(idle().rotates(hours(24))).does("DeactivateKey K1 (Quarantined)");
}

#[test]
fn no_key_is_created_in_the_second_of_the_quarantine() {
    idle().rotates(secs(0)).waits(secs(1), Reason::RotationPending);
    idle().rotates(secs(1)).does("CreateKey beside K1");
}

#[test]
fn quarantine_rotation_ignores_window_and_schedule() {
    let never = idle().declared_key(|key| key.schedule = RotationSchedule::Never);
    never.rotates(mins(5)).does("CreateKey beside K1");
    idle().window("0 2 * * 0", hours(4)).rotates(mins(5)).does("CreateKey beside K1");
}

#[test]
fn quarantine_rotation_backs_off_after_failures() {
    idle().rotates(mins(5)).backing_off(secs(19), Reason::Throttled).waits(secs(19), Reason::Throttled);
}

// --- Revoke ---------------------------------------------------------------------------------

#[test]
fn revoking_quarantine_deactivates_every_own_key_first() {
    let both = in_overlap().key("F", days(1)).policy_missing().quarantined(OnQuarantine::Revoke);
    both.does("DeactivateKey K1 (Quarantined)");
    let both = both.inactive("K1");
    both.does("DeactivateKey K2 (Quarantined)");
    let off = in_overlap().inactive("K1").inactive("K2").quarantined(OnQuarantine::Revoke);
    assert_eq!(off.plan().next_rotation, None);
    off.waits(None, Reason::Quarantined);
    assert_eq!(off.plan().key.map(|note| note.reason), Some(Reason::Quarantined));
    staged().accepted("K2", 3).inactive("K1").quarantined(OnQuarantine::Revoke).does("DeactivateKey K2 (Quarantined)");
}

#[test]
fn detached_quarantine_creates_a_new_key() {
    idle().inactive("K1").does("CreateKey beside K1");
    // spec.credentials still applies.
    idle().inactive("K1").credentials_revoked().waits(None, Reason::CredentialsRevoked);
    idle()
        .inactive("K1")
        .credentials_revoked()
        .quarantined(OnQuarantine::Revoke)
        .waits(None, Reason::CredentialsRevoked);
}
