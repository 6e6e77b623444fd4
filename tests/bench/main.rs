//! Measures time, memory and AWS calls with many resources. It has no pass criteria.
//!
//! `make bench` creates 1,000 users, each with a policy and a key, restarts the operator, and then measures an hour without
//! changes. `BENCH=<n>` sets another number.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "measurements fail by panic, print their progress, and use the real clock"
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

/// Maximum time without progress.
const MAX_STALL: Duration = Duration::from_mins(3);
/// One hour at the shortened intervals.
const SCALED_HOUR: Duration = Duration::from_mins(6);

fn main() {
    let wanted = std::env::var("BENCH").ok().and_then(|number| number.parse().ok());
    let Some(resources) = wanted.filter(|_| !std::env::args().any(|argument| argument == "--list")) else {
        println!("bench: skipped; run: make bench");
        return;
    };
    test_env::block_on(measure(resources));
    test_env::stop();
}

async fn measure(resources: usize) {
    // The defaults, except a higher AWS rate and intervals scaled to a tenth, so that an hour takes six minutes.
    let arguments = ["--resync=1m", "--key-check=6m", "--secret-check=1m", "--aws-rate=500", "--verify-interval=1s"];
    let mut env = TestEnv::with_arguments(&arguments).await;
    println!("operator without resources: {}", memory(&env));

    let (begun, position) = (Instant::now(), env.aws.log().position());
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
    wait_until(resources, "Ready", ready).await;
    println!("all Ready after {:.0} s: {}; {}", begun.elapsed().as_secs_f32(), memory(&env), calls(&env, position));

    let (begun, position) = (Instant::now(), env.aws.log().position());
    env.operator.restart().await.expect("the operator restarts");
    let reconciled = async || {
        let reconciles = env.metric_count(r#"awsdeploy_reconciles_total{result="ok"}"#).await;
        usize::try_from(reconciles).unwrap_or(usize::MAX).min(resources)
    };
    wait_until(resources, "reconciled", reconciled).await;
    let took = begun.elapsed().as_secs_f32();
    println!("restarted, all reconciled after {took:.0} s: {}; {}", memory(&env), calls(&env, position));

    let position = env.aws.log().position();
    tokio::time::sleep(SCALED_HOUR).await;
    let calls = env.aws.log().calls_since(position);
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let each = calls.len() as f32 / resources as f32;
    println!("one hour without changes, scaled to six minutes: {each:.2} calls per resource; {:?}", by_action(&calls));
}

/// Waits until `count` reaches `wanted`; fails after [`MAX_STALL`] without progress.
async fn wait_until(wanted: usize, what: &str, count: impl AsyncFn() -> usize) {
    let (mut last, mut progress) = (0, Instant::now());
    loop {
        let now = count().await;
        if now >= wanted {
            return;
        }
        if now != last {
            (last, progress) = (now, Instant::now());
        }
        assert!(progress.elapsed() < MAX_STALL, "{last} of {wanted} are {what}, without progress for {MAX_STALL:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Current and peak resident memory of the operator.
fn memory(env: &TestEnv) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", env.operator.process().id())).unwrap_or_default();
    let field = |name: &str| {
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        kilobytes.map_or_else(|| "?".to_owned(), |kilobytes: u64| (kilobytes / 1024).to_string())
    };
    format!("{} MiB resident, {} MiB peak", field("VmRSS:"), field("VmHWM:"))
}

fn by_action(calls: &[CallRecord]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.action.as_str()).or_default() += 1;
    }
    counts
}

fn calls(env: &TestEnv, position: LogPosition) -> String {
    let calls = env.aws.log().calls_since(position);
    let writes = calls.iter().filter(|call| call.mutating).count();
    format!("{} AWS calls, {writes} of them writes", calls.len())
}
