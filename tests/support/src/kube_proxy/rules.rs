//! Fault rules: which calls, at which phase, with which effect.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
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
    entries: Arc<Mutex<Vec<(KubeRule, u64)>>>,
}

impl KubeRules {
    /// Appends a rule, which is active until [`KubeRules::clear`].
    pub fn add(&self, rule: KubeRule) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push((rule, 0));
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
        for (rule, _) in self.entries.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            for effect in &rule.effects {
                if let Effect::Pause(pause) = effect {
                    settle(pause);
                }
            }
        }
    }

    pub(super) fn effects_for(&self, phase: Phase, call: &KubeCall) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule, matched) in entries.iter_mut().filter(|(rule, _)| rule.phase == phase && rule.matches(call)) {
            *matched += 1;
            if rule.occurrence.includes(*matched) {
                effects.extend(rule.effects.iter().cloned());
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
