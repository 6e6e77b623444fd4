//! Fault rules: the calls that they match, the phase, and the injected fault.
//!
//! A rule matches by action, user, key, caller and occurrence, acts before the call reaches AWS or after AWS has
//! committed it, and has one or more effects. A new effect is a variant of [`Effect`], a method of [`Rule`] and, if it
//! changes how the call is processed, a field of [`Flags`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde::Serialize;
use tokio::sync::watch;

use super::call::Call;
use super::pause::Pause;
use super::response::{AwsError, AwsResponse};

/// Identifies a rule of one proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RuleId(pub u64);

/// Whether a rule acts before or after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the call reaches AWS.
    Before,
    /// After AWS has performed the call; only the response is affected. Calls that AWS rejected do not match.
    AfterCommit,
}

/// Which of the matching calls a rule acts on, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occurrence {
    Always,
    Nth(u64),
    First(u64),
    From(u64),
    Every(u64),
}

impl Occurrence {
    pub(crate) fn includes(self, count: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(n) => count == n,
            Self::First(n) => count <= n,
            Self::From(n) => count >= n,
            Self::Every(n) => n != 0 && count.is_multiple_of(n),
        }
    }
}

/// Modifies a response.
pub type Rewrite = Arc<dyn Fn(&Call, &mut AwsResponse) + Send + Sync>;

/// The injected fault.
#[derive(Clone)]
pub(super) enum Effect {
    Drop,
    Delay(Duration),
    Respond(AwsError),
    Deny,
    Substitute(AwsResponse),
    Pause(Pause),
    Rewrite(Rewrite),
    StaleRead(Duration),
    HideNewKeys(Duration),
    ClockSkew(SignedDuration),
    AllowThirdKey,
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop the connection"),
            Self::Delay(time) => write!(f, "delay by {time:?}"),
            Self::Respond(error) => write!(f, "respond with {} {}", error.status, error.code),
            Self::Deny => f.write_str("respond with AccessDenied"),
            Self::Substitute(response) => write!(f, "respond with {} of another server", response.status),
            Self::Pause(_) => f.write_str("hold the call"),
            Self::Rewrite(_) => f.write_str("rewrite the response"),
            Self::StaleRead(time) => write!(f, "repeat the previous response if it is younger than {time:?}"),
            Self::HideNewKeys(time) => write!(f, "hide keys younger than {time:?}"),
            Self::ClockSkew(skew) => write!(f, "skew the clock by {skew:?}"),
            Self::AllowThirdKey => f.write_str("allow a third access key"),
        }
    }
}

/// Effects of the matching rules that change how a call is processed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    pub(super) stale_read: Option<Duration>,
    pub(super) hide_new_keys: Option<Duration>,
    pub(super) clock_skew: SignedDuration,
    pub(super) allow_third_key: bool,
}

impl Effect {
    /// Whether the effect sets a field of [`Flags`].
    fn is_flag(&self) -> bool {
        matches!(self, Self::StaleRead(_) | Self::HideNewKeys(_) | Self::ClockSkew(_) | Self::AllowThirdKey)
    }
}

/// A fault rule, built from a matcher and effects:
/// `Rule::on("CreateAccessKey").nth(1).after_commit().drop_connection()`.
#[derive(Clone, Debug)]
#[must_use = "a rule does nothing until it is added to the rules of a proxy"]
pub struct Rule {
    actions: Vec<String>,
    mutating: Option<bool>,
    user: Option<String>,
    access_key: Option<String>,
    caller: Option<String>,
    occurrence: Occurrence,
    lasts: Option<Duration>,
    phase: Phase,
    effects: Vec<Effect>,
}

impl Rule {
    fn matching(actions: Vec<String>, mutating: Option<bool>) -> Self {
        Self {
            actions,
            mutating,
            user: None,
            access_key: None,
            caller: None,
            occurrence: Occurrence::Always,
            lasts: None,
            phase: Phase::Before,
            effects: Vec::new(),
        }
    }

    /// Matches one action.
    pub fn on(action: &str) -> Self {
        Self::matching(vec![action.to_owned()], None)
    }

    /// Matches any of these actions.
    pub fn on_any_of<S: AsRef<str>>(actions: impl IntoIterator<Item = S>) -> Self {
        Self::matching(actions.into_iter().map(|action| action.as_ref().to_owned()).collect(), None)
    }

    /// Matches every call.
    pub fn on_all() -> Self {
        Self::matching(Vec::new(), None)
    }

    /// Matches every mutating call.
    pub fn on_mutating() -> Self {
        Self::matching(Vec::new(), Some(true))
    }

    /// Matches every read.
    pub fn on_reads() -> Self {
        Self::matching(Vec::new(), Some(false))
    }

    /// Restricts the rule to calls about this user.
    pub fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    /// Restricts the rule to calls about this access key.
    pub fn access_key(mut self, id: &str) -> Self {
        self.access_key = Some(id.to_owned());
        self
    }

    /// Restricts the rule to calls signed with this key.
    pub fn caller(mut self, key_id: &str) -> Self {
        self.caller = Some(key_id.to_owned());
        self
    }

    /// Acts on the n-th matching call only, counted from 1 since the rule was added.
    pub fn nth(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::Nth(n);
        self
    }

    /// Acts on the first n matching calls only.
    pub fn first(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::First(n);
        self
    }

    /// Acts on the n-th matching call and all later ones.
    pub fn from(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::From(n);
        self
    }

    /// Acts on every n-th matching call.
    pub fn every(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::Every(n);
        self
    }

    /// Matches only for this time after the rule was added.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasts = Some(time);
        self
    }

    /// Acts before the call reaches AWS. The default.
    pub fn before(mut self) -> Self {
        self.phase = Phase::Before;
        self
    }

    /// Acts after AWS has performed the call.
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

    /// Waits before the next effect or the call.
    pub fn delay(self, time: Duration) -> Self {
        self.effect(Effect::Delay(time))
    }

    /// Responds with this error.
    pub fn respond_with(self, error: AwsError) -> Self {
        self.effect(Effect::Respond(error))
    }

    /// Responds with `Throttling`.
    pub fn throttle(self) -> Self {
        self.respond_with(AwsError::throttling())
    }

    /// Responds with `AccessDenied` and the message of AWS for the call.
    pub fn deny(self) -> Self {
        self.effect(Effect::Deny)
    }

    /// Responds with an HTML page and this status, as a load balancer or a proxy does.
    pub fn html(self, status: u16) -> Self {
        self.effect(Effect::Substitute(AwsResponse::html(status)))
    }

    /// Responds with status 200, no body and no request id, as a proxy or a captive portal does.
    pub fn empty(self) -> Self {
        self.effect(Effect::Substitute(AwsResponse::empty()))
    }

    /// Responds with `RequestExpired`.
    pub fn request_expired(self) -> Self {
        self.respond_with(AwsError::request_expired())
    }

    /// Holds the call; see [`Pause`]. [`Rules::pause`] creates the handle too.
    pub fn pause(self, pause: &Pause) -> Self {
        self.effect(Effect::Pause(pause.clone()))
    }

    /// Modifies the response before it is sent, whether a success or an error; with [`Rule::after_commit`] successes
    /// only.
    pub fn rewrite(self, change: impl Fn(&Call, &mut AwsResponse) + Send + Sync + 'static) -> Self {
        self.effect(Effect::Rewrite(Arc::new(change)))
    }

    // The effects below change how a call is processed, so they do nothing with `after_commit`.

    /// Repeats the previous response to the same read if it is younger than `lag`, as an eventually consistent replica
    /// does.
    pub fn stale_read(self, lag: Duration) -> Self {
        self.effect(Effect::StaleRead(lag))
    }

    /// Omits keys younger than this from `ListAccessKeys`.
    pub fn hide_new_keys(self, younger_than: Duration) -> Self {
        self.effect(Effect::HideNewKeys(younger_than))
    }

    /// Skews the clock of AWS: the `Date` header, the dates in responses, and the age of signatures.
    pub fn clock_skew(self, skew: SignedDuration) -> Self {
        self.effect(Effect::ClockSkew(skew))
    }

    /// Lets `CreateAccessKey` exceed the quota of two, as concurrent calls on real accounts do
    /// (hashicorp/terraform-provider-aws#39693 reports eight keys).
    pub fn allow_third_key(self) -> Self {
        self.effect(Effect::AllowThirdKey)
    }

    fn for_each_pause(&self, act: fn(&Pause)) {
        for effect in &self.effects {
            if let Effect::Pause(pause) = effect {
                act(pause);
            }
        }
    }

    fn matches(&self, call: &MatchInput<'_>) -> bool {
        fn same(expected: Option<&String>, found: Option<&str>) -> bool {
            expected.is_none_or(|expected| Some(expected.as_str()) == found)
        }
        (self.actions.is_empty() || self.actions.contains(&call.call.action))
            && self.mutating.is_none_or(|mutating| mutating == call.call.is_mutating())
            && same(self.user.as_ref(), call.user)
            && same(self.access_key.as_ref(), call.access_key)
            && same(self.caller.as_ref(), call.caller)
    }
}

/// The facts that rules match on.
#[derive(Clone, Copy)]
pub(super) struct MatchInput<'a> {
    pub(super) call: &'a Call,
    pub(super) user: Option<&'a str>,
    pub(super) access_key: Option<&'a str>,
    pub(super) caller: Option<&'a str>,
}

/// Hit counts of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hits {
    /// Number of matching calls.
    pub matched: u64,
    /// Number of calls that the rule acted on: the matching calls of its occurrence.
    pub acted: u64,
}

struct Entry {
    id: RuleId,
    rule: Rule,
    added_at: Instant,
    hits: Hits,
}

impl Entry {
    fn matches(&self, call: &MatchInput<'_>) -> bool {
        self.rule.lasts.is_none_or(|time| self.added_at.elapsed() < time) && self.rule.matches(call)
    }
}

/// The rules of one proxy, in the order they were added. Clones share them.
#[derive(Clone)]
pub struct Rules {
    inner: Arc<Inner>,
}

struct Inner {
    entries: Mutex<Vec<Entry>>,
    // Counts of removed rules: tests remove a fault and then check that it was injected.
    retired: Mutex<HashMap<RuleId, Hits>>,
    next: AtomicU64,
    version: watch::Sender<u64>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                entries: Mutex::default(),
                retired: Mutex::default(),
                next: AtomicU64::new(1),
                version: watch::Sender::new(0),
            }),
        }
    }
}

impl Rules {
    /// Adds a rule after the others. It remains in effect until it is removed.
    #[allow(clippy::must_use_candidate, reason = "most tests do not check the hit count")]
    pub fn add(&self, rule: Rule) -> RuleId {
        let id = RuleId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        self.lock().push(Entry { id, rule, added_at: Instant::now(), hits: Hits::default() });
        id
    }

    /// Adds a rule that holds matching calls, and returns the handle to wait for them and to release them.
    #[must_use = "a call is held until the handle releases it"]
    pub fn pause(&self, rule: Rule) -> Pause {
        let pause = Pause::default();
        self.add(rule.pause(&pause));
        pause
    }

    /// Removes a rule. Returns whether it existed.
    #[allow(clippy::must_use_candidate, reason = "removing a rule twice is not an error")]
    pub fn remove(&self, id: RuleId) -> bool {
        let mut entries = self.lock();
        let Some(index) = entries.iter().position(|entry| entry.id == id) else { return false };
        let entry = entries.remove(index);
        self.retired().insert(id, entry.hits);
        true
    }

    /// Removes all rules and releases held calls.
    pub fn clear(&self) {
        self.retire_all(Pause::release);
    }

    /// Removes all rules and closes the connections of held calls.
    pub(super) fn abort_all(&self) {
        self.retire_all(Pause::abort);
    }

    fn retire_all(&self, settle: fn(&Pause)) {
        for entry in self.lock().drain(..) {
            self.retired().insert(entry.id, entry.hits);
            entry.rule.for_each_pause(settle);
        }
    }

    /// Releases or aborts the calls that a rule holds. Returns whether the rule exists.
    pub(super) fn settle(&self, id: RuleId, settle: fn(&Pause)) -> bool {
        let entries = self.lock();
        let Some(entry) = entries.iter().find(|entry| entry.id == id) else { return false };
        entry.rule.for_each_pause(settle);
        true
    }

    /// Hit counts of a rule, also after its removal.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> Hits {
        let live = self.lock().iter().find(|entry| entry.id == id).map(|entry| entry.hits);
        live.or_else(|| self.retired().get(&id).copied()).unwrap_or_default()
    }

    /// Waits until a rule has acted `n` times; `false` after the time limit.
    pub async fn wait_for_hits(&self, id: RuleId, n: u64, within: Duration) -> bool {
        let mut changes = self.inner.version.subscribe();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if self.hits(id).acted >= n {
                    return;
                }
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(within, wait).await.is_ok()
    }

    /// The rules with their debug output and hit counts.
    #[must_use]
    pub fn list(&self) -> Vec<(RuleId, String, Hits)> {
        self.lock().iter().map(|entry| (entry.id, format!("{:?}", entry.rule), entry.hits)).collect()
    }

    /// Counts this call for every matching rule, and returns the effects of the rules that act on it.
    pub(super) fn consult(&self, phase: Phase, seen: MatchInput<'_>) -> Vec<(RuleId, Effect)> {
        let mut effects = Vec::new();
        let mut acted = false;
        for entry in self.lock().iter_mut().filter(|entry| entry.rule.phase == phase) {
            if !entry.matches(&seen) {
                continue;
            }
            entry.hits.matched += 1;
            if entry.rule.occurrence.includes(entry.hits.matched) {
                entry.hits.acted += 1;
                acted = true;
                effects.extend(entry.rule.effects.iter().map(|effect| (entry.id, effect.clone())));
            }
        }
        // Set flags first: a clock skew applies to the response of another rule too.
        effects.sort_by_key(|(_, effect)| !effect.is_flag());
        if acted {
            self.inner.version.send_modify(|version| *version += 1);
        }
        effects
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, HashMap<RuleId, Hits>> {
        self.inner.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn consult(rules: &Rules, phase: Phase, call: &Call) -> usize {
        let seen =
            MatchInput { call, user: call.user_name(), access_key: call.access_key_id(), caller: Some("testing") };
        rules.consult(phase, seen).len()
    }

    fn acted_on(rule: Rule, calls: &[&Call]) -> Vec<bool> {
        let rules = Rules::default();
        rules.add(rule);
        calls.iter().map(|call| consult(&rules, Phase::Before, call) > 0).collect()
    }

    #[test]
    fn rules_match_only_the_named_calls() {
        let create = Call::iam("CreateAccessKey").with("UserName", "u");
        let other_user = Call::iam("CreateAccessKey").with("UserName", "v");
        let update = Call::iam("UpdateAccessKey").with("UserName", "u").with("AccessKeyId", "AKIA1");
        let list = Call::iam("ListAccessKeys").with("UserName", "u");
        let calls = [&create, &other_user, &update, &list];
        for (rule, expected) in [
            (Rule::on("CreateAccessKey"), [true, true, false, false]),
            (Rule::on("CreateAccessKey").user("u"), [true, false, false, false]),
            (Rule::on_all().access_key("AKIA1"), [false, false, true, false]),
            (Rule::on_any_of(["UpdateAccessKey", "ListAccessKeys"]), [false, false, true, true]),
            (Rule::on_mutating().user("u"), [true, false, true, false]),
            (Rule::on_reads(), [false, false, false, true]),
            (Rule::on_all().caller("AKIA9"), [false, false, false, false]),
            (Rule::on_all().caller("testing"), [true, true, true, true]),
        ] {
            let description = format!("{rule:?}");
            assert_eq!(acted_on(rule.drop_connection(), &calls), expected, "{description}");
        }
    }

    #[test]
    fn occurrences_count_matching_calls_only() {
        let hit = Call::iam("GetUser");
        let miss = Call::iam("ListUsers");
        let calls = [&hit, &miss, &hit, &hit, &hit];
        for (rule, expected) in [
            (Rule::on("GetUser").nth(2), [false, false, true, false, false]),
            (Rule::on("GetUser").first(2), [true, false, true, false, false]),
            (Rule::on("GetUser").from(3), [false, false, false, true, true]),
            (Rule::on("GetUser").every(2), [false, false, true, false, true]),
        ] {
            let description = format!("{rule:?}");
            assert_eq!(acted_on(rule.throttle(), &calls), expected, "{description}");
        }
    }

    #[test]
    fn rule_matches_only_while_it_lasts() {
        let call = Call::iam("GetUser");
        assert_eq!(acted_on(Rule::on_all().lasting(Duration::from_mins(1)).throttle(), &[&call, &call]), [true, true]);
        assert_eq!(acted_on(Rule::on_all().lasting(Duration::ZERO).throttle(), &[&call]), [false]);
    }

    #[test]
    fn phases_are_distinct_and_hits_outlive_the_rule() {
        let rules = Rules::default();
        let call = Call::iam("CreateUser");
        let id = rules.add(Rule::on("CreateUser").after_commit().drop_connection());
        assert_eq!(consult(&rules, Phase::Before, &call), 0);
        assert_eq!(consult(&rules, Phase::AfterCommit, &call), 1);
        assert!(rules.remove(id));
        assert!(!rules.remove(id));
        assert_eq!(consult(&rules, Phase::AfterCommit, &call), 0);
        assert_eq!(rules.hits(id), Hits { matched: 1, acted: 1 });
    }

    #[tokio::test]
    async fn wait_for_hits_returns_after_the_rule_acted() {
        let rules = Rules::default();
        let id = rules.add(Rule::on_all().throttle());
        assert!(!rules.wait_for_hits(id, 1, Duration::from_millis(10)).await);
        consult(&rules, Phase::Before, &Call::iam("GetUser"));
        assert!(rules.wait_for_hits(id, 1, TIMEOUT).await);
    }
}
