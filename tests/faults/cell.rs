//! One run: a scenario, its faults, and the verdict.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use awsdeploy_testkit::{
    auditor::{AuditTarget, Auditor, Violation},
    aws_proxy::{AwsError, Pause, Rule},
    collector::{Collector, CollectorBehavior},
    kube_proxy::{KubeProxy, KubeRule},
};
use futures::future::select_all;
use jiff::Timestamp;

use crate::{
    fault_profiles::{self, FaultProfile},
    operation::{Operation, RECOVERY},
    test_env::{EnvOptions, TestEnv},
};

/// A mutating call of a scenario: the n-th of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Aws { action: String, nth: u64 },
    Kube { verb: String, resource: String, name: Option<String>, nth: u64 },
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws { action, nth } => write!(formatter, "aws:{action}:{nth}"),
            Self::Kube { verb, resource, name, nth } => {
                let resource = resource.replace('/', ".");
                write!(formatter, "kube:{verb}:{resource}:")?;
                if let Some(name) = name {
                    write!(formatter, "{name}:")?;
                }
                write!(formatter, "{nth}")
            }
        }
    }
}

impl Point {
    pub(crate) fn is_short(&self) -> bool {
        match self {
            Self::Aws { .. } => true,
            Self::Kube { resource, .. } => resource == "secrets",
        }
    }

    fn is_create_key(&self) -> bool {
        matches!(self, Self::Aws { action, .. } if action == "CreateAccessKey")
    }

    /// The write that turns a key just made into a known one: without it the key is an orphan.
    fn may_cost_a_key(&self) -> bool {
        self.is_create_key() || matches!(self, Self::Kube { resource, .. } if resource == "secrets")
    }
}

/// What is done to the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    KillBefore,
    KillAfter,
    LostReply,
    Refused,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::KillBefore, Self::KillAfter, Self::LostReply, Self::Refused];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillBefore => "kill-before",
            Self::KillAfter => "kill-after",
            Self::LostReply => "lost-reply",
            Self::Refused => "refused",
        }
    }

    pub(crate) fn is_short(self) -> bool {
        self == Self::KillAfter
    }
}

/// One fault.
#[derive(Clone)]
pub(crate) enum Fault {
    At(Point, Mode),
    Profile(FaultProfile),
}

/// One run.
#[derive(Clone)]
pub(crate) struct Cell {
    pub(crate) scenario: Operation,
    pub(crate) faults: Vec<Fault>,
    pub(crate) seed: Option<u64>,
}

/// What came of a run.
#[derive(Clone, Default)]
pub(crate) struct Outcome {
    /// The calls that a run without faults makes.
    pub(crate) trace: Vec<Point>,
    pub(crate) violations: Vec<String>,
    pub(crate) refused: u64,
    pub(crate) accepted: u64,
    /// How many of the faults that wait for a call met theirs.
    pub(crate) struck: usize,
    pub(crate) recovery: Duration,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn of(result: std::thread::Result<Self>) -> Self {
        match result {
            Ok(outcome) => outcome,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
                let text = text.unwrap_or_else(|| "the run died".to_owned());
                Self {
                    violations: vec![format!(
                        "liveness: {}",
                        text.lines().next().unwrap_or_default().chars().take(160).collect::<String>()
                    )],
                    ..Self::default()
                }
            }
        }
    }

    pub(crate) fn held(&self) -> bool {
        self.violations.is_empty() && self.refused == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.held() {
            write!(formatter, "ok, well again after {:.1} s", self.recovery.as_secs_f32())?;
        } else {
            write!(formatter, "FAILED: {} refused; {}", self.refused, self.violations.join("; "))?;
        }
        write!(formatter, " ({} calls of a consumer, {:.1} s)", self.accepted, self.took.as_secs_f32())
    }
}

impl Cell {
    /// The name that picks this run and no other.
    pub(crate) fn name(&self) -> String {
        if let Some(seed) = self.seed {
            return format!("seed/{seed}/{}", self.scenario.name());
        }
        let faults: Vec<String> = self.faults.iter().map(Fault::name).collect();
        format!("{}/{}", self.scenario.name(), faults.join("+"))
    }

    /// Two or three faults, and a scenario, as the seed wants it.
    pub(crate) fn seeded(seed: u64, learned: &[(Operation, Vec<Point>)]) -> Option<Self> {
        let mut dice = Dice(seed);
        let (scenario, trace) = dice.one_of(learned)?;
        let faults = (0..2 + dice.below(2)).filter_map(|_| {
            Some(if dice.below(3) == 0 {
                Fault::Profile(*dice.one_of(fault_profiles::ALL)?)
            } else {
                Fault::At(dice.one_of(trace)?.clone(), *dice.one_of(&Mode::ALL)?)
            })
        });
        Some(Self { scenario: *scenario, faults: faults.collect(), seed: Some(seed) })
    }

    /// Runs it to its verdict. Panics where the operator does not come to rest.
    pub(crate) async fn run(self) -> Outcome {
        let begun = Instant::now();
        let (mut env, kube, auditor) = set().await;
        let key = self.scenario.prepare(&env).await;
        let consumer = if self.scenario.has_a_working_key_throughout() {
            let arn = env.iam("u").await.arn;
            let (mounted, consumer) = env.consume("x", &arn);
            consumer
                .wait_for("a first call", RECOVERY, |report| report.accepted > 0)
                .await
                .expect("the consumer works");
            Some((mounted, consumer))
        } else {
            None
        };

        let (aws_mark, kube_mark) = (env.aws.log().position(), kube.log().position());
        let (struck, recovery) = self.strike(&mut env, &kube, &auditor, &key).await;

        let trace = if self.faults.is_empty() { trace(&env, aws_mark, &kube, kube_mark) } else { Vec::new() };
        let mut violations = Vec::new();
        if self.scenario.leaves_a_resource() {
            violations.extend(auditor.check_idle(RECOVERY).await);
        }
        let mut outcome = Outcome { trace, struck, recovery, ..Outcome::default() };
        if let Some((_mounted, consumer)) = consumer {
            let report = consumer.stop().await;
            outcome.accepted = report.accepted;
            outcome.refused = report.refused;
            if report.refused > 0 {
                violations.push(refusals(&report.to_string()));
            }
        }
        let ambiguities = self.faults.iter().map(Fault::ambiguities).sum();
        let evidence = [
            ("the operator's log", env.log()),
            ("the metrics", env.operator.metrics().await.expect("metrics")),
            ("the traces", env.traces()),
        ];
        violations.extend(auditor.finish(ambiguities, &evidence).await.expect("the audit"));
        outcome.violations = violations.iter().map(ToString::to_string).collect();
        if !outcome.violations.is_empty() {
            let written = written(&env, aws_mark, &kube, kube_mark);
            println!("{}: what was written{written}\n{}", self.name(), env.log());
        }
        outcome.took = begun.elapsed();
        outcome
    }

    /// The key that must have been replaced at the end. Where a stale read shows the journal of the last attempt once
    /// more, a deleted Secret comes back with the key that it held: it is the right one, and nothing was lost.
    fn replaced<'a>(&self, key: &'a str) -> &'a str {
        let stale = |fault: &Fault| matches!(fault, Fault::Profile(profile) if profile.name == "kube-stale-secrets");
        if self.scenario == Operation::DeletedSecret && self.faults.iter().any(stale) { "" } else { key }
    }

    /// Lets the scenario happen with its faults. How often the operator was killed, and how long all took to be well.
    pub(crate) async fn strike(
        &self,
        env: &mut TestEnv,
        kube: &KubeProxy,
        auditor: &Auditor,
        key: &str,
    ) -> (usize, Duration) {
        let mut pauses: Vec<Pause> = self.faults.iter().filter_map(|fault| fault.lay(env, kube)).collect();
        for fault in &self.faults {
            if let Fault::Profile(profile) = fault {
                profile.begin(env, kube).await;
            }
        }
        self.scenario.begin(env, key, auditor).await;
        let mut since = Instant::now();
        for fault in &self.faults {
            if let Fault::Profile(profile) = fault {
                profile.lift(env, kube).await;
            }
        }
        let mut struck = 0;
        while !pauses.is_empty() {
            let any = select_all(pauses.iter().map(|pause| Box::pin(pause.wait_until_held(RECOVERY))));
            let hit = tokio::select! {
                (hit, index, _) = any => hit.then_some(index),
                // It came to its end without that call: a fault before it led another way.
                () = self.scenario.end(env, self.replaced(key)) => None,
            };
            let Some(index) = hit else { break };
            let pause = pauses.remove(index);
            env.operator.kill().await;
            pause.abort();
            struck += 1;
            env.operator.restart().await.expect("the operator comes back");
            since = Instant::now();
        }
        for pause in &pauses {
            pause.release();
        }
        self.scenario.end(env, self.replaced(key)).await;
        let recovery = since.elapsed();
        env.aws.rules().clear();
        kube.rules().clear();
        (struck, recovery)
    }
}

/// A test environment with an operator that goes through both proxies, and an auditor.
pub(crate) async fn set() -> (TestEnv, KubeProxy, Auditor) {
    let arguments = vec![
        "--recovery-delay=2s",
        "--deletion-delay=1s",
        "--resync=2s",
        "--key-check=2s",
        "--secret-check=500ms",
        "--verify-interval=50ms",
        "--verify-successes=2",
        "--cluster-id=faults",
    ];
    let collector = Arc::new(Collector::start(CollectorBehavior::Accepts).await.expect("a collector"));
    // It may be killed at any moment: what it tells is to be told soon.
    let variables = vec![("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned())];
    let env_options =
        EnvOptions { arguments, variables, collector: Some(collector), kube_proxy: true, ..EnvOptions::default() };
    let mut env = TestEnv::with(env_options).await;
    let kube = env.kube.take().expect("a Kubernetes proxy");
    let auditor = Auditor::start(AuditTarget {
        client: env.client.clone(),
        namespace: env.namespace.clone(),
        inspector: env.inspector(),
        account: env.account.clone(),
        aws: env.aws.log().clone(),
        kube: Some(kube.log().clone()),
    });
    (env, kube, auditor)
}

fn refusals(report: &str) -> Violation {
    Violation { invariant: "consumer", detail: report.to_owned() }
}

impl Fault {
    fn name(&self) -> String {
        match self {
            Self::At(point, mode) => format!("{point}/{}", mode.name()),
            Self::Profile(profile) => format!("profile/{}", profile.name),
        }
    }

    /// How many keys may be made in vain because of it.
    pub(crate) fn ambiguities(&self) -> usize {
        match self {
            Self::At(point, _) => usize::from(point.may_cost_a_key()),
            Self::Profile(profile) => profile.ambiguities,
        }
    }

    /// Puts the rule in place. The handle, if the operator is to be killed there.
    fn lay(&self, env: &TestEnv, kube: &KubeProxy) -> Option<Pause> {
        let Self::At(point, mode) = self else { return None };
        match point {
            Point::Aws { action, nth } => {
                let rule = Rule::on(action).nth(*nth);
                match mode {
                    Mode::KillBefore => Some(env.aws.rules().pause(rule)),
                    Mode::KillAfter => Some(env.aws.rules().pause(rule.after_commit())),
                    Mode::LostReply => {
                        env.aws.rules().add(rule.after_commit().drop_connection());
                        None
                    }
                    Mode::Refused => {
                        let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
                        env.aws.rules().add(rule.respond_with(error));
                        None
                    }
                }
            }
            Point::Kube { verb, resource, name, nth } => {
                let mut rule = KubeRule::on(verb, resource).nth(*nth);
                if let Some(name) = name {
                    rule = rule.name(name);
                }
                match mode {
                    Mode::KillBefore => Some(kube.rules().pause(rule)),
                    Mode::KillAfter => Some(kube.rules().pause(rule.after_commit())),
                    Mode::LostReply => {
                        kube.rules().add(rule.after_commit().drop_connection());
                        None
                    }
                    Mode::Refused => {
                        kube.rules().add(rule.respond_with(503, "ServiceUnavailable"));
                        None
                    }
                }
            }
        }
    }
}

/// The same as lines, with what came of them: what somebody needs who wants to understand a run that failed.
fn written(env: &TestEnv, aws: awsdeploy_testkit::aws_proxy::LogPosition, kube: &KubeProxy, kube_mark: u64) -> String {
    let aws = env.aws.log().mutating_calls_since(aws).into_iter().map(|call| (call.started, call.to_string()));
    let kube = kube.log().mutating_since(kube_mark).into_iter().map(|call| (call.started, call.to_string()));
    let mut lines: Vec<(Timestamp, String)> = aws.chain(kube).collect();
    lines.sort();
    lines.iter().fold(String::new(), |mut text, (at, line)| {
        let _ = write!(text, "\n  {at} {line}");
        text
    })
}

/// The mutating calls on both sides behind the marks, in the order they came in.
fn trace(
    env: &TestEnv,
    aws: awsdeploy_testkit::aws_proxy::LogPosition,
    kube: &KubeProxy,
    kube_mark: u64,
) -> Vec<Point> {
    let mut calls: Vec<(Timestamp, Point)> = Vec::new();
    for call in env.aws.log().mutating_calls_since(aws) {
        calls.push((call.started, Point::Aws { action: call.action, nth: 1 }));
    }
    for call in kube.log().mutating_since(kube_mark) {
        // The names of Events are made up.
        let name = call.name.filter(|_| call.resource != "events");
        calls.push((call.started, Point::Kube { verb: call.verb.to_owned(), resource: call.resource, name, nth: 1 }));
    }
    calls.sort_by_key(|(at, _)| *at);
    let mut points: Vec<Point> = Vec::new();
    for (_, mut point) in calls {
        while points.contains(&point) {
            match &mut point {
                Point::Aws { nth, .. } | Point::Kube { nth, .. } => *nth += 1,
            }
        }
        points.push(point);
    }
    points
}

/// `SplitMix64`: the same seed throws the same for ever.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % (limit.max(1) as u64)).unwrap_or_default()
    }

    pub(crate) fn one_of<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        let index = self.below(things.len());
        things.get(index)
    }
}
