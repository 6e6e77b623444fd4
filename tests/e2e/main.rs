//! The whole of it on a real node: the image, the chart, and a pod that mounts the Secret and signs with it.
//!
//! One story, told in order, on one cluster: a claim builds on those before it, and the first that fails ends the story.
//! `make e2e` runs it in namespaces of its own ([`network`] says why); see `run` beside this file.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a claim fails by a panic, tells how far it is, and lives in real time"
)]

mod cgroup;
mod image;
mod machine;
mod network;
mod node;
mod shell;
mod story;
mod summary;
mod version;
mod workload;
mod world;

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use world::World;

/// A claim: its name, and how it is shown.
type Claim = (&'static str, for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>);

macro_rules! claims {
    ($($module:ident: { $($name:ident),+ $(,)? })+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), |world| Box::pin(story::$module::$name(world)))),+),+]
    };
}

const CLAIMS: &[Claim] = claims! {
    install: {
        the_image_holds_one_program_that_runs_as_nobody,
        the_chart_installs_from_zero_and_gets_ready,
    }
    keys: {
        the_readme_manifest_gets_ready,
        an_example_gets_ready_and_is_left_alone,
        a_pod_signs_with_the_mounted_files,
        three_rotations_reach_the_mounted_files,
    }
    release: {
        an_upgrade_in_the_middle_of_a_rotation_loses_nothing,
        a_rollback_goes_on_with_the_same_key,
        the_next_upgrade_takes_new_values_and_keeps_the_key,
        a_rollback_in_the_middle_of_a_rotation_loses_nothing,
    }
    restarts: {
        a_program_with_the_key_in_its_environment_is_restarted_before_the_old_key_goes,
    }
    faults: {
        the_standby_takes_over_from_a_deleted_leader_pod,
        an_operator_killed_on_its_node_leaves_no_key_behind,
        a_rollout_restart_in_the_middle_of_a_rotation_loses_nothing,
    }
    release: {
        an_uninstall_leaves_a_live_resource_working,
        no_call_of_the_pod_was_refused,
        a_finalizer_that_is_taken_off_by_hand_leaves_the_iam_user,
        a_deletion_without_an_operator_waits_and_the_next_one_finishes_it,
        a_removal_in_the_documented_order_leaves_nothing,
    }
};

/// No claim takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    // Tools that ask for a list get an empty one.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(version::PROGRAMS_VARIABLE).is_none() || std::process::id() != 1 {
        println!("e2e: nothing done, since it needs a node of its own: make e2e");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be awaited");
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be awaited");
        // What drops here is stopped and removed here: the node, its mounts, its cgroups, its directory.
        tokio::select! {
            held = tell() => if held { ExitCode::SUCCESS } else { ExitCode::FAILURE },
            _ = terminate.recv() => ExitCode::from(143),
            _ = interrupt.recv() => ExitCode::from(130),
        }
    })
}

/// Sets the stage and tells the story; whether every claim held.
async fn tell() -> bool {
    let begun = Instant::now();
    println!("== A node");
    let mut world = match World::set_up().await {
        Ok(world) => world,
        Err(error) => {
            println!("e2e: the node could not be set up: {error}");
            println!("0 passed, 0 failed, {} not run", CLAIMS.len());
            return false;
        }
    };
    let mut passed = 0;
    let mut failed = 0;
    for (name, claim) in CLAIMS {
        println!("\n== {name}");
        let started = Instant::now();
        let shown = AssertUnwindSafe(tokio::time::timeout(LIMIT, claim(&mut world))).catch_unwind().await;
        let verdict = match shown {
            Ok(Ok(())) => "ok",
            Ok(Err(_)) => "FAILED: it took too long",
            Err(_) => "FAILED",
        };
        println!("{name}: {verdict} ({:.1} s)", started.elapsed().as_secs_f32());
        if verdict == "ok" {
            passed += 1;
        } else {
            failed += 1;
            world.explain().await;
            break;
        }
    }
    println!("\n== Summary");
    world.summary.fact("time", format!("{} s", begun.elapsed().as_secs()));
    print!("{}", world.summary);
    let left = CLAIMS.len() - passed - failed;
    let left = if left > 0 { format!(", {left} not run") } else { String::new() };
    println!("{passed} passed, {failed} failed{left}");
    world.stop().await;
    failed == 0
}
