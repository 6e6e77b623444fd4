//! Reports that a superseded key which is kept beyond its overlap is about to end: one rule for consumers that have not confirmed the
//! new key and for those that still use the previous one.

use jiff::{SignedDuration, Timestamp};

use super::RuleInput;
use crate::{
    api::Reason,
    domain::{current_state::AccessKey, dates::saturating_sub},
};

/// How long before its end a key is reported. An extension that is shorter was announced when it began.
const WARNINGS: [(SignedDuration, Reason); 2] = [
    (SignedDuration::from_hours(1), Reason::PreviousKeyEndingSoon),
    (SignedDuration::from_hours(24), Reason::PreviousKeyEnding),
];

/// Until when a superseded key is kept at most beyond its overlap.
struct Extension {
    begins: Timestamp,
    ends: Timestamp,
}

impl Extension {
    fn warnings(&self) -> impl Iterator<Item = (Timestamp, Reason)> {
        let length = self.ends.duration_since(self.begins);
        let announced = WARNINGS.into_iter().filter(move |(before, _)| length > *before);
        announced.map(|(before, reason)| (saturating_sub(self.ends, before), reason))
    }
}

/// Whether a note reports the end of a previous key.
pub(super) fn is_ending(reason: Reason) -> bool {
    WARNINGS.iter().any(|(_, warning)| *warning == reason)
}

impl RuleInput<'_> {
    /// Every extension runs at the same time, so the last one decides.
    fn extension(&self, key: &AccessKey) -> Option<Extension> {
        let begins = self.overlap_ends(key)?;
        let used = self.late_use(key).and_then(|_| self.hold_limit(key));
        let needed = [self.handover_limit(key), used].into_iter().flatten().max()?;
        Some(Extension { begins, ends: self.restart_limit(key).map_or(needed, |restart| restart.max(needed)) })
    }

    /// Whether the end of the key is near, although a consumer needs it.
    pub(super) fn ending(&self, key: &AccessKey) -> Option<Reason> {
        let passed = |(at, reason): (Timestamp, Reason)| (at <= self.now).then_some(reason);
        self.extension(key)?.warnings().find_map(passed)
    }

    /// When the end of a key is reported next.
    pub(in crate::domain::plan) fn next_ending_warning(&self) -> Option<Timestamp> {
        let kept = self.superseded().filter(|key| key.active);
        let warnings = kept
            .filter_map(|key| self.extension(key))
            .flat_map(|extension| extension.warnings().map(|(at, _)| at).collect::<Vec<_>>());
        warnings.filter(|at| *at > self.now).min()
    }
}
