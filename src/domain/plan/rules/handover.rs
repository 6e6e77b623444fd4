//! Keeps a superseded key Active until consumers outside the cluster have confirmed the new one, for a bounded time. Such a consumer
//! cannot read the Secret: a person or an agent hands the key over.

use jiff::Timestamp;

use super::{Note, RuleInput};
use crate::{
    api::Reason,
    domain::{current_state::AccessKey, dates::saturating_add, handover::Consumer},
};

/// A key that not all consumers have confirmed.
struct Handover<'a> {
    key_id: &'a str,
    /// The superseded key that they may use meanwhile.
    previous: Option<&'a AccessKey>,
    waiting: Vec<&'a Consumer>,
    limit: Timestamp,
}

impl RuleInput<'_> {
    /// Until when a superseded key waits at most for consumers that have not confirmed its successor.
    pub(super) fn handover_limit(&self, key: &AccessKey) -> Option<Timestamp> {
        let newer = self.successor(key)?;
        let within = self.desired_key()?.unconfirmed(&newer.id).map(|consumer| consumer.within).max()?;
        self.extended(key, within)
    }

    /// Also without a superseded key: a consumer that never got a key has none that works.
    fn handover(&self) -> Option<Handover<'_>> {
        let previous = self.superseded().find(|key| key.active);
        let key_id = match previous {
            Some(key) => &self.successor(key)?.id,
            None => &self.working()?.key_id,
        };
        let waiting: Vec<&Consumer> = self.desired_key()?.unconfirmed(key_id).collect();
        let within = waiting.iter().map(|consumer| consumer.within).max()?;
        let limit = if let Some(key) = previous {
            self.extended(key, within)?
        } else {
            let overlap_ends = saturating_add(self.current.publication_time(self.now)?, self.overlap()?);
            self.before_next_rotation(overlap_ends, saturating_add(overlap_ends, within))
        };
        Some(Handover { key_id, previous, waiting, limit })
    }

    /// The state of a handover that is not complete. Each turn for the worse is another reason, and so another Event.
    pub(super) fn handover_note(&self) -> Option<Note> {
        let handover = self.handover()?;
        let Handover { key_id, previous, waiting, limit } = handover;
        let reason = if limit <= self.now {
            Reason::HandoverOverdue
        } else {
            previous.and_then(|key| self.ending(key)).unwrap_or(Reason::AwaitingHandover)
        };
        let names = waiting.iter().map(|consumer| consumer.name.as_str()).collect::<Vec<_>>().join(", ");
        let confirm = format!("confirm it with the annotation handover.awsdeploy.dev/<consumer>: {key_id}");
        let until = previous.and_then(|key| Some((&key.id, self.retires_at(key)?)));
        let end = match (until, reason) {
            (Some((id, until)), Reason::AwaitingHandover) => {
                format!("Access key {id} stays Active for them until {until} at most; {confirm}")
            }
            (Some((id, until)), _) => format!(
                "Access key {id} is set Inactive at {until}, and AWS then refuses who still uses it. Give them the new key, then {confirm}"
            ),
            (None, Reason::AwaitingHandover) => format!("No previous key is Active; {confirm}, until {limit}"),
            (None, _) => format!(
                "Their time was over at {limit}, and no previous key is Active: AWS refuses who does not use the new one. Give them the new key, then {confirm}"
            ),
        };
        Some(Note::new(reason, format!("access key {key_id} is not confirmed by: {names}. {end}")))
    }

    /// When the time of an incomplete handover is over.
    pub(in crate::domain::plan) fn handover_deadline(&self) -> Option<Timestamp> {
        self.handover().map(|handover| handover.limit).filter(|limit| *limit > self.now)
    }

    /// Whether the key retires although consumers may still use it.
    pub(super) fn retires_during_handover(&self, key: &AccessKey) -> bool {
        self.handover_limit(key).is_some()
    }
}
