//! A superseded key waits for consumers outside the cluster to confirm the new one, for a bounded time.

use proptest::prelude::*;

use super::{super::plan_revocation, *};
use crate::{
    api::class::OnRevoked,
    domain::{authorize::Revocation, handover::Consumer, plan::RevocationPolicy},
};

impl Case {
    fn consumer(self, name: &str, within: SignedDuration, confirmed: Option<&str>) -> Self {
        let consumer = Consumer { name: name.into(), within, confirmed: confirmed.map(Into::into) };
        self.declared_key(|key| key.handover.push(consumer))
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        let message = self.plan().rotation.message;
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

/// K2 was published at this age, K1 is superseded, the overlap is a day; `hub` has a week and confirmed this key.
fn published(age: SignedDuration, confirmed: Option<&str>) -> Case {
    in_overlap().published("K2", age).consumer("hub", days(7), confirmed)
}

#[test]
fn unconfirmed_key_waits_until_the_limit_and_is_reported() {
    for (age, wait, reason) in [
        (hours(1), days(6) + hours(23), Reason::AwaitingHandover),
        (days(2), days(5), Reason::AwaitingHandover),
        (days(7), hours(23), Reason::PreviousKeyEnding),
        (days(7) + hours(12), hours(11), Reason::PreviousKeyEnding),
        (days(7) + hours(23), hours(1), Reason::PreviousKeyEndingSoon),
        (days(8) - secs(1), secs(1), Reason::PreviousKeyEndingSoon),
    ] {
        let waiting = published(age, None);
        waiting.waits(wait, reason);
        assert_eq!(waiting.plan().deactivate_at["K1"], ago(age) + days(8), "{age}");
        waiting.says(&["access key K2 is not confirmed by: hub", "K1", "handover.awsdeploy.dev/<consumer>: K2"]);
    }
    published(days(8), None).does("DeactivateKey K1 (HandoverExpired)");
}

#[test]
fn confirmed_key_ends_with_the_overlap() {
    published(hours(23), Some("K2")).waits(hours(1), Reason::Overlap);
    published(days(1), Some("K2")).does("DeactivateKey K1 (OverlapEnded)");
    published(days(5), Some("K2")).does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn stale_confirmation_counts_for_nothing() {
    for stale in ["K1", "", "k2", "K2 "] {
        published(days(2), Some(stale)).waits(days(5), Reason::AwaitingHandover);
    }
}

#[test]
fn every_consumer_must_confirm_within_its_own_time() {
    let two = |age, hub, other| published(age, hub).consumer("other", days(2), other);
    two(days(1), None, None).waits(days(6), Reason::AwaitingHandover);
    two(days(1), None, None).says(&["not confirmed by: hub, other. "]);
    two(days(1), Some("K2"), None).waits(days(1), Reason::AwaitingHandover);
    two(days(2), Some("K2"), None).waits(hours(23), Reason::PreviousKeyEnding);
    two(days(2), Some("K2"), None).says(&["not confirmed by: other. "]);
    two(days(3), Some("K2"), None).does("DeactivateKey K1 (HandoverExpired)");
    two(days(3), None, None).waits(days(4), Reason::AwaitingHandover);
    two(days(3), Some("K2"), Some("K2")).does("DeactivateKey K1 (OverlapEnded)");
}

#[test]
fn handover_never_reaches_into_the_next_rotation() {
    let every = days(9);
    let due = RotationSchedule::Every(every).due(now(), permille()).unwrap().duration_since(now());
    let waiting = |age| published(age, None).declared_key(|key| key.handover[0].within = days(300)).every(every);
    assert_eq!(waiting(days(2)).plan().deactivate_at["K1"], ago(days(2)) + due);
    waiting(due).does("DeactivateKey K1 (HandoverExpired)");
    waiting(due - mins(30)).waits(mins(30), Reason::PreviousKeyEndingSoon);
    // It would end before the overlap does.
    let short = published(hours(1), None).every(hours(12));
    assert_eq!(short.plan().deactivate_at["K1"], now() + hours(23));
}

#[test]
fn extensions_run_at_the_same_time() {
    let held = |age| published(age, None).held_while_used(days(3)).last_used("K1", Some(hours(1)), hours(1));
    assert_eq!(held(days(2)).plan().deactivate_at["K1"], ago(days(2)) + days(8));
    held(days(2)).waits(days(5), Reason::AwaitingHandover);
    held(days(8)).does("DeactivateKey K1 (HandoverExpired)");
    let longer = published(days(3), None).held_while_used(days(20));
    let longer = longer.last_used("K1", Some(hours(1)), hours(1));
    longer.waits(days(5), Reason::AwaitingHandover);
    // Confirmed, but another consumer still uses the key.
    let used = published(days(2), Some("K2")).held_while_used(days(3)).last_used("K1", Some(hours(1)), hours(1));
    used.waits(days(1), Reason::StillUsed);
}

#[test]
fn key_with_two_extensions_is_reported_before_the_last_end() {
    let both = |age| published(age, None).held_while_used(days(3)).last_used("K1", Some(hours(1)), hours(1));
    both(days(3) + hours(12)).waits(days(3) + hours(12), Reason::AwaitingHandover);
    both(days(7)).waits(hours(23), Reason::PreviousKeyEnding);
    both(days(7)).says(&["not confirmed by: hub", "In addition: access key K1 was used at"]);
}

#[test]
fn short_extension_is_not_reported_before_its_end() {
    let short = |within, age| in_overlap().published("K2", age).consumer("hub", within, None);
    short(hours(12), hours(30)).waits(hours(5), Reason::AwaitingHandover);
    short(hours(12), hours(35)).waits(hours(1), Reason::PreviousKeyEndingSoon);
    short(hours(1), hours(24)).waits(hours(1), Reason::AwaitingHandover);
    short(hours(1), hours(25)).does("DeactivateKey K1 (HandoverExpired)");
}

#[test]
fn missing_confirmation_is_reported_after_the_key_is_gone() {
    let gone = |confirmed| published(days(9), confirmed).key_gone("K1").untagged("K1");
    gone(None).waits(gone(Some("K2")).plan().requeue_at.map(|at| at.duration_since(now())), Reason::HandoverOverdue);
    gone(None).says(&["not confirmed by: hub", "AWS refuses who does not use the new one"]);
    gone(Some("K2")).waits(gone(Some("K2")).plan().requeue_at.map(|at| at.duration_since(now())), Reason::Scheduled);
    // A first key has as long.
    let first = idle().published("K1", hours(2)).consumer("hub", days(7), None);
    first.waits(days(8) - hours(2), Reason::AwaitingHandover);
    assert_eq!(first.published("K1", days(8)).plan().rotation.reason, Reason::HandoverOverdue);
}

#[test]
fn overdue_handover_is_not_hidden_by_a_wait() {
    published(days(7) + hours(12), None).requested().waits(hours(11), Reason::PreviousKeyEnding);
    published(days(2), None).requested().waits(days(5), Reason::RotationPending);
}

#[test]
fn quarantine_and_suspension_wait_for_no_consumer() {
    published(hours(2), None).credentials_revoked().does("DeactivateKey K1 (CredentialsRevoked)");
    let quarantined = published(mins(1), None)
        .desired(|desired| desired.on_quarantine = desired::OnQuarantine::Rotate)
        .user(|user| {
            let grants = user.grants.get_or_insert_default();
            grants.attached.insert("arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3".into());
            user.tags.insert("awsdeploy.dev/quarantined-at".into(), ago(hours(2)).to_string());
        });
    quarantined.does("DeactivateKey K1 (Quarantined)");
}

#[test]
fn spec_that_no_class_allows_extends_nothing() {
    let frozen = RevocationPolicy {
        revocation: Revocation { action: OnRevoked::Freeze, reason: None, until: None },
        on_quarantine: idle().desired.on_quarantine,
        credentials_revoked: false,
    };
    let case = published(days(1), None);
    let plan = plan_revocation(&case.desired.target, &frozen, &case.current, now(), &case.settings);
    assert_eq!(next_effect(&plan), "DeactivateKey K1 (OverlapEnded)");
}

/// A tenant can delete the Secret so that each newer key is replaced: that must not keep the previous key.
#[test]
fn replaced_successor_does_not_renew_an_extension() {
    let replaced = |age| idle().superseded("K1", age).key("K3", mins(1)).tagged("K3").published("K3", mins(1));
    let awaited = |age| replaced(age).consumer("hub", days(7), None);
    let held = |age| replaced(age).held_while_used(days(3)).last_used("K1", Some(mins(1)), secs(30));
    let ends = |case: Case| case.plan().deactivate_at["K1"];
    assert_eq!(ends(awaited(days(3))), ago(days(3)) + days(1) + days(7));
    assert_eq!(ends(held(days(3))), ago(days(3)) + days(1) + days(3));
    // Only the time in which consumers read the newest key remains.
    let switched = ago(mins(1)) + idle().settings.consumer_switch_time();
    assert_eq!([ends(awaited(days(9))), ends(held(days(9)))], [switched; 2]);
}

#[test]
fn rotation_that_waits_for_its_slot_names_consumers() {
    let waiting = published(days(2), None).requested();
    let until = ago(days(2)) + days(8);
    waiting.says(&[&format!("the previous key K1 is set Inactive at {until}"), "K2 is not confirmed by: hub"]);
}

proptest! {
    /// Whatever is confirmed, held and due: not before the overlap, not after the longest extension.
    #[test]
    fn previous_key_ends_between_overlap_and_limit(
        age in 0_i64..230,
        overlap in 1_i64..100,
        consumers in prop::collection::vec((1_i64..400, prop_oneof![Just(None), Just(Some("K1")), Just(Some("K2"))]), 0..4),
        hold in prop::option::of(1_i64..400),
        used in prop::option::of(0_i64..400),
        every in prop::option::of(1_i64..500),
    ) {
        let mut case = in_overlap().published("K2", hours(age)).overlap(hours(overlap));
        for (number, (within, confirmed)) in consumers.iter().enumerate() {
            case = case.consumer(&format!("c{number}"), hours(*within), *confirmed);
        }
        if let Some(hold) = hold {
            case = case.held_while_used(hours(hold)).last_used("K1", used.map(hours), secs(0));
        }
        case = match every {
            Some(every) => case.every(hours(every)),
            None => case.declared_key(|key| key.schedule = RotationSchedule::Never),
        };
        let plan = case.plan();
        let unconfirmed: Vec<i64> =
            consumers.iter().filter(|(_, confirmed)| *confirmed != Some("K2")).map(|(within, _)| *within).collect();
        let (longest, ends) = (unconfirmed.iter().copied().max().unwrap_or(0).max(hold.unwrap_or(0)), overlap - age);
        let at = plan.deactivate_at["K1"].duration_since(now());
        prop_assert!(at >= hours(ends), "{at} is before the overlap ends, in {ends}h");
        prop_assert!(at <= hours(ends + longest), "{at} is beyond {longest}h after the overlap, which ends in {ends}h");
        if hold.is_none() && unconfirmed.is_empty() {
            prop_assert_eq!(at, hours(ends));
        }
        if let (None, Some(next)) = (hold, plan.next_rotation) {
            prop_assert!(at <= next.duration_since(now()).max(hours(ends)), "{at} is after the next rotation");
        }
        if let Some(requeue_at) = plan.requeue_at {
            prop_assert!(plan.effects.is_empty() && requeue_at > now());
        }
    }
}
