//! Soak test: many rotations of one resource with random faults.

use std::time::{Duration, Instant};

use awsdeploy_testkit::{consumer::ConsumerReport, rng::SeededRng};

use crate::{
    cell::{self, Cell, Fault, FaultMode, FaultPoint},
    fault_profiles,
    operation::{Operation, RECOVERY},
};

#[derive(Default)]
pub(crate) struct SoakReport {
    pub(crate) rotations: usize,
    pub(crate) faulted: usize,
    pub(crate) kills: usize,
    pub(crate) longest: Duration,
    pub(crate) report: ConsumerReport,
    pub(crate) violations: Vec<String>,
}

/// Rotates one resource `rotations` times; about two of three rotations have a fault.
pub(crate) async fn run(seed: u64, rotations: usize, trace: &[FaultPoint]) -> SoakReport {
    let mut rng = SeededRng::new(seed);
    let mut worker = SoakReport::default();
    let (mut env, kube, auditor) = cell::start_env().await;
    let mut key = Operation::Rotation.prepare(&env).await;
    let (_mounted, consumer) = env.start_consumer("x", &env.iam("u").await.arn);
    consumer.wait_for("a first call", RECOVERY, |report| report.accepted > 0).await.expect("the consumer works");
    let mut ambiguities = 0;
    let started = Instant::now();
    for turn in 1..=rotations {
        let fault = match rng.below(6) {
            0 | 1 => None,
            2 => rng
                .choose(fault_profiles::ALL)
                .filter(|profile| !profile.changes_the_account())
                .copied()
                .map(Fault::Profile),
            _ => rng
                .choose(trace)
                .cloned()
                .zip(rng.choose(&FaultMode::ALL).copied())
                .map(|(at, mode)| Fault::At(at, mode)),
        };
        worker.faulted += usize::from(fault.is_some());
        ambiguities += fault.as_ref().map_or(0, Fault::ambiguities);
        let cell = Cell { operation: Operation::Rotation, faults: fault.into_iter().collect(), seed: Some(seed) };
        let (kills, recovery) = cell.run_with_faults(&mut env, &kube, &auditor, &key).await;
        key = env.published_key("x").await;
        worker.rotations += 1;
        worker.kills += kills;
        worker.longest = worker.longest.max(recovery);
        if turn % 10 == 0 {
            println!("worker {seed}: {turn} of {rotations} rotations after {:.0} s", started.elapsed().as_secs_f32());
        }
    }
    worker.report = consumer.stop().await;
    let evidence = [("the operator's log", env.log()), ("the traces", env.traces())];
    let violations = auditor.finish(ambiguities, &evidence).await.expect("the audit");
    worker.violations = violations.iter().map(ToString::to_string).collect();
    worker
}
