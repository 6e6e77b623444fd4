//! Rotation after rotation on one resource, with faults at random, until the number is full.

use std::time::{Duration, Instant};

use awsdeploy_testkit::consumer::Report;

use crate::{
    cell::{self, Cell, Dice, Fault, Mode, Point},
    scenario::{RECOVERY, Scenario},
    weather,
};

/// Weather that stays is no fault that a rotation is over with.
const LASTING: [&str; 2] = ["aws-new-keys-late", "aws-old-keys-linger"];

/// What a lane has seen.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) rotations: usize,
    pub(crate) faulted: usize,
    pub(crate) kills: usize,
    pub(crate) longest: Duration,
    pub(crate) report: Report,
    pub(crate) violations: Vec<String>,
}

/// Rotates one resource so many times; about two of three rotations meet a fault.
pub(crate) async fn run(seed: u64, rotations: usize, trace: &[Point]) -> Lane {
    let mut dice = Dice(seed);
    let mut lane = Lane::default();
    let (mut stage, kube, auditor) = cell::set().await;
    let mut key = Scenario::Rotation.prepare(&stage).await;
    let (_mounted, consumer) = stage.consume("x", &stage.iam("u").await.arn);
    consumer.until("a first call", RECOVERY, |report| report.accepted > 0).await.expect("the consumer works");
    let mut ambiguities = 0;
    let begun = Instant::now();
    for turn in 1..=rotations {
        let fault = match dice.below(6) {
            0 | 1 => None,
            2 => dice.one_of(weather::ALL).filter(|kind| !LASTING.contains(&kind.name)).copied().map(Fault::Weather),
            _ => {
                dice.one_of(trace).cloned().zip(dice.one_of(&Mode::ALL).copied()).map(|(at, mode)| Fault::At(at, mode))
            }
        };
        lane.faulted += usize::from(fault.is_some());
        ambiguities += fault.as_ref().map_or(0, Fault::ambiguities);
        let cell = Cell { scenario: Scenario::Rotation, faults: fault.into_iter().collect(), seed: Some(seed) };
        let (kills, recovery) = cell.strike(&mut stage, &kube, &auditor, &key).await;
        key = stage.published("x").await;
        lane.rotations += 1;
        lane.kills += kills;
        lane.longest = lane.longest.max(recovery);
        if turn % 10 == 0 {
            println!("lane {seed}: {turn} of {rotations} rotations after {:.0} s", begun.elapsed().as_secs_f32());
        }
    }
    lane.report = consumer.stop().await;
    let evidence = [("the operator's log", stage.log()), ("the traces", stage.traces())];
    let violations = auditor.finish(ambiguities, &evidence).await.expect("the audit");
    lane.violations = violations.iter().map(ToString::to_string).collect();
    lane
}
