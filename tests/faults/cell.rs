//! One cell of the fault matrix: an operation, the faults injected into it, and the outcome.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use awsdeploy::api::well_known;
use awsdeploy_testkit::{
    auditor::{AuditTarget, Auditor, Violation},
    aws_proxy::{AwsError, Pause, Rule},
    collector::{Collector, CollectorBehavior},
    kube_proxy::{KubeProxy, KubeRule},
    rng::SeededRng,
};
use futures::future::select_all;
use jiff::Timestamp;

use crate::{
    fault_profiles::{self, FaultProfile},
    operation::{Operation, RECOVERY},
    test_env::{EnvOptions, OPERATOR_NAMESPACE, TestEnv},
};

/// A mutating call of an operation: the n-th of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultPoint {
    Aws { action: String, nth: u64 },
    Kube { verb: String, resource: String, name: Option<String>, nth: u64 },
}

impl fmt::Display for FaultPoint {
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

impl FaultPoint {
    pub(crate) fn is_short(&self) -> bool {
        match self {
            Self::Aws { .. } => true,
            Self::Kube { resource, .. } => resource == "secrets",
        }
    }

    fn is_create_key(&self) -> bool {
        matches!(self, Self::Aws { action, .. } if action == "CreateAccessKey")
    }

    /// Whether a fault here can leave an orphan: a key is known only once its Secret is written.
    fn may_leave_an_orphan(&self) -> bool {
        self.is_create_key() || matches!(self, Self::Kube { resource, .. } if resource == "secrets")
    }
}

/// The fault injected into the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultMode {
    KillBefore,
    KillAfter,
    LostReply,
    Refused,
}

impl FaultMode {
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

#[derive(Clone)]
pub(crate) enum Fault {
    At(FaultPoint, FaultMode),
    Profile(FaultProfile),
}

#[derive(Clone)]
pub(crate) struct Cell {
    pub(crate) operation: Operation,
    pub(crate) faults: Vec<Fault>,
    pub(crate) seed: Option<u64>,
}

#[derive(Clone, Default)]
pub(crate) struct Outcome {
    /// The mutating calls; recorded in runs without faults only.
    pub(crate) trace: Vec<FaultPoint>,
    pub(crate) violations: Vec<String>,
    pub(crate) refused: u64,
    pub(crate) accepted: u64,
    /// How often the operator was killed.
    pub(crate) kills: usize,
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
                let text = text.unwrap_or_else(|| "the run panicked".to_owned());
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

    pub(crate) fn passed(&self) -> bool {
        self.violations.is_empty() && self.refused == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passed() {
            write!(formatter, "ok, recovered after {:.1} s", self.recovery.as_secs_f32())?;
        } else {
            write!(formatter, "FAILED: {} refused; {}", self.refused, self.violations.join("; "))?;
        }
        write!(formatter, "({} consumer calls, {:.1} s)", self.accepted, self.took.as_secs_f32())
    }
}

impl Cell {
    /// The unique name, as `ONLY` takes it.
    pub(crate) fn name(&self) -> String {
        if let Some(seed) = self.seed {
            return format!("seed/{seed}/{}", self.operation.name());
        }
        let faults: Vec<String> = self.faults.iter().map(Fault::name).collect();
        format!("{}/{}", self.operation.name(), faults.join("+"))
    }

    /// Picks an operation and two or three faults by the seed.
    pub(crate) fn from_seed(seed: u64, traces: &[(Operation, Vec<FaultPoint>)]) -> Option<Self> {
        let mut rng = SeededRng::new(seed);
        let (operation, trace) = rng.choose(traces)?;
        let faults = (0..2 + rng.below(2)).filter_map(|_| {
            Some(if rng.below(3) == 0 {
                Fault::Profile(*rng.choose(fault_profiles::ALL)?)
            } else {
                Fault::At(rng.choose(trace)?.clone(), *rng.choose(&FaultMode::ALL)?)
            })
        });
        let mut faults: Vec<Fault> = faults.collect();
        let mut ends = Vec::new();
        faults.retain(|fault| {
            let Fault::Profile(profile) = fault else { return true };
            // Two of them would end the same outage twice.
            let is_new = profile.end.is_none() || !ends.contains(&profile.end);
            ends.push(profile.end);
            is_new
        });
        Some(Self { operation: *operation, faults, seed: Some(seed) })
    }

    /// Runs the cell and audits it. Panics if the operator does not converge.
    pub(crate) async fn run(self) -> Outcome {
        let started = Instant::now();
        let (mut env, kube, auditor) = start_env().await;
        let key = self.operation.prepare(&env).await;
        let consumer = if self.operation.has_a_working_key_throughout() {
            let arn = env.iam("u").await.arn;
            let (mounted, consumer) = env.start_consumer("x", &arn);
            consumer
                .wait_for("a first call", RECOVERY, |report| report.accepted > 0)
                .await
                .expect("the consumer works");
            Some((mounted, consumer))
        } else {
            None
        };

        let (aws_position, kube_position) = (env.aws.log().position(), kube.log().position());
        let (kills, recovery) = self.run_with_faults(&mut env, &kube, &auditor, &key).await;

        let trace = if self.faults.is_empty() { trace(&env, aws_position, &kube, kube_position) } else { Vec::new() };
        let mut violations = Vec::new();
        if self.operation.keeps_the_resource() {
            violations.extend(auditor.check_idle(RECOVERY).await);
        }
        let mut outcome = Outcome { trace, kills, recovery, ..Outcome::default() };
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
            let calls = describe_writes(&env, aws_position, &kube, kube_position);
            println!("{}, APPLY_SEED={}: mutating calls{calls}\n{}", self.name(), env.apply_seed(), env.log());
        }
        outcome.took = started.elapsed();
        outcome
    }

    /// The key that must be replaced at the end. If a stale read returns the journal of the last attempt, a deleted
    /// Secret is recreated with the key that it held: that key still works, so nothing was lost.
    fn key_to_replace<'a>(&self, key: &'a str) -> &'a str {
        let stale = |fault: &Fault| matches!(fault, Fault::Profile(profile) if profile.name == "kube-stale-secrets");
        if self.operation == Operation::DeletedSecret && self.faults.iter().any(stale) { "" } else { key }
    }

    /// Runs the operation with its faults. Returns the number of kills and the recovery time.
    pub(crate) async fn run_with_faults(
        &self,
        env: &mut TestEnv,
        kube: &KubeProxy,
        auditor: &Auditor,
        key: &str,
    ) -> (usize, Duration) {
        let mut pauses: Vec<Pause> = self.faults.iter().filter_map(|fault| fault.install(env, kube)).collect();
        for fault in &self.faults {
            if let Fault::Profile(profile) = fault {
                profile.start(env, kube).await;
            }
        }
        self.operation.start(env, key, auditor).await;
        let mut since = Instant::now();
        for fault in &self.faults {
            if let Fault::Profile(profile) = fault {
                profile.stop(env, kube).await;
            }
        }
        let mut kills = 0;
        while !pauses.is_empty() {
            let any = select_all(pauses.iter().map(|pause| Box::pin(pause.wait_until_held(RECOVERY))));
            let hit = tokio::select! {
                (hit, index, _) = any => hit.then_some(index),
                // It completed without that call: an earlier fault changed the sequence.
                () = self.operation.end(env, self.key_to_replace(key)) => None,
            };
            let Some(index) = hit else { break };
            let pause = pauses.remove(index);
            env.operator.kill().await;
            pause.abort();
            kills += 1;
            env.operator.restart().await.expect("the operator restarts");
            since = Instant::now();
        }
        for pause in &pauses {
            pause.release();
        }
        self.operation.end(env, self.key_to_replace(key)).await;
        let recovery = since.elapsed();
        env.aws.rules().clear();
        kube.rules().clear();
        (kills, recovery)
    }
}

/// Starts a test environment whose operator uses both proxies, and an auditor.
pub(crate) async fn start_env() -> (TestEnv, KubeProxy, Auditor) {
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
    // The operator may be killed at any moment, so spans must be exported soon.
    let variables = vec![("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned())];
    let env_options =
        EnvOptions { arguments, variables, collector: Some(collector), kube_proxy: true, ..EnvOptions::default() };
    let mut env = TestEnv::with_options(env_options).await;
    let kube = env.kube.take().expect("a Kubernetes proxy");
    let auditor = Auditor::start(AuditTarget {
        client: env.client.clone(),
        namespace: env.namespace.clone(),
        operator_namespace: OPERATOR_NAMESPACE.to_owned(),
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

    /// How many extra keys the fault may cause.
    pub(crate) fn ambiguities(&self) -> usize {
        match self {
            Self::At(point, _) => usize::from(point.may_leave_an_orphan()),
            Self::Profile(profile) => profile.ambiguities,
        }
    }

    /// Adds the rule to a proxy. Returns the pause if the operator is killed at the call.
    fn install(&self, env: &TestEnv, kube: &KubeProxy) -> Option<Pause> {
        let Self::At(point, mode) = self else { return None };
        match point {
            FaultPoint::Aws { action, nth } => {
                let rule = Rule::on(action).nth(*nth);
                match mode {
                    FaultMode::KillBefore => Some(env.aws.rules().pause(rule)),
                    FaultMode::KillAfter => Some(env.aws.rules().pause(rule.after_commit())),
                    FaultMode::LostReply => {
                        env.aws.rules().add(rule.after_commit().drop_connection());
                        None
                    }
                    FaultMode::Refused => {
                        let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
                        env.aws.rules().add(rule.respond_with(error));
                        None
                    }
                }
            }
            FaultPoint::Kube { verb, resource, name, nth } => {
                let mut rule = KubeRule::on(verb, resource).nth(*nth);
                if let Some(name) = name {
                    rule = rule.name(name);
                }
                match mode {
                    FaultMode::KillBefore => Some(kube.rules().pause(rule)),
                    FaultMode::KillAfter => Some(kube.rules().pause(rule.after_commit())),
                    FaultMode::LostReply => {
                        kube.rules().add(rule.after_commit().drop_connection());
                        None
                    }
                    FaultMode::Refused => {
                        kube.rules().add(rule.respond_with(503, "ServiceUnavailable"));
                        None
                    }
                }
            }
        }
    }
}

/// Lists the mutating calls with their results, to diagnose a failed run.
fn describe_writes(
    env: &TestEnv,
    aws: awsdeploy_testkit::aws_proxy::LogPosition,
    kube: &KubeProxy,
    kube_position: u64,
) -> String {
    let aws = env.aws.log().mutating_calls_since(aws).into_iter().map(|call| (call.started, call.to_string()));
    let kube = kube.log().mutating_since(kube_position).into_iter().map(|call| (call.started, call.to_string()));
    let mut lines: Vec<(Timestamp, String)> = aws.chain(kube).collect();
    lines.sort();
    lines.iter().fold(String::new(), |mut text, (at, line)| {
        let _ = write!(text, "\n  {at} {line}");
        text
    })
}

/// The mutating calls to both APIs since the positions, in order of arrival.
fn trace(
    env: &TestEnv,
    aws: awsdeploy_testkit::aws_proxy::LogPosition,
    kube: &KubeProxy,
    kube_position: u64,
) -> Vec<FaultPoint> {
    let mut calls: Vec<(Timestamp, FaultPoint)> = Vec::new();
    for call in env.aws.log().mutating_calls_since(aws) {
        calls.push((call.started, FaultPoint::Aws { action: call.action, nth: 1 }));
    }
    for call in kube.log().mutating_since(kube_position) {
        // The names of Events are generated, and those of journals hold the UID of the resource.
        let name = call.name.filter(|_| call.resource != "events");
        let is_journal = name.as_ref().is_some_and(|name| name.starts_with(well_known::JOURNAL_PREFIX));
        let name = if is_journal { Some(format!("{}*", well_known::JOURNAL_PREFIX)) } else { name };
        calls.push((
            call.started,
            FaultPoint::Kube { verb: call.verb.to_owned(), resource: call.resource, name, nth: 1 },
        ));
    }
    calls.sort_by_key(|(at, _)| *at);
    let mut points: Vec<FaultPoint> = Vec::new();
    for (_, mut point) in calls {
        while points.contains(&point) {
            match &mut point {
                FaultPoint::Aws { nth, .. } | FaultPoint::Kube { nth, .. } => *nth += 1,
            }
        }
        points.push(point);
    }
    points
}
