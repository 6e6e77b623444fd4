//! What many resources cost: time, memory, and calls to AWS. A measurement and no test: nothing fails for being slow.
//!
//! `make bench` makes a thousand users, each with a policy and a key, then starts the operator anew with all of them in
//! place, and then lets an hour pass in which nothing happens. `BENCH=<n>` makes it another number.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a measurement ends by a panic if it cannot be made, tells how far it is, and lives in real time"
)]

#[path = "../test_env/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests, which use all of it")]
mod test_env;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use awsdeploy_testkit::aws_proxy::{CallRecord, LogPosition};
use futures::{StreamExt as _, stream};
use kube::api::ListParams;
use serde_json::json;
use test_env::TestEnv;

/// Time without a change after which there is nothing to wait for any more.
const STANDSTILL: Duration = Duration::from_mins(3);
/// An hour of the operator's intervals.
const HOUR: Duration = Duration::from_mins(6);

fn main() {
    let wanted = std::env::var("BENCH").ok().and_then(|number| number.parse().ok());
    let Some(resources) = wanted.filter(|_| !std::env::args().any(|argument| argument == "--list")) else {
        println!("bench: nothing measured, since nobody asked for it: make bench");
        return;
    };
    test_env::block_on(measure(resources));
    test_env::stop();
}

async fn measure(resources: usize) {
    // As after an installation, but for AWS's pace, which an account of its own would set.
    // Intervals of a tenth: an hour of them passes in six minutes.
    let arguments = ["--resync=1m", "--key-check=6m", "--secret-check=1m", "--aws-rate=500", "--verify-interval=1s"];
    let mut env = TestEnv::with_arguments(&arguments).await;
    println!("operator without resources: {}", memory(&env));

    let (begun, mark) = (Instant::now(), env.aws.log().position());
    let apply = |number: usize| {
        let spec = json!({
            "policies": {"managed": ["AmazonEC2FullAccess"]},
            "accessKey": {"rotation": {"every": "90d"}},
        });
        let env = &env;
        async move { drop(env.apply(&format!("user-{number:04}"), spec).await) }
    };
    stream::iter(0..resources).map(apply).buffer_unordered(16).collect::<Vec<()>>().await;
    println!("{resources} resources applied after {:.0} s", begun.elapsed().as_secs_f32());
    let ready = async || {
        let all = env.users().list(&ListParams::default()).await.expect("the resources").items;
        let is_ready = |user: &&awsdeploy::api::AwsDeployUser| {
            let conditions = user.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        all.iter().filter(is_ready).count()
    };
    until(resources, "Ready", ready).await;
    println!("all Ready after {:.0} s: {}; {}", begun.elapsed().as_secs_f32(), memory(&env), calls(&env, mark));

    let (begun, mark) = (Instant::now(), env.aws.log().position());
    env.operator.restart().await.expect("the operator restarts");
    let looked = async || {
        let passes = env.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await;
        usize::try_from(passes).unwrap_or(usize::MAX).min(resources)
    };
    until(resources, "looked at", looked).await;
    let took = begun.elapsed().as_secs_f32();
    println!("started anew, all looked at after {took:.0} s: {}; {}", memory(&env), calls(&env, mark));

    let mark = env.aws.log().position();
    tokio::time::sleep(HOUR).await;
    let calls = env.aws.log().calls_since(mark);
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let each = calls.len() as f32 / resources as f32;
    println!("an hour in which nothing happens, at ten times the pace: {each:.2} calls each; {:?}", by_action(&calls));
}

/// Waits until so many are; ends where nothing moves any more.
async fn until(wanted: usize, what: &str, count: impl AsyncFn() -> usize) {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let now = count().await;
        if now >= wanted {
            return;
        }
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        assert!(moved.elapsed() < STANDSTILL, "{last} of {wanted} are {what}, and no more for {STANDSTILL:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Memory that is resident, now and at most, as the kernel tells it.
fn memory(env: &TestEnv) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", env.operator.process().id())).unwrap_or_default();
    let field = |name: &str| {
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        kilobytes.map_or_else(|| "?".to_owned(), |kilobytes: u64| (kilobytes / 1024).to_string())
    };
    format!("{} MiB resident, {} MiB at most", field("VmRSS:"), field("VmHWM:"))
}

fn by_action(calls: &[CallRecord]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.action.as_str()).or_default() += 1;
    }
    counts
}

fn calls(env: &TestEnv, mark: LogPosition) -> String {
    let calls = env.aws.log().calls_since(mark);
    let writes = calls.iter().filter(|call| call.mutating).count();
    format!("{} calls to AWS, {writes} of them writes", calls.len())
}
