//! AWS has found an access key of the user in public and attached its quarantine policy: what follows, by `onQuarantine`.
//!
//! The operator never detaches the policy, so it is still attached after the keys were replaced. A tag on the user records
//! when the quarantine was first observed: keys created until then are compromised, keys created later are not, and no
//! other state is needed.

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Note, RuleInput, Step};
use crate::{
    api::{Reason, well_known},
    domain::{
        current_state::{AccessKey, IamUser},
        dates::{floor, saturating_add},
        desired::OnQuarantine,
        policy,
        secret::PublishedFacts,
    },
};

/// Clocks of AWS and of the operator may differ by this much.
pub(super) const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

pub(super) fn record(input: &RuleInput<'_>) -> Option<Step> {
    let desired = input.desired()?;
    let grants = input.user.grants.as_ref()?;
    let quarantined = grants.attached.iter().any(|arn| policy::is_quarantine(arn));
    if quarantined && desired.on_quarantine == OnQuarantine::Rotate && input.recorded_at().is_none() {
        // IAM dates keys in whole seconds.
        return Some(Step::Do(Effect::RecordQuarantine(floor(input.now))));
    }
    let over = !quarantined && input.user.tags.contains_key(well_known::TAG_QUARANTINED_AT);
    over.then_some(Step::Do(Effect::ClearQuarantine))
}

impl RuleInput<'_> {
    /// Whether a live user is quarantined and its class wants this.
    pub(super) fn quarantine_asks_for(&self, action: OnQuarantine) -> bool {
        self.desired().is_some_and(|desired| desired.on_quarantine == action) && !attached(self.user).is_empty()
    }

    /// The time in the user's tag. A tag that cannot be parsed counts as none and is written again; so does a time in the
    /// future, from a clock that was ahead: every new key would count as compromised.
    fn recorded_at(&self) -> Option<Timestamp> {
        let date = self.user.tags.get(well_known::TAG_QUARANTINED_AT)?.parse().ok();
        date.filter(|date: &Timestamp| *date <= saturating_add(self.now, MAX_CLOCK_SKEW))
    }

    /// Keys created until then are compromised.
    pub(super) fn compromised_until(&self) -> Option<Timestamp> {
        self.recorded_at().filter(|_| self.quarantine_asks_for(OnQuarantine::Rotate))
    }

    pub(super) fn is_compromised(&self, key: &AccessKey) -> bool {
        // A key with a time in the future was created while the clock was ahead: it may be older than the quarantine.
        let ahead = key.created_at > saturating_add(self.now, MAX_CLOCK_SKEW);
        self.compromised_until().is_some_and(|until| ahead || key.created_at <= until)
    }

    /// Whether the published key existed when the quarantine was first observed.
    pub(super) fn published_is_compromised(&self, published: &PublishedFacts) -> bool {
        match self.user.key(&published.key_id) {
            Some(key) => self.is_compromised(key),
            // Not in IAM's list yet: it was created a moment before it was published.
            None => self.compromised_until().is_some_and(|until| published.published_at <= until),
        }
    }

    /// A compromised key has no overlap: it retires as soon as another key works in its place.
    pub(super) fn retires_at_once(&self, key: &AccessKey) -> bool {
        self.is_compromised(key) && self.successor(key).is_some_and(|newer| !self.is_compromised(newer))
    }

    /// When a new key may be created: one of the very second of the quarantine would count as compromised.
    pub(super) fn quarantine_pause_ends(&self) -> Option<Timestamp> {
        self.compromised_until()
            .map(|until| saturating_add(until, SignedDuration::from_secs(1)))
            .filter(|at| *at > self.now)
    }

    pub(in crate::domain::plan) fn quarantine_note(&self) -> Option<Note> {
        let done = match self.desired()?.on_quarantine {
            OnQuarantine::Alert => {
                "Nothing was done about its keys (onQuarantine: Alert): request a new one with the annotation awsdeploy.dev/rotate, or set spec.credentials to Revoked"
            }
            OnQuarantine::Rotate => {
                "Every key of this operator that existed then is replaced and set Inactive without overlap (onQuarantine: Rotate)"
            }
            OnQuarantine::Revoke => {
                "All keys of this operator on the user are Inactive and kept until the policy is detached (onQuarantine: Revoke)"
            }
        };
        note(self.user, done, self.foreign())
    }
}

/// The attached quarantine policies; none while policies are not known.
pub(in crate::domain::plan) fn attached(user: &IamUser) -> Vec<&str> {
    let attached = user.grants.iter().flat_map(|grants| &grants.attached);
    attached.filter(|arn| policy::is_quarantine(arn)).map(String::as_str).collect()
}

/// What a quarantine means, what was done about the keys, and what to do; `None` without a quarantine.
pub(in crate::domain::plan) fn note<'a>(
    user: &IamUser,
    done: &str,
    foreign: impl Iterator<Item = &'a AccessKey>,
) -> Option<Note> {
    let names = attached(user);
    if names.is_empty() {
        return None;
    }
    let foreign: Vec<&str> = foreign.map(|key| key.id.as_str()).collect();
    let others = if foreign.is_empty() {
        String::new()
    } else {
        format!(
            ". Keys that this operator did not create are not touched and may be the leaked ones: {}",
            foreign.join(", ")
        )
    };
    Some(Note::new(
        Reason::Quarantined,
        format!(
            "AWS has attached {} to the user: it found an access key of the user in public, and denies typical abuse, such as creating users and instances. {done}{others}. Find the leak, check in CloudTrail what was done with the key, answer AWS's support case, then have an AWS admin detach the policy; this operator never does",
            names.join(", "),
        ),
    ))
}
