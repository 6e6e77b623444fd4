//! Dates that others can write: in Secrets, tags and status.

use proptest::prelude::*;

use super::{super::plan_revocation, *};
use crate::{
    api::class::OnRevoked,
    domain::{authorize::Revocation, plan::RevocationPolicy},
};

#[test]
fn future_date_in_secret_does_not_delay_retirement() {
    let old = idle().published("K1", days(200)).every(days(90));
    for age in [days(200), -days(36_500), secs(0), days(36_500)] {
        old.clone().says_published(age).does("CreateKey beside K1");
    }
    // An overlap of a day that began three days ago.
    let over = in_overlap().published("K2", days(3));
    for age in [days(3), -days(36_500), secs(0)] {
        over.clone().says_published(age).does("DeactivateKey K1 (OverlapEnded)");
    }
}

#[test]
fn late_publication_keeps_the_previous_keys_whole_overlap() {
    // The operator was away for three days with the key in its journal.
    let late = idle().key("K2", days(3)).keyed("K2", days(3)).published("K2", mins(1));
    late.does("TagKey K2");
    let tagged = idle().key("K2", days(3)).published("K2", mins(1)).tagged_since("K2", mins(1));
    tagged.waits(days(1) - mins(1), Reason::Overlap);
}

#[test]
fn key_published_again_from_its_journal_is_tagged_again() {
    let again = idle().key("K2", days(2)).keyed("K2", days(2)).published("K2", secs(5)).tagged_since("K2", days(2));
    let again = again.overlap(days(3));
    again.does("TagKey K2");
    again.clone().tagged_since("K2", secs(4)).does("CloseJournal");
    again.says_published(-days(36_500)).tagged_since("K2", secs(4)).does("CloseJournal");
    // Without an attempt the tag is kept: the date in the Secret may be written by hand.
    idle().published("K1", days(10)).says_published(secs(5)).does("nothing");
}

#[test]
fn past_date_in_secret_neither_rotates_nor_retires() {
    idle().published("K1", mins(5)).says_published(days(36_500)).every(hours(12)).does("nothing");
    in_overlap().says_published(days(36_500)).does("nothing");
}

/// Around now, and at both ends of the calendar.
fn dates() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
        Just(Timestamp::UNIX_EPOCH),
        (-400_i64..400).prop_map(|hour| now() + hours(hour)),
    ]
}

fn lengths() -> impl Strategy<Value = SignedDuration> {
    prop_oneof![Just(days(3_650)), Just(secs(1)), (1_i64..2_000).prop_map(hours)]
}

fn phases() -> impl Strategy<Value = Option<AttemptPhase>> {
    prop_oneof![
        Just(None),
        Just(Some(AttemptPhase::Intent { known: strings(&["K1"]) })),
        dates().prop_map(|keyed_at| Some(AttemptPhase::Keyed { key_id: "K2".into(), keyed_at })),
        Just(Some(AttemptPhase::Abandoned { orphans: strings(&["K2"]) })),
    ]
}

proptest! {
    #[test]
    fn no_date_causes_an_overflow(
        (published_at, started_at, made_at, tagged_at) in (dates(), dates(), dates(), dates()),
        (failed_at, rotated_at, inactive_since, used_at) in (dates(), dates(), dates(), dates()),
        (phase, overlap, hold, every) in (phases(), lengths(), lengths(), lengths()),
        (first_active, revoked, listed) in any::<(bool, bool, bool)>(),
        policy in prop_oneof![Just(DeletionPolicy::Delete), Just(DeletionPolicy::Retain), Just(DeletionPolicy::Force)],
        how in prop_oneof![Just(OnRevoked::Freeze), Just(OnRevoked::Deactivate), Just(OnRevoked::Delete)],
    ) {
        let mut case = idle().every(every).overlap(overlap).held_while_used(hold).facts(|facts| {
            facts.published_at = published_at;
            "K2".clone_into(&mut facts.key_id);
        });
        case = case.user(|user| {
            user.keys[0].active = first_active;
            if listed {
                user.keys.push(AccessKey { id: "K2".into(), active: true, created_at: made_at });
            }
            user.tags.extend(["K2", "K3"].map(|id| (key_tag(id), tagged_at.to_string())));
        });
        case.desired.credentials_revoked = revoked;
        case = case.current(|current| {
            current.last_used.insert("K1".into(), LastUse { used_at: Some(used_at), service: None, asked_at: rotated_at });
            current.key_backoff = Some(KeyBackoff { until: failed_at, reason: Reason::Throttled });
            current.hints.last_rotation = Some(rotated_at);
            current.hints.inactive_since.insert("K1".into(), inactive_since);
            if let Some(phase) = phase {
                let journal = Journal { started_at, rotate_request: None, phase };
                current.journal = JournalSecret::Attempt { attempt: ATTEMPT.into(), journal };
            }
        });
        case.leaving = policy;
        let _ = (case.plan(), case.cleanup());
        let refused = RevocationPolicy {
            revocation: Revocation { action: how, reason: None, until: None },
            on_quarantine: case.desired.on_quarantine,
            credentials_revoked: revoked,
        };
        let _ = plan_revocation(&case.desired.target, &refused, &case.current, now(), &case.settings);
    }
}
