//! The next effect of a controller, planned by the operator's own `plan` from what the controller has observed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex, PoisonError},
};

use ahash::HashMap;
use awsdeploy::{
    api::AwsDeployUser,
    domain::{
        console::ConsoleSecret,
        current_state::{
            AccessKey, CurrentState, CurrentUser, Grants, IamUser, JournalSecret, LastUse, PublishedSecret,
            StatusHints, Verification,
        },
        desired::{Account, Desired, DesiredKey, Grant},
        handover::Consumer,
        journal,
        managed_policy::CurrentPolicies,
        owner::key_tag,
        plan::{
            self, Effect, RetireReason,
            rules::{Mode, RULES, Rule, RuleInput, Step},
        },
        schedule::RotationSchedule,
        secret::{Integrity, PublishedFacts},
        settings::Settings,
        target::Target,
        validate::validate,
    },
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    protocol::Handover,
    state::{Age, AttemptPhase, Ids, LIMIT, NOW, StsAnswers, View, each, has, only},
};

/// An effect of the plan, in the model's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Do {
    /// Start an attempt beside these keys.
    CreateKey(Ids),
    /// Check whether STS accepts a key.
    Verify(u8),
    /// Write the staged key into the Secret.
    Publish(u8),
    /// Tag a key.
    Tag(u8),
    /// Remove the tags of these keys.
    Untag(Ids),
    /// Abandon the attempt with these orphans; true if the reconcile fails by it.
    Abandon(Ids, bool),
    /// Change the Secret's resourceVersion.
    Touch,
    /// Delete the journal.
    Close,
    /// Set a key Inactive.
    Deactivate(u8),
    /// Delete a key.
    Delete(u8),
    /// Read which key was used last.
    ReadLastUsed,
}

/// The planned effect, and whether IAM must be read again before it is executed. `None`: the reconcile ends.
pub type Decision = Option<(Do, bool)>;

/// What a controller decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecisionInput {
    /// What its reconcile has read.
    pub view: View,
    /// What it knows of the answers of STS.
    pub sts: StsAnswers,
    /// The rotate request in the resource.
    pub request: u8,
    /// The confirmed key in it.
    pub confirmed: u8,
    /// The consumer that it declares.
    pub handover: Handover,
    /// The rule that its plan does without.
    pub omitted_rule: Option<&'static str>,
}

/// Calls the operator's `plan`. Results are memoized per thread, because the same input has the same plan.
#[must_use]
pub fn decide(mut input: DecisionInput) -> Decision {
    thread_local!(static DECISIONS: RefCell<HashMap<DecisionInput, Decision>> = RefCell::default());
    // A controller cannot know whether the objects are still as they were read.
    input.view.secret = input.view.secret.map(|(secret, _)| (secret, true));
    input.view.journal = input.view.journal.map(|(journal, _)| (journal, true));
    DECISIONS.with_borrow_mut(|decisions| *decisions.entry(input).or_insert_with(|| plan_next(&input)))
}

/// The names of the rules that have decided something in this process.
#[must_use]
pub fn rules_that_decided() -> BTreeSet<&'static str> {
    DECIDED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

static DECIDED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

fn plan_next(input: &DecisionInput) -> Decision {
    let current = current(&input.view, input.sts);
    let mut desired = DESIRED.clone();
    if let Some(key) = &mut desired.key {
        key.rotate_request = text(input.request);
        declare_handover(key, input);
    }
    let now = at(NOW, 0) + MARGIN;
    let rules: Vec<Rule> = RULES.iter().copied().filter(|(name, _)| Some(*name) != input.omitted_rule).collect();
    let plan = plan::plan_by(&rules, &desired, &current, now, &SETTINGS);
    if input.omitted_rule.is_none() {
        record_rule(&desired, &current, now, &plan);
    }
    let effect = plan.effects.first()?;
    let step = match effect {
        Effect::CreateKey { known, .. } => Do::CreateKey(ids(known)),
        Effect::VerifyKey(key) => Do::Verify(id(key)),
        Effect::Publish(key) => Do::Publish(id(key)),
        Effect::TagKey(key) => Do::Tag(id(key)),
        Effect::UntagUser(tags) => {
            Do::Untag(tags.iter().filter_map(|tag| tag.strip_prefix(&key_tag(""))).map(id).map(only).sum())
        }
        Effect::AbandonAttempt { orphans, failed } => Do::Abandon(ids(orphans), *failed),
        Effect::TouchPublished => Do::Touch,
        Effect::CloseJournal => Do::Close,
        Effect::DeactivateKey(
            key,
            RetireReason::OverlapEnded | RetireReason::FreesSlot | RetireReason::HandoverExpired,
        ) => Do::Deactivate(id(key)),
        Effect::DeleteKey(key, _) => Do::Delete(id(key)),
        Effect::ReadLastUsed(_) => Do::ReadLastUsed,
        // The resource of the model declares nothing but a key.
        other => unreachable!("the model does not have {other}"),
    };
    Some((step, !effect.can_run_on(&current, &SETTINGS)))
}

/// Asserts that the plan is the step of the first rule that applies, so that the model, the plan and `RULES` have one order.
fn record_rule(desired: &Desired, current: &CurrentState, now: Timestamp, plan: &plan::Plan) {
    let Some(user) = current.user() else { return };
    let mode = Mode::Live { desired, user_ready: true, conflict: None };
    let input = RuleInput { target: &desired.target, mode, current, user, now, settings: &SETTINGS };
    let decided = RULES.iter().find_map(|(name, rule)| Some((*name, rule(&input)?)));
    let effect = decided.as_ref().and_then(|(_, step)| if let Step::Do(effect) = step { Some(effect) } else { None });
    assert_eq!(plan.effects.first(), effect, "the plan differs from the rules: {decided:?}");
    if let Some((name, _)) = decided {
        DECIDED.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }
}

/// The overlap is a day; a time between [`OVERLAP`](crate::state::OVERLAP) and [`HANDOVER`](crate::state::HANDOVER) is one of three.
fn declare_handover(key: &mut DesiredKey, input: &DecisionInput) {
    let days = |days: i64| SignedDuration::from_hours(24 * days);
    let within = match input.handover {
        Handover::None | Handover::Ignored => return,
        Handover::Limited | Handover::AnyKey => days(2),
        Handover::Scheduled | Handover::Unlimited => days(30),
    };
    if input.handover == Handover::Scheduled {
        key.schedule = RotationSchedule::Every(days(4));
    }
    let any = || input.view.secret.map_or(0, |(secret, _)| secret.key);
    let confirmed = if input.handover == Handover::AnyKey && input.confirmed != 0 { any() } else { input.confirmed };
    let confirmed = (confirmed != 0).then(|| name(confirmed));
    key.handover = vec![Consumer { name: "hub".into(), within, confirmed }];
}

// --- the view as the operator sees it ---------------------------------------------------------

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings { verify_successes: 1, ..Settings::default() });

/// Between the youngest event and now; shorter than every time of the protocol.
const MARGIN: SignedDuration = SignedDuration::from_secs(20);

static DESIRED: LazyLock<Desired> = LazyLock::new(|| {
    let resource = json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": "cycle", "namespace": "deploy", "uid": "u1"},
        "spec": {"accessKey": {"rotation": {"every": "Never", "overlap": "24h"}}},
    });
    let resource: AwsDeployUser = serde_json::from_value(resource).unwrap_or_default();
    let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: false };
    Target::from_resource(&resource, "cluster")
        .and_then(|target| validate(&resource, &target, &Grant::minimal(), &account, &SETTINGS).ok())
        .unwrap_or_else(|| unreachable!("the resource of the model is valid"))
});

fn current(view: &View, sts: StsAnswers) -> CurrentState {
    let journal = view.journal.map(|(journal, _)| journal);
    CurrentState {
        iam: CurrentUser::Found(user(view)),
        keys_read_at: view.read.map(|age| at(age, 0)),
        grants_live: view.read.is_some(),
        policies: CurrentPolicies::default(),
        policies_missing_since: None,
        console: ConsoleSecret::Missing,
        published: view.secret.map_or(PublishedSecret::Missing, |(secret, _)| {
            PublishedSecret::Ours(PublishedFacts {
                key_id: name(secret.key),
                published_at: at(secret.age, 0),
                rotate_honoured: text(secret.honours),
                integrity: Integrity::Verified,
                matches_spec: true,
                fence: text(secret.fence),
                restarts: BTreeMap::new(),
                immutable: false,
            })
        }),
        secret_refusals: None,
        journal: journal.map_or(JournalSecret::None, |journal| JournalSecret::Attempt {
            attempt: journal.attempt.to_string(),
            journal: journal::Journal {
                started_at: at(journal.age, journal.attempt),
                rotate_request: text(journal.honours),
                phase: match journal.phase {
                    AttemptPhase::Intent { known } => journal::AttemptPhase::Intent { known: names(known) },
                    AttemptPhase::Keyed { key, age } => {
                        journal::AttemptPhase::Keyed { key_id: name(key), keyed_at: at(age, journal.attempt) }
                    }
                    AttemptPhase::Abandoned { orphans } => journal::AttemptPhase::Abandoned { orphans: names(orphans) },
                },
            },
        }),
        verification: match sts {
            StsAnswers { accepted: 0, refused: 0 } => None,
            // Asked a moment ago.
            StsAnswers { accepted: 0, refused } => {
                Some(Verification { key_id: name(refused), successes: 0, last_at: at(NOW, 0) + MARGIN })
            }
            StsAnswers { accepted, .. } => {
                Some(Verification { key_id: name(accepted), successes: 1, last_at: at(NOW, 0) })
            }
        },
        last_used: view.last_used.map_or_else(BTreeMap::new, |last| {
            let answer =
                |key: u8| LastUse { used_at: (key == last).then(|| at(NOW, 0)), service: None, asked_at: at(NOW, 0) };
            view.keys.existing().map(|key| (name(key.id), answer(key.id))).collect()
        }),
        last_used_failed: false,
        workloads: BTreeMap::new(),
        deleted_keys: names(view.deleted).into_iter().collect(),
        newly_missing_keys: BTreeSet::new(),
        unknown_keys: BTreeSet::new(),
        secrets_unread: false,
        secret_has_owner: false,
        owner_is_ending: false,
        hints: StatusHints {
            inactive_since: view
                .keys
                .existing()
                .filter(|key| !key.active && key.deactivated >= LIMIT)
                .map(|key| (name(key.id), at(LIMIT, 0)))
                .collect(),
            ..StatusHints::default()
        },
        finalizer: true,
        user_recorded: true,
        user_sync_failed: false,
        key_backoff: None,
        first_key_at: None,
        user_absence: None,
    }
}

fn user(view: &View) -> IamUser {
    let (target, keys) = (&DESIRED.target, &view.keys);
    let mut tags = DESIRED.tags.clone();
    tags.extend(keys.iter().filter_map(|key| {
        // Its age is that at the time of reading, unless the reconcile has written it since.
        let read = view.read.filter(|_| !has(view.tagged, key.id)).unwrap_or(NOW);
        let since = at(key.tagged?, 0) - at(NOW, 0).duration_since(at(read, 0));
        Some((key_tag(&name(key.id)), since.strftime("%FT%TZ").to_string()))
    }));
    let keys = keys.existing().map(|key| AccessKey {
        id: name(key.id),
        active: key.active,
        created_at: at(key.created, key.since),
    });
    IamUser {
        name: target.user_name.clone(),
        arn: format!("arn:aws:iam::123456789012:user/awsdeploy/{}", target.user_name),
        id: "AIDA1".into(),
        tags,
        keys: keys.collect(),
        grants: Some(Grants::default()),
        ..IamUser::default()
    }
}

/// A time of this age. Of two things of one age the one of the later attempt is the later one.
fn at(age: Age, attempt: u8) -> Timestamp {
    // Recovery delay 60 s, verification timeout 5 min, deletion delay 10 min, overlap 24 h, with a handover 3 days,
    // rotation every 4 days.
    let seconds = [0, 100, 1_000, 100_000, 400_000][usize::from(age)];
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 56) - SignedDuration::from_secs(seconds)
        + SignedDuration::from_secs(attempt.into())
}

fn name(id: u8) -> String {
    format!("K{id:02}")
}

fn id(name: &str) -> u8 {
    name.trim_start_matches('K').parse().unwrap_or_else(|_| unreachable!("{name} is no key of the model"))
}

fn ids(names: &[String]) -> Ids {
    names.iter().map(|name| only(id(name))).sum()
}

fn names(ids: Ids) -> Vec<String> {
    each(ids).map(name).collect()
}

fn text(number: u8) -> Option<String> {
    (number != 0).then(|| number.to_string())
}
