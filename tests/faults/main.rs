//! The fault runs: one fault, or a few, at every point where the operator writes something; afterwards all must be well.
//!
//! For each scenario the mutating calls of a run without faults are learned from the two proxies. Then each of these
//! calls is hit once in each way: the operator is killed before it, killed after it was committed and before the answer
//! arrived, the answer is lost, the call is refused. On top come bad weather on either side and seeded combinations.
//! An auditor watches every run; a consumer signs with the published key all the while.
//!
//! | variable | |
//! |---|---|
//! | `FAULTS=all` | everything, and `docs/fault-matrix.md` is written; else a short set |
//! | `ONLY=<text>` | only cells whose name contains the text |
//! | `SEEDS=<n>` | how many seeded combinations (200) |
//! | `SOAK=<n>` | nothing but so many rotations with faults at random |
//! | `THREADS=<n>` | runs at the same time (8) |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a run fails by a panic, tells how far it is, and lives in real time"
)]

mod cell;
mod fault_profiles;
mod matrix;
mod operation;
mod scenarios;
mod soak;
#[path = "../test_env/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other test program, which uses all of it")]
mod test_env;
mod tests;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Mutex, PoisonError, mpsc},
    time::Instant,
};

use cell::{Cell, Fault, Mode, Outcome};
use matrix::Matrix;
use operation::Operation;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    // Tools that ask for a list get an empty one: the cells are not known before the traces are.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let only = std::env::var("ONLY").ok().filter(|only| !only.is_empty()).or(filter);
    let all = std::env::var("FAULTS").is_ok_and(|set| set == "all");
    let held = match usize::try_from(number("SOAK", 0)).unwrap_or(0) {
        0 => run(all, only.as_ref()),
        rotations => soak(rotations),
    };
    test_env::stop();
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs jobs, some at a time, and tells of each that has ended.
fn run_all<J: Send, R: Send>(jobs: Vec<J>, threads: usize, work: impl Fn(J) -> R + Sync, mut told: impl FnMut(R)) {
    let queue = Mutex::new(VecDeque::from(jobs));
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (queue, work, sender) = (&queue, &work, sender.clone());
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(job) = next else { return };
                    if sender.send(work(job)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        results.into_iter().for_each(&mut told);
    });
}

fn threads() -> usize {
    usize::try_from(number("THREADS", 8)).unwrap_or(8).max(1)
}

/// Runs a cell. One that panics costs itself.
fn run_cell(cell: Cell) -> (Cell, Outcome) {
    let outcome = catch_unwind(AssertUnwindSafe(|| test_env::block_on(cell.clone().run())));
    (cell, Outcome::of(outcome))
}

/// Plays the stories that `wanted` names, those that need the control plane for themselves last.
fn play(matrix: &mut Matrix, wanted: impl Fn(&str) -> bool) {
    let runs = |alone: bool| -> Vec<_> {
        let scenarios = scenarios::ALL.iter().filter(|scenario| scenario.alone == alone);
        let runs = scenarios.flat_map(|scenario| scenario.runs.iter().map(|run| (scenario.number, *run)));
        runs.filter(|(number, (name, _))| wanted(&scenarios::name(*number, name))).collect()
    };
    let total = runs(false).len() + runs(true).len();
    let mut done = 0;
    for (jobs, threads) in [(runs(false), threads()), (runs(true), 1)] {
        let work = |(number, (name, play)): (u32, scenarios::Run)| {
            let begun = Instant::now();
            let outcome = catch_unwind(play).map(|()| Outcome::default());
            (number, name, Outcome { took: begun.elapsed(), ..Outcome::of(outcome) })
        };
        run_all(jobs, threads, work, |(number, name, outcome)| {
            done += 1;
            let verdict = if outcome.held() { "ok" } else { "FAILED" };
            let full = scenarios::name(number, name);
            println!(
                "[{done}/{total}] {full}: {verdict} {} ({:.1} s)",
                outcome.violations.join("; "),
                outcome.took.as_secs_f32()
            );
            if !outcome.held() {
                println!("    again: make faults ONLY='{full}'");
            }
            matrix.enter_scenario(number, name, outcome);
        });
    }
}

/// Whether every cell held.
fn run(all: bool, only: Option<&String>) -> bool {
    let mut matrix = Matrix::default();
    let mut learned = Vec::new();
    if only.is_some_and(|only| only.starts_with("scenario")) {
        play(&mut matrix, |name| only.is_none_or(|only| name.contains(only.as_str())));
        println!("{}", matrix.summary());
        return matrix.held();
    }
    // A fault-free run of each scenario first. It is also the one that shows that the auditor is content without faults.
    let named = |only: &String| Operation::ALL.iter().any(|any| only.starts_with(&format!("{}/", any.name())));
    let wanted = |scenario: &Operation| match only {
        Some(only) if named(only) => only.starts_with(&format!("{}/", scenario.name())),
        _ => all || only.is_some() || scenario.is_short(),
    };
    let plain =
        Operation::ALL.into_iter().filter(wanted).map(|scenario| Cell { scenario, faults: Vec::new(), seed: None });
    run_all(plain.collect(), threads(), run_cell, |(cell, outcome)| {
        println!("without faults, {}: {outcome}", cell.scenario.name());
        learned.push((cell.scenario, outcome.trace.clone()));
        if !outcome.held() {
            matrix.enter(cell, outcome);
        }
    });
    learned.sort_by_key(|(scenario, _)| scenario.name());

    let mut cells = Vec::new();
    for (scenario, trace) in &learned {
        for point in trace {
            for mode in Mode::ALL {
                let short = scenario.is_short() && mode.is_short() && point.is_short();
                if all || only.is_some() || short {
                    cells.push(Cell { scenario: *scenario, faults: vec![Fault::At(point.clone(), mode)], seed: None });
                }
            }
        }
        for profile in fault_profiles::ALL {
            if all || only.is_some() || (scenario.is_short() && profile.short) {
                cells.push(Cell { scenario: *scenario, faults: vec![Fault::Profile(*profile)], seed: None });
            }
        }
    }
    if all || only.is_some() {
        cells.extend((1..=number("SEEDS", 200)).filter_map(|seed| Cell::seeded(seed, &learned)));
    }
    if let Some(only) = only {
        cells.retain(|cell| cell.name().contains(only.as_str()));
    }

    let total = cells.len();
    let mut done = 0;
    run_all(cells, threads(), run_cell, |(cell, outcome)| {
        done += 1;
        println!("[{done}/{total}] {}: {outcome}", cell.name());
        if !outcome.held() {
            println!("    again: make faults ONLY='{}'", cell.name());
        }
        matrix.enter(cell, outcome);
        if all && only.is_none() && done % 25 == 0 {
            matrix.write().expect("docs/fault-matrix.md is written");
        }
    });
    if all || only.is_some() {
        play(&mut matrix, |name| only.is_none_or(|only| name.contains(only.as_str())));
    }
    if all && only.is_none() {
        matrix.write().expect("docs/fault-matrix.md is written");
    }
    let missing = scenarios::missing_units();
    println!("{}{}", missing.join("\n"), matrix.summary());
    matrix.held() && missing.is_empty()
}

/// Whether a soak of so many rotations held.
fn soak(rotations: usize) -> bool {
    let threads = threads();
    let mut trace = Vec::new();
    let plain = Cell { scenario: Operation::Rotation, faults: Vec::new(), seed: None };
    run_all(vec![plain], 1, run_cell, |(_, outcome)| trace = outcome.trace);
    let lanes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|lane| {
                let (trace, share) = (&trace, rotations.div_ceil(threads));
                scope.spawn(move || test_env::block_on(soak::run(lane as u64 + 1, share, trace)))
            })
            .collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut held = true;
    let mut sum = soak::Lane::default();
    for lane in lanes {
        let Ok(lane) = lane else {
            held = false;
            continue;
        };
        held &= lane.violations.is_empty() && lane.report.refused == 0;
        sum.rotations += lane.rotations;
        sum.faulted += lane.faulted;
        sum.kills += lane.kills;
        sum.longest = sum.longest.max(lane.longest);
        sum.report.accepted += lane.report.accepted;
        sum.report.refused += lane.report.refused;
        sum.violations.extend(lane.violations);
    }
    println!(
        "soak: {} rotations, {} of them with a fault, {} kills; {} calls of consumers accepted, {} refused; longest recovery {:.1} s; {} violations {:#?}",
        sum.rotations,
        sum.faulted,
        sum.kills,
        sum.report.accepted,
        sum.report.refused,
        sum.longest.as_secs_f32(),
        sum.violations.len(),
        sum.violations
    );
    held
}
