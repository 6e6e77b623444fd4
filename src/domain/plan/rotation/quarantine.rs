//! AWS has found an access key of the user in public and attached its quarantine policy: what follows, by policy.
//!
//! The policy is never detached by us, so that it stays attached while what was to be done has long been done. What tells
//! the two apart is a date on the user: when the quarantine was first seen. Keys made until then are bad, keys made later
//! are not, and nothing has to be remembered of what was done already.

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Note, RotationInput, Step};
use crate::{
    api::{Reason, well_known},
    domain::{
        current_state::{AccessKey, IamUser},
        dates::saturating_add,
        desired::OnQuarantine,
        policy,
        secret::PublishedFacts,
    },
};

/// Clocks of one moment may differ by a little.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_mins(1);

pub(super) fn date(scene: &RotationInput<'_>) -> Option<Step> {
    let grants = scene.user.grants.as_ref()?;
    let quarantined = grants.attached.iter().any(|arn| policy::is_quarantine(arn));
    if quarantined && scene.desired.on_quarantine == OnQuarantine::Rotate && scene.dated().is_none() {
        // Keys are dated in whole seconds.
        let now = Timestamp::from_second(scene.now.as_second()).unwrap_or(scene.now);
        return Some(Step::Do(Effect::RecordQuarantine(now)));
    }
    let over = !quarantined && scene.user.tags.contains_key(well_known::TAG_QUARANTINED_AT);
    over.then_some(Step::Do(Effect::ClearQuarantine))
}

impl RotationInput<'_> {
    /// Whether this quarantine asks for that.
    pub(super) fn quarantine_asks_for(&self, what: OnQuarantine) -> bool {
        self.desired.on_quarantine == what && !attached(self.user).is_empty()
    }

    /// What the user's tag says. One that cannot be read is as good as none, and written again; so is one of the future,
    /// when the clock was ahead: all keys made until then would count as bad, one after the other.
    fn dated(&self) -> Option<Timestamp> {
        let date = self.user.tags.get(well_known::TAG_QUARANTINED_AT)?.parse().ok();
        date.filter(|date: &Timestamp| *date <= saturating_add(self.now, CLOCK_DIFFERENCE))
    }

    /// Keys made until then are to be replaced.
    pub(super) fn compromised_until(&self) -> Option<Timestamp> {
        self.dated().filter(|_| self.quarantine_asks_for(OnQuarantine::Rotate))
    }

    pub(super) fn is_compromised(&self, key: &AccessKey) -> bool {
        // A key of the future was made when the clock was ahead; nobody can tell whether before or after the date.
        let ahead = key.created_at > saturating_add(self.now, CLOCK_DIFFERENCE);
        self.compromised_until().is_some_and(|until| ahead || key.created_at <= until)
    }

    /// Whether the key in the Secret was there when the quarantine was seen.
    pub(super) fn published_is_compromised(&self, published: &PublishedFacts) -> bool {
        match self.user.key(&published.key_id) {
            Some(key) => self.is_compromised(key),
            // Not in the list yet: it was made a moment before it was published.
            None => self.compromised_until().is_some_and(|until| published.published_at <= until),
        }
    }

    /// A bad key has no overlap: it goes as soon as a good one works in its place.
    pub(super) fn goes_at_once(&self, key: &AccessKey) -> bool {
        self.is_compromised(key) && self.working().is_some_and(|published| !self.published_is_compromised(published))
    }

    /// No key may be made in the second that the quarantine is dated with: it would count as a bad one.
    pub(super) fn after_the_date(&self) -> Option<Timestamp> {
        self.compromised_until()
            .map(|until| saturating_add(until, SignedDuration::from_secs(1)))
            .filter(|at| *at > self.now)
    }

    /// What a quarantine means and what to do.
    pub(super) fn quarantine_note(&self) -> Option<Note> {
        let done = match self.desired.on_quarantine {
            OnQuarantine::Alert => {
                "Nothing was done about its keys (onQuarantine: Alert): ask for a new one by the annotation awsdeploy.dev/rotate, or set spec.suspend to true"
            }
            OnQuarantine::Rotate => {
                "Every key of this operator that existed when it was seen is replaced and set Inactive without overlap (onQuarantine: Rotate)"
            }
            OnQuarantine::Suspend => {
                "All keys of this operator on the user are Inactive and kept until the policy is detached (onQuarantine: Suspend)"
            }
        };
        note(self.user, done, self.foreign())
    }
}

/// The quarantine policies that are attached; none while policies are not known.
pub(in crate::domain::plan) fn attached(user: &IamUser) -> Vec<&str> {
    let attached = user.grants.iter().flat_map(|grants| &grants.attached);
    attached.filter(|arn| policy::is_quarantine(arn)).map(String::as_str).collect()
}

/// What a quarantine means, what was done about the keys, and what to do; `None` without one.
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
        format!(". Keys of others are left alone and may be the leaked ones: {}", foreign.join(", "))
    };
    Some(Note::new(
        Reason::Quarantined,
        format!(
            "AWS has attached {} to the user: it found an access key of it in public, and denies what thieves do first, such as making users and instances. {done}{others}. Find the leak, look in CloudTrail for what was done with the key, answer AWS's support case, then have an AWS admin detach the policy; this operator never does",
            names.join(", "),
        ),
    ))
}
