//! Rotation after rotation on one resource, with faults at random, until the number is full.

use std::time::{Duration, Instant};

use awsdeploy_testkit::consumer::ConsumerReport;

use crate::{
    cell::{self, Cell, Dice, Fault, Mode, Point},
    fault_profiles,
    operation::{Operation, RECOVERY},
};

/// FaultProfile that stays is no fault that a rotation is over with.
const LASTING: [&str; 2] = ["aws-new-keys-late", "aws-old-keys-linger"];

/// What a lane has seen.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) rotations: usize,
    pub(crate) faulted: usize,
    pub(crate) kills: usize,
    pub(crate) longest: Duration,
    pub(crate) report: ConsumerReport,
    pub(crate) violations: Vec<String>,
}

/// Rotates one resource so many times; about two of three rotations meet a fault.
pub(crate) async fn run(seed: u64, rotations: usize, trace: &[Point]) -> Lane {
    let mut dice = Dice(seed);
    let mut lane = Lane::default();
    let (mut env, kube, auditor) = cell::set().await;
    let mut key = Operation::Rotation.prepare(&env).await;
    let (_mounted, consumer) = env.consume("x", &env.iam("u").await.arn);
    consumer.wait_for("a first call", RECOVERY, |report| report.accepted > 0).await.expect("the consumer works");
    let mut ambiguities = 0;
    let begun = Instant::now();
    for turn in 1..=rotations {
        let fault = match dice.below(6) {
            0 | 1 => None,
            2 => dice
                .one_of(fault_profiles::ALL)
                .filter(|kind| !LASTING.contains(&kind.name))
                .copied()
                .map(Fault::Profile),
            _ => {
                dice.one_of(trace).cloned().zip(dice.one_of(&Mode::ALL).copied()).map(|(at, mode)| Fault::At(at, mode))
            }
        };
        lane.faulted += usize::from(fault.is_some());
        ambiguities += fault.as_ref().map_or(0, Fault::ambiguities);
        let cell = Cell { scenario: Operation::Rotation, faults: fault.into_iter().collect(), seed: Some(seed) };
        let (kills, recovery) = cell.strike(&mut env, &kube, &auditor, &key).await;
        key = env.published("x").await;
        lane.rotations += 1;
        lane.kills += kills;
        lane.longest = lane.longest.max(recovery);
        if turn % 10 == 0 {
            println!("lane {seed}: {turn} of {rotations} rotations after {:.0} s", begun.elapsed().as_secs_f32());
        }
    }
    lane.report = consumer.stop().await;
    let evidence = [("the operator's log", env.log()), ("the traces", env.traces())];
    let violations = auditor.finish(ambiguities, &evidence).await.expect("the audit");
    lane.violations = violations.iter().map(ToString::to_string).collect();
    lane
}
