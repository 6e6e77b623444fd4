//! Runs the fuzz targets in a plain loop: mutations of seeds by a deterministic generator, on the stable compiler.
//!
//! | variable | |
//! |---|---|
//! | `FUZZ_SECONDS=<n>` | time of each target (4) |
//! | `FUZZ_SEED=<n>` | the seed (1) |
//! | `FUZZ_ONLY=<name>` | only this target |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a target fails by a panic, and the loop prints its counts and runs for a time"
)]

mod targets;

use std::{
    panic::catch_unwind,
    process::ExitCode,
    time::{Duration, Instant},
};

use awsdeploy_testkit::rng::{SeededRng, number};
use targets::{ALL, FuzzTarget};

/// A request to the API server has at most 1.5 MiB.
const MAX_INPUT: usize = 1_500_000;
/// An input that takes longer hangs. Far above what a slow debug build on a busy machine needs: this is no measurement.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Share of inputs, one of this number, that are grown to the largest size.
const LARGE_EVERY: u64 = 500;

/// Pieces that parsers treat in a special way.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "null",
    "true",
    "-1",
    "1e999",
    "\\u0000",
    "{{",
    "}}",
    "{%",
    "%}",
    "|",
    "*",
    "?",
    "${aws:PrincipalTag/x}",
    "\n",
    "\n\n",
    "=",
    "9999-12-31T23:59:59Z",
    "AKIA0000000000000000",
    "awsdeploy.dev/uid",
    targets::CANARY,
];

fn mutate(rng: &mut SeededRng, seeds: &[Vec<u8>], large: bool) -> Vec<u8> {
    let mut input = rng.pick(seeds).clone();
    for _ in 0..=rng.below(6) {
        let at = rng.below(input.len() + 1);
        let end = (at + rng.below(24)).min(input.len());
        match rng.below(6) {
            0 => drop(input.drain(at..end)),
            1 => drop(input.splice(at..at, rng.pick(PIECES).bytes())),
            2 => drop(input.splice(at..end, rng.pick(PIECES).bytes())),
            3 => {
                let other = rng.pick(seeds);
                let from = rng.below(other.len());
                let to = (from + rng.below(64)).min(other.len());
                let part = other[from..to].to_vec();
                drop(input.splice(at..at, part));
            }
            4 => {
                let part = input[at..end].repeat(1 + rng.below(40));
                drop(input.splice(at..at, part));
            }
            _ if at < input.len() => input[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
    if large && !input.is_empty() {
        let (at, piece) = (rng.below(input.len()), rng.pick(PIECES).as_bytes());
        let count = MAX_INPUT.saturating_sub(input.len()) / piece.len();
        drop(input.splice(at..at, piece.repeat(count)));
    }
    input.truncate(MAX_INPUT);
    input
}

/// Runs one target for a time. Returns the input that failed, if one did.
fn run(target: &FuzzTarget, seed: u64, time: Duration) -> Result<(), String> {
    let seeds = (target.seeds)();
    let mut rng = SeededRng::new(seed);
    let (begun, mut inputs, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    while begun.elapsed() < time {
        let input = match seeds.get(usize::try_from(inputs).unwrap_or(usize::MAX)) {
            Some(seed) => seed.clone(),
            None => mutate(&mut rng, &seeds, inputs % LARGE_EVERY == 0),
        };
        let (started, body) = (Instant::now(), target.run);
        let passed = catch_unwind(|| body(&input)).is_ok();
        slowest = slowest.max(started.elapsed());
        if !passed || slowest > MAX_TIME {
            let shown: String = String::from_utf8_lossy(&input).chars().take(2000).collect();
            return Err(format!(
                "{}: seed {seed}, input {inputs} ({} bytes, {slowest:?}): {shown}",
                target.name,
                input.len()
            ));
        }
        inputs += 1;
    }
    println!("fuzz {}: seed {seed}, {inputs} inputs, slowest {slowest:.1?}", target.name);
    Ok(())
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let (seed, time) = (number("FUZZ_SEED", 1), Duration::from_secs(number("FUZZ_SECONDS", 4)));
    let only = std::env::var("FUZZ_ONLY").unwrap_or_default();
    let targets = ALL.iter().filter(|target| only.is_empty() || target.name == only);
    let results: Vec<_> = targets.map(|target| run(target, seed, time)).collect();
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        println!("{error}");
    }
    let failed = results.iter().filter(|result| result.is_err()).count();
    println!("fuzz: {} targets, {failed} failed", results.len());
    if failed == 0 && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
