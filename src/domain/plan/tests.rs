//! Tables of what is planned, property tests, and a simulation with random faults.

mod adoption;
mod attempt;
mod cleanup;
mod console;
mod dates;
mod due;
mod handover;
mod hold;
mod policies;
mod prolonged;
mod quarantine;
mod removed_from_spec;
mod restart;
mod retire;
mod rotation;
mod rules;
mod simulation;
mod sync;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    Effect, Plan, RetireReason,
    rules::{RULES, Rule},
};
use crate::{
    api::{
        AwsDeployUser, Reason,
        user::{DeletionPolicy, KeyRepairs},
    },
    domain::{
        console::{ConsoleFacts, ConsoleSecret},
        current_state::{
            AccessKey, CurrentState, CurrentUser, DeletionBlocker, Grants, IamUser, JournalSecret, KeyBackoff, LastUse,
            PublishedSecret, SecretRefusals, StatusHints, UserAbsence, Verification,
        },
        desired::{self, Account, Desired, DesiredConsole, DesiredKey, Grant},
        journal::{AttemptPhase, Journal},
        key_tag::KeyTag,
        owner::{Owner, key_tag},
        schedule::{CronSchedule, RotationSchedule},
        secret::{Integrity, PublishedFacts},
        settings::Settings,
        target::Target,
        validate::validate,
        window::Window,
    },
};

/// The UID of the attempt in these tables.
const ATTEMPT: &str = "attempt";

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn ago(age: SignedDuration) -> Timestamp {
    now() - age
}

const fn secs(amount: i64) -> SignedDuration {
    SignedDuration::from_secs(amount)
}

const fn mins(amount: i64) -> SignedDuration {
    SignedDuration::from_mins(amount)
}

const fn hours(amount: i64) -> SignedDuration {
    SignedDuration::from_hours(amount)
}

const fn days(amount: i64) -> SignedDuration {
    SignedDuration::from_hours(amount * 24)
}

/// The input of one plan. Every method changes one fact; ages count back from now.
#[derive(Clone, Debug)]
struct Case {
    desired: Desired,
    current: CurrentState,
    settings: Settings,
    leaving: DeletionPolicy,
}

/// The spread of due times for the resource of these tables.
fn permille() -> i32 {
    crate::domain::schedule::spread_permille("u1")
}

/// A user that matches its spec, with one key that was created and published ten days ago: nothing to do.
fn idle() -> Case {
    let resource: AwsDeployUser = serde_json::from_value(json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": "cycle", "namespace": "deploy", "uid": "u1"}, "spec": {},
    }))
    .unwrap();
    let target = Target::from_resource(&resource, "cluster").unwrap();
    let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: false };
    let settings = Settings::default();
    let desired = validate(&resource, &target, &Grant::minimal(), &account, &settings).unwrap();
    let user = IamUser {
        name: target.user_name.clone(),
        arn: "arn:aws:iam::123456789012:user/awsdeploy/deploy_cycle".into(),
        id: "AIDA1".into(),
        tags: desired.tags.clone(),
        keys: Vec::new(),
        grants: Some(Grants::default()),
        boundary: None,
        deletion_blockers: None,
        login_profile: None,
    };
    let current = CurrentState { iam: CurrentUser::Found(user), ..CurrentState::empty(now()) };
    Case { desired, current, settings, leaving: DeletionPolicy::Delete }
        .key("K1", days(10))
        .tagged_since("K1", days(10))
        .published("K1", days(10))
}

/// A user that was just created: no key, no Secret.
fn without_key() -> Case {
    idle().key_gone("K1").untagged("K1").no_secret()
}

/// K2 was published an hour ago and K1 is in its overlap of a day.
fn in_overlap() -> Case {
    idle().key("K2", hours(1)).tagged("K2").published("K2", hours(1))
}

/// A rotation was requested, K2 was created five seconds ago and is in the journal.
fn staged() -> Case {
    idle().key("K2", secs(5)).keyed("K2", secs(5))
}

impl Case {
    fn user(mut self, change: impl FnOnce(&mut IamUser)) -> Self {
        match &mut self.current.iam {
            CurrentUser::Found(user) => change(user),
            CurrentUser::Absent => panic!("there is no user"),
        }
        self
    }

    fn facts(mut self, change: impl FnOnce(&mut PublishedFacts)) -> Self {
        match &mut self.current.published {
            PublishedSecret::Ours(facts) => change(facts),
            other => panic!("there is no Secret of ours: {other:?}"),
        }
        self
    }

    fn current(mut self, change: impl FnOnce(&mut CurrentState)) -> Self {
        change(&mut self.current);
        self
    }

    fn desired(mut self, change: impl FnOnce(&mut Desired)) -> Self {
        change(&mut self.desired);
        self
    }

    fn declared_key(self, change: impl FnOnce(&mut DesiredKey)) -> Self {
        self.desired(|desired| change(desired.key.as_mut().expect("a key is declared")))
    }

    fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    // --- IAM

    fn no_user(self) -> Self {
        self.current(|current| (current.iam, current.user_absence) = (CurrentUser::Absent, Some(UserAbsence::Removed)))
    }

    /// To a deletion, IAM has shown no user of ours for so long.
    fn absent_for(self, age: SignedDuration) -> Self {
        self.current(|current| current.user_absence = Some(UserAbsence::NotObserved { since: ago(age) }))
    }

    fn key(self, id: &str, age: SignedDuration) -> Self {
        let key = AccessKey { id: id.into(), active: true, created_at: ago(age) };
        self.user(|user| user.keys.push(key))
    }

    fn key_gone(self, id: &str) -> Self {
        self.user(|user| user.keys.retain(|key| key.id != id))
    }

    fn inactive(self, id: &str) -> Self {
        self.user(|user| user.keys.iter_mut().filter(|key| key.id == id).for_each(|key| key.active = false))
    }

    fn inactive_since(self, id: &str, age: SignedDuration) -> Self {
        self.inactive(id).current(|current| _ = current.hints.inactive_since.insert(id.into(), ago(age)))
    }

    fn tagged(self, id: &str) -> Self {
        self.tagged_since(id, days(1))
    }

    fn tagged_since(self, id: &str, age: SignedDuration) -> Self {
        let since = ago(age).strftime("%FT%TZ").to_string();
        self.user(|user| _ = user.tags.insert(key_tag(id), since))
    }

    /// Its tag says that a newer key was published at this age.
    fn superseded(self, id: &str, age: SignedDuration) -> Self {
        let tagged_at = self.current.user().and_then(|user| user.tagged_at(id)).unwrap_or_default();
        let tag = KeyTag { published_at: tagged_at, superseded_at: Some(ago(age)) };
        self.user(|user| _ = user.tags.insert(key_tag(id), tag.to_string()))
    }

    fn untagged(self, id: &str) -> Self {
        self.user(|user| _ = user.tags.remove(&key_tag(id)))
    }

    /// The age of IAM's list: the reconcile has been slow since.
    fn listed(self, age: SignedDuration) -> Self {
        self.current(|current| current.keys_read_at = Some(ago(age)))
    }

    // --- the Secret

    /// Also moves the dates of its key, so that it can have been published then.
    fn published(self, id: &str, age: SignedDuration) -> Self {
        let facts = PublishedFacts::of(id, ago(age));
        let case = self.current(|current| current.published = PublishedSecret::Ours(facts));
        let is_possible = case.current.publication_time(now()) == Some(ago(age));
        case.user(|user| {
            let moved = user.keys.iter_mut().filter(|key| !is_possible && key.id == id);
            moved.for_each(|key| key.created_at = ago(age));
            user.tags.entry(key_tag(id)).and_modify(|tagged_at| *tagged_at = ago(age).to_string());
        })
    }

    /// An earlier Secret of ours was put back.
    fn published_again(self, id: &str, age: SignedDuration) -> Self {
        let facts = PublishedFacts::of(id, ago(age));
        self.current(|current| current.published = PublishedSecret::Ours(facts))
    }

    /// Another date was written into the Secret by hand.
    fn says_published(self, age: SignedDuration) -> Self {
        self.facts(|facts| facts.published_at = ago(age))
    }

    fn no_secret(self) -> Self {
        self.current(|current| current.published = PublishedSecret::Missing)
    }

    fn foreign_secret(self) -> Self {
        self.current(|current| current.published = PublishedSecret::Foreign("it belongs to another owner".into()))
    }

    fn edited(self) -> Self {
        self.facts(|facts| facts.integrity = Integrity::Lost)
    }

    /// Its MAC is not valid.
    fn unverified(self) -> Self {
        self.facts(|facts| {
            (facts.integrity, facts.published_at) = (Integrity::Unverified, Timestamp::UNIX_EPOCH);
        })
    }

    /// AWS refused the key in the Secret at these ages.
    fn secret_refused(self, first: SignedDuration, last: SignedDuration) -> Self {
        let refusals = SecretRefusals { first_at: ago(first), last_at: ago(last) };
        self.current(|current| current.secret_refusals = Some(refusals))
    }

    fn immutable(self) -> Self {
        self.facts(|facts| facts.immutable = true)
    }

    fn fenced(self) -> Self {
        self.facts(|facts| facts.fence = Some(ATTEMPT.into()))
    }

    // --- the journal

    fn journal(self, age: SignedDuration, phase: AttemptPhase) -> Self {
        let journal = Journal { started_at: ago(age), rotate_request: None, phase };
        self.current(|current| current.journal = JournalSecret::Attempt { attempt: ATTEMPT.into(), journal })
    }

    fn intent(self, age: SignedDuration, known: &[&str]) -> Self {
        self.journal(age, AttemptPhase::Intent { known: strings(known) })
    }

    fn keyed(self, id: &str, age: SignedDuration) -> Self {
        self.journal(age, AttemptPhase::Keyed { key_id: id.into(), keyed_at: ago(age) })
    }

    fn abandoned(self, orphans: &[&str]) -> Self {
        self.journal(mins(2), AttemptPhase::Abandoned { orphans: strings(orphans) })
    }

    fn unknown_journal(self) -> Self {
        self.current(|current| current.journal = JournalSecret::Unknown("format 2".into()))
    }

    fn accepted(self, id: &str, times: u32) -> Self {
        self.checked(id, times, SignedDuration::ZERO)
    }

    fn checked(self, id: &str, times: u32, age: SignedDuration) -> Self {
        let seen = Verification { key_id: id.into(), successes: times, last_at: ago(age) };
        self.current(|current| current.verification = Some(seen))
    }

    // --- AWS's record of uses

    /// The last use was read at one age, and AWS reported a use at another age.
    fn last_used(self, id: &str, used: Option<SignedDuration>, asked: SignedDuration) -> Self {
        let answer = LastUse { used_at: used.map(ago), service: Some("s3 in us-east-1".into()), asked_at: ago(asked) };
        self.current(|current| _ = current.last_used.insert(id.into(), answer))
    }

    // --- status

    fn backing_off(self, left: SignedDuration, reason: Reason) -> Self {
        self.current(|current| current.key_backoff = Some(KeyBackoff { until: now() + left, reason }))
    }

    fn rotated_before(self, age: SignedDuration) -> Self {
        self.current(|current| current.hints.last_rotation = Some(ago(age)))
    }

    fn attempted_before(self, age: SignedDuration) -> Self {
        self.current(|current| current.hints.last_attempt = Some(ago(age)))
    }

    // --- the spec

    fn every(self, interval: SignedDuration) -> Self {
        self.declared_key(|key| key.schedule = RotationSchedule::Every(interval))
    }

    fn window(self, opens: &str, duration: SignedDuration) -> Self {
        let opens = CronSchedule::parse(opens, None).unwrap();
        self.declared_key(|key| key.windows.0.push(Window { opens, duration }))
    }

    fn overlap(self, overlap: SignedDuration) -> Self {
        self.declared_key(|key| key.overlap = overlap)
    }

    fn held_while_used(self, hold: SignedDuration) -> Self {
        self.declared_key(|key| key.hold_while_used = Some(hold))
    }

    fn requested(self) -> Self {
        self.declared_key(|key| key.rotate_request = Some("please".into()))
    }

    fn credentials_revoked(self) -> Self {
        self.desired(|desired| desired.credentials_revoked = true)
    }

    /// Console access and no access key.
    fn console_only(self) -> Self {
        let console =
            DesiredConsole { secret_name: "cycle-console".into(), reset_required: false, reset_request: None };
        let applied = ConsoleFacts { intact: true, applied: true, reset_honoured: None };
        self.desired(|desired| {
            desired.key = None;
            desired.console = Some(console);
        })
        .current(|current| current.console = ConsoleSecret::Ours(applied))
        .user(|user| user.login_profile = Some(true))
    }

    fn policy_missing(self) -> Self {
        self.desired(|desired| _ = desired.attached.insert("arn:aws:iam::aws:policy/P".into()))
    }

    fn leaving(mut self, policy: DeletionPolicy) -> Self {
        self.leaving = policy;
        self
    }

    // --- results

    fn plan(&self) -> Plan {
        super::plan(&self.desired, &self.current, now(), &self.settings)
    }

    fn cleanup(&self) -> Plan {
        super::plan_cleanup(&self.desired.target, self.leaving, &self.current, now(), &self.settings)
    }

    /// The next effect as text.
    #[track_caller]
    fn does(&self, effect: &str) {
        assert_eq!(next_effect(&self.plan()), effect, "{:#?}", self.plan());
    }

    /// The next effect is another one.
    #[track_caller]
    fn does_not(&self, effect: &str) {
        assert_ne!(next_effect(&self.plan()), effect);
    }

    /// There is no effect; when the resource is requeued, and why.
    #[track_caller]
    fn waits(&self, wait: impl Into<Option<SignedDuration>>, reason: Reason) {
        let plan = self.plan();
        assert_eq!(next_effect(&plan), "nothing");
        assert_eq!(plan.requeue_at.map(|at| at.duration_since(now())), wait.into());
        assert_eq!(plan.rotation.reason, reason, "{}", plan.rotation.message);
    }

    /// The next effect of a deletion as text.
    #[track_caller]
    fn cleans_up_by(&self, effect: &str) {
        assert_eq!(next_effect(&self.cleanup()), effect);
    }
}

fn strings(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn next_effect(plan: &Plan) -> String {
    plan.effects.first().map_or_else(|| "nothing".to_owned(), effect_text)
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::CreateKey { known, .. } => format!("CreateKey beside {}", known.join(", ")),
        Effect::AbandonAttempt { failed: true, .. } => format!("{effect}, failed"),
        other => other.to_string(),
    }
}
