//! Fault rules: which calls, at which phase, with which effect.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::call::KubeCall;
use crate::aws_proxy::{Occurrence, Pause, Phase};

/// Effect of a rule.
#[derive(Clone)]
pub(super) enum Effect {
    Drop,
    Delay(Duration),
    Answer(u16, &'static str),
    Pause(Pause),
    StaleRead,
}

/// One rule: `KubeRule::on("update", "secrets").nth(1).after_commit().drop_connection()`.
#[derive(Clone)]
#[must_use = "a rule does nothing until it is added to the rules of a proxy"]
pub struct KubeRule {
    verb: Option<String>,
    resource: Option<String>,
    name: Option<String>,
    mutating: Option<bool>,
    occurrence: Occurrence,
    lasts: Option<Duration>,
    phase: Phase,
    effects: Vec<Effect>,
}

impl KubeRule {
    fn matching(verb: Option<&str>, resource: Option<&str>, mutating: Option<bool>) -> Self {
        Self {
            verb: verb.map(str::to_owned),
            resource: resource.map(str::to_owned),
            name: None,
            mutating,
            occurrence: Occurrence::Always,
            lasts: None,
            phase: Phase::Before,
            effects: Vec::new(),
        }
    }

    /// Matches one verb on one resource; a subresource follows after a slash.
    pub fn on(verb: &str, resource: &str) -> Self {
        Self::matching(Some(verb), Some(resource), None)
    }

    /// Matches every verb on one resource.
    pub fn on_resource(resource: &str) -> Self {
        Self::matching(None, Some(resource), None)
    }

    /// Matches every mutating call.
    pub fn on_mutating() -> Self {
        Self::matching(None, None, Some(true))
    }

    /// Matches every call.
    pub fn on_all() -> Self {
        Self::matching(None, None, None)
    }

    /// Only calls for the object with this name, or for those whose name begins with what is before a `*` at its end.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only the n-th matching call, counted from 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::Nth(n);
        self
    }

    /// Only the first n matching calls.
    pub fn first(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::First(n);
        self
    }

    /// Every n-th matching call.
    pub fn every(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::Every(n);
        self
    }

    /// Only for this time after the rule was added.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasts = Some(time);
        self
    }

    /// Applies after the API server has committed the call. Rejected calls do not match.
    pub fn after_commit(mut self) -> Self {
        self.phase = Phase::AfterCommit;
        self
    }

    fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Closes the connection without a response.
    pub fn drop_connection(self) -> Self {
        self.effect(Effect::Drop)
    }

    /// Delays the call.
    pub fn delay(self, time: Duration) -> Self {
        self.effect(Effect::Delay(time))
    }

    /// Responds with this status and reason: 409 `Conflict`, 410 `Expired`, 429 `TooManyRequests`, 503
    /// `ServiceUnavailable`, 504 `Timeout`.
    pub fn respond_with(self, status: u16, reason: &'static str) -> Self {
        self.effect(Effect::Answer(status, reason))
    }

    /// Holds the call.
    pub fn pause(self, pause: &Pause) -> Self {
        self.effect(Effect::Pause(pause.clone()))
    }

    /// Serves a read with the previous response to the same read, like a lagging API server.
    pub fn stale_read(self) -> Self {
        self.effect(Effect::StaleRead)
    }

    fn matches(&self, call: &KubeCall) -> bool {
        self.verb.as_ref().is_none_or(|verb| verb == call.verb)
            && self.resource.as_ref().is_none_or(|resource| *resource == call.resource)
            && self.name.as_deref().is_none_or(|name| is_name(name, call.name.as_deref()))
            && self.mutating.is_none_or(|mutating| mutating == call.is_mutating())
    }
}

/// The rules of one proxy, in the order they were added. Clones share them.
#[derive(Clone, Default)]
pub struct KubeRules {
    entries: Arc<Mutex<Vec<Entry>>>,
}

struct Entry {
    rule: KubeRule,
    added_at: Instant,
    matched: u64,
}

impl Entry {
    fn matches(&self, phase: Phase, call: &KubeCall) -> bool {
        let is_over = self.rule.lasts.is_some_and(|time| self.added_at.elapsed() >= time);
        !is_over && self.rule.phase == phase && self.rule.matches(call)
    }
}

impl KubeRules {
    /// Appends a rule, which is active until [`KubeRules::clear`].
    pub fn add(&self, rule: KubeRule) {
        let entry = Entry { rule, added_at: Instant::now(), matched: 0 };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Adds a rule that holds matching calls, and returns the handle to wait for and release them.
    #[must_use = "a held call is blocked until the handle releases it"]
    pub fn pause(&self, rule: KubeRule) -> Pause {
        let pause = Pause::default();
        self.add(rule.pause(&pause));
        pause
    }

    /// Removes all rules and releases held calls.
    pub fn clear(&self) {
        self.remove_all(Pause::release);
    }

    /// Removes all rules and closes the connections of held calls.
    pub(super) fn abort(&self) {
        self.remove_all(Pause::abort);
    }

    fn remove_all(&self, settle: fn(&Pause)) {
        for entry in self.entries.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            for effect in &entry.rule.effects {
                if let Effect::Pause(pause) = effect {
                    settle(pause);
                }
            }
        }
    }

    pub(super) fn effects_for(&self, phase: Phase, call: &KubeCall) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.iter_mut().filter(|entry| entry.matches(phase, call)) {
            entry.matched += 1;
            if entry.rule.occurrence.includes(entry.matched) {
                effects.extend(entry.rule.effects.iter().cloned());
            }
        }
        effects
    }
}
fn is_name(wanted: &str, name: Option<&str>) -> bool {
    match (wanted.strip_suffix('*'), name) {
        (Some(start), Some(name)) => name.starts_with(start),
        (None, Some(name)) => name == wanted,
        (_, None) => false,
    }
}
