//! End-to-end tests on a real node: the image, the chart, and a pod that mounts the Secret and signs with it.
//!
//! One ordered scenario on one cluster: each test depends on those before it, and the first failure ends the run.
//! `make e2e` runs it in separate namespaces (see [`network`] and the script `run`).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "tests fail by panic, print their progress, and use the real clock"
)]

mod cgroup;
mod environment;
mod image;
mod isolation;
mod network;
mod node;
mod scenario;
mod shell;
mod summary;
mod version;
mod workload;

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use environment::E2eEnv;
use futures::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// Name and function of a test.
type Test = (&'static str, for<'a> fn(&'a mut E2eEnv) -> Pin<Box<dyn Future<Output = ()> + 'a>>);

macro_rules! tests {
    ($($module:ident: { $($name:ident),+ $(,)? })+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), |env| Box::pin(scenario::$module::$name(env)))),+),+]
    };
}

const TESTS: &[Test] = tests! {
    install: {
        image_contains_one_binary_and_runs_as_non_root,
        chart_installs_and_becomes_ready,
    }
    keys: {
        readme_manifest_becomes_ready,
        example_becomes_ready,
        pod_signs_with_the_mounted_key,
        three_rotations_update_the_mounted_files,
    }
    release: {
        upgrade_during_rotation_loses_no_key,
        rollback_keeps_the_published_key,
        second_upgrade_applies_values_and_keeps_the_key,
        rollback_during_rotation_loses_no_key,
    }
    restarts: {
        workload_is_restarted_before_previous_key_is_retired,
    }
    handover: {
        previous_key_waits_for_the_agents_confirmation,
    }
    faults: {
        standby_takes_over_after_leader_pod_is_deleted,
        killed_operator_leaves_no_orphaned_key,
        rollout_restart_during_rotation_loses_no_key,
    }
    release: {
        uninstall_keeps_published_keys_working,
        no_call_of_the_pod_was_refused,
        manually_removed_finalizer_keeps_the_iam_user,
        deletion_without_operator_completes_after_reinstall,
        documented_removal_leaves_no_objects,
    }
};

/// Limit of one test. Generous, because machines are busy.
const TEST_LIMIT: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    // Test tools list the tests with --list.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(version::PROGRAMS_VARIABLE).is_none() || std::process::id() != 1 {
        println!("e2e: skipped, because it needs a node; run: make e2e");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be awaited");
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be awaited");
        // Dropping the future stops and removes the node, its mounts, its cgroups and its directory.
        tokio::select! {
            passed = run_scenario() => if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE },
            _ = terminate.recv() => ExitCode::from(143),
            _ = interrupt.recv() => ExitCode::from(130),
        }
    })
}

/// Starts the environment and runs all tests; returns whether all passed.
async fn run_scenario() -> bool {
    let begun = Instant::now();
    println!("== Set-up");
    let mut env = match E2eEnv::start().await {
        Ok(env) => env,
        Err(error) => {
            println!("e2e: failed to start the node: {error}");
            println!("0 passed, 0 failed, {} not run", TESTS.len());
            return false;
        }
    };
    let mut passed = 0;
    let mut failed = 0;
    for (name, test) in TESTS {
        println!("\n== {name}");
        let started = Instant::now();
        let result = AssertUnwindSafe(tokio::time::timeout(TEST_LIMIT, test(&mut env))).catch_unwind().await;
        let outcome = match result {
            Ok(Ok(())) => "ok",
            Ok(Err(_)) => "FAILED: timed out",
            Err(_) => "FAILED",
        };
        println!("{name}: {outcome} ({:.1} s)", started.elapsed().as_secs_f32());
        if outcome == "ok" {
            passed += 1;
        } else {
            failed += 1;
            env.print_diagnostics().await;
            break;
        }
    }
    println!("\n== Summary");
    env.summary.add("time", format!("{} s", begun.elapsed().as_secs()));
    print!("{}", env.summary);
    let skipped = TESTS.len() - passed - failed;
    let skipped = if skipped > 0 { format!(", {skipped} not run") } else { String::new() };
    println!("{passed} passed, {failed} failed{skipped}");
    env.stop().await;
    failed == 0
}
