//! Fault injection: one or more faults at every write of the operator, after each of which it must recover.
//!
//! For each operation the mutating calls of a run without faults are recorded from the two proxies. Then each call is
//! hit once in each mode: the operator is killed before it, killed after the commit and before the response, the
//! response is lost, the call is refused. Fault profiles for either API and seeded combinations come on top.
//! An auditor checks the invariants of every run; a consumer signs with the published key throughout.
//!
//! | variable | |
//! |---|---|
//! | `FAULTS=short` | a short set |
//! | `FAULTS=all` | everything, and the fault matrix is written to `FAULT_MATRIX` |
//! | `ONLY=<text>` | only cells whose name contains the text |
//! | `SEEDS=<n>` | how many seeded combinations (200) |
//! | `SOAK=<n>` | only this number of rotations with random faults |
//! | `THREADS=<n>` | runs at the same time (8) |
//!
//! Without `FAULTS`, `ONLY` or `SOAK` nothing runs: `cargo test` has no minutes for it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a run fails by a panic, prints its progress, and waits in real time"
)]

mod cell;
mod fault_profiles;
mod matrix;
mod operation;
mod scenarios;
mod soak;
#[path = "../test_env/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the it tests, which use all of it")]
mod test_env;
mod tests;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Mutex, PoisonError, mpsc},
    time::Instant,
};

use awsdeploy_testkit::rng::number;
use cell::{Cell, Fault, FaultMode, Outcome};
use matrix::Matrix;
use operation::Operation;

fn main() -> ExitCode {
    // The list is empty: the cells are known only after the runs without faults.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    // Also when nothing runs: a renamed test must fail `make test`, not only the long suite.
    let missing = scenarios::missing_unit_tests();
    if !missing.is_empty() {
        println!("scenarios name unit tests that do not exist: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let (only, faults) = (variable("ONLY"), variable("FAULTS"));
    let passed = match usize::try_from(number("SOAK", 0)).unwrap_or(0) {
        0 if only.is_none() && faults.is_none() => {
            println!("faults: skipped; run: make faults-short");
            return ExitCode::SUCCESS;
        }
        0 => run(faults.is_some_and(|set| set == "all"), only.as_ref()),
        rotations => soak(rotations),
    };
    test_env::stop();
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs jobs on `threads` threads and passes each result to `on_result`.
fn run_all<J: Send, R: Send>(jobs: Vec<J>, threads: usize, work: impl Fn(J) -> R + Sync, mut on_result: impl FnMut(R)) {
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
        results.into_iter().for_each(&mut on_result);
    });
}

fn threads() -> usize {
    usize::try_from(number("THREADS", 8)).unwrap_or(8).max(1)
}

/// Runs a cell. A panic fails this cell only.
fn run_cell(cell: Cell) -> (Cell, Outcome) {
    let outcome = catch_unwind(AssertUnwindSafe(|| test_env::block_on(cell.clone().run())));
    (cell, Outcome::of(outcome))
}

/// Runs the selected scenarios, those that need the control plane exclusively last.
fn run_scenarios(matrix: &mut Matrix, wanted: impl Fn(&str) -> bool) {
    let runs = |alone: bool| -> Vec<_> {
        let scenarios = scenarios::ALL.iter().filter(|scenario| scenario.alone == alone);
        let runs = scenarios.flat_map(|scenario| scenario.runs.iter().map(|run| (scenario.number, *run)));
        runs.filter(|(number, (name, _))| wanted(&scenarios::name(*number, name))).collect()
    };
    let total = runs(false).len() + runs(true).len();
    let mut done = 0;
    for (jobs, threads) in [(runs(false), threads()), (runs(true), 1)] {
        let work = |(number, (name, run)): (u32, scenarios::Run)| {
            let started = Instant::now();
            let outcome = catch_unwind(run).map(|()| Outcome::default());
            (number, name, Outcome { took: started.elapsed(), ..Outcome::of(outcome) })
        };
        run_all(jobs, threads, work, |(number, name, outcome)| {
            done += 1;
            let result = if outcome.passed() { "ok" } else { "FAILED" };
            let full = scenarios::name(number, name);
            println!(
                "[{done}/{total}] {full}: {result} {} ({:.1} s)",
                outcome.violations.join("; "),
                outcome.took.as_secs_f32()
            );
            if !outcome.passed() {
                println!("    repeat with: make faults ONLY='{full}'");
            }
            matrix.record_scenario(number, name, outcome);
        });
    }
}

/// Runs cells and scenarios. Returns whether all passed.
fn run(all: bool, only: Option<&String>) -> bool {
    let mut matrix = Matrix::default();
    let mut traces = Vec::new();
    if only.is_some_and(|only| only.starts_with("scenario")) {
        run_scenarios(&mut matrix, |name| only.is_none_or(|only| name.contains(only.as_str())));
        println!("{}", matrix.summary());
        return matrix.passed();
    }
    // A run of each operation without faults first. It also proves that the auditor reports nothing then.
    let named = |only: &String| Operation::ALL.iter().any(|any| only.starts_with(&format!("{}/", any.name())));
    let wanted = |operation: &Operation| match only {
        Some(only) if named(only) => only.starts_with(&format!("{}/", operation.name())),
        _ => all || only.is_some() || operation.is_short(),
    };
    let plain =
        Operation::ALL.into_iter().filter(wanted).map(|operation| Cell { operation, faults: Vec::new(), seed: None });
    run_all(plain.collect(), threads(), run_cell, |(cell, outcome)| {
        println!("without faults, {}: {outcome}", cell.operation.name());
        traces.push((cell.operation, outcome.trace.clone()));
        if !outcome.passed() {
            matrix.record(cell, outcome);
        }
    });
    traces.sort_by_key(|(operation, _)| operation.name());

    let mut cells = Vec::new();
    for (operation, trace) in &traces {
        for point in trace {
            for mode in FaultMode::ALL {
                let short = operation.is_short() && mode.is_short() && point.is_short();
                if all || only.is_some() || short {
                    cells.push(Cell {
                        operation: *operation,
                        faults: vec![Fault::At(point.clone(), mode)],
                        seed: None,
                    });
                }
            }
        }
        for profile in fault_profiles::ALL {
            if all || only.is_some() || (operation.is_short() && profile.short) {
                cells.push(Cell { operation: *operation, faults: vec![Fault::Profile(*profile)], seed: None });
            }
        }
    }
    if all || only.is_some() {
        cells.extend((1..=number("SEEDS", 200)).filter_map(|seed| Cell::from_seed(seed, &traces)));
    }
    if let Some(only) = only {
        cells.retain(|cell| cell.name().contains(only.as_str()));
    }

    let total = cells.len();
    let mut done = 0;
    run_all(cells, threads(), run_cell, |(cell, outcome)| {
        done += 1;
        println!("[{done}/{total}] {}: {outcome}", cell.name());
        if !outcome.passed() {
            println!("    repeat with: make faults ONLY='{}'", cell.name());
        }
        matrix.record(cell, outcome);
        if all && only.is_none() && done % 25 == 0 {
            matrix.write().expect("the fault matrix is written");
        }
    });
    if all || only.is_some() {
        run_scenarios(&mut matrix, |name| only.is_none_or(|only| name.contains(only.as_str())));
    }
    if all && only.is_none() {
        matrix.write().expect("the fault matrix is written");
    }
    println!("{}", matrix.summary());
    matrix.passed()
}

/// Soaks for the number of rotations. Returns whether all passed.
fn soak(rotations: usize) -> bool {
    let threads = threads();
    let mut trace = Vec::new();
    let plain = Cell { operation: Operation::Rotation, faults: Vec::new(), seed: None };
    run_all(vec![plain], 1, run_cell, |(_, outcome)| trace = outcome.trace);
    let reports: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|worker| {
                let (trace, share) = (&trace, rotations.div_ceil(threads));
                scope.spawn(move || test_env::block_on(soak::run(worker as u64 + 1, share, trace)))
            })
            .collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut passed = true;
    let mut sum = soak::SoakReport::default();
    for worker in reports {
        let Ok(worker) = worker else {
            passed = false;
            continue;
        };
        passed &= worker.violations.is_empty() && worker.report.refused == 0;
        sum.rotations += worker.rotations;
        sum.faulted += worker.faulted;
        sum.kills += worker.kills;
        sum.longest = sum.longest.max(worker.longest);
        sum.report.accepted += worker.report.accepted;
        sum.report.refused += worker.report.refused;
        sum.violations.extend(worker.violations);
    }
    println!(
        "soak: {} rotations, {} with a fault, {} kills; {} consumer calls accepted, {} refused; longest recovery {:.1} s; {} violations {:#?}",
        sum.rotations,
        sum.faulted,
        sum.kills,
        sum.report.accepted,
        sum.report.refused,
        sum.longest.as_secs_f32(),
        sum.violations.len(),
        sum.violations
    );
    passed
}
