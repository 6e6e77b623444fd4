//! Measures time, memory and AWS calls with many resources. It has no pass criteria.
//!
//! `make bench` applies 1,000 resources while AWS answers slowly, so that they wait; creates 1,000 users, each with a policy and
//! a key; restarts the operator; measures an hour without changes; and revokes 50 users while all others rotate their keys.
//! `BENCH=<n>` sets another number of resources, `BENCH_RATE=<n>` the `--aws-rate` (500).

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

use awsdeploy::api::well_known;
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, LogPosition},
    percentiles::Percentiles,
    rng,
};
use futures::{StreamExt as _, stream};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use test_env::TestEnv;

/// Maximum time without progress.
const MAX_STALL: Duration = Duration::from_mins(30);
/// Users that are revoked while others rotate their keys.
const REVOCATIONS: usize = 50;
/// Resources that are applied or changed at a time.
const WRITERS: usize = 16;
/// Ticks per second of the CPU times in `/proc`.
const TICKS_PER_SECOND: f64 = 100.0;
/// One hour at the shortened intervals.
const SCALED_HOUR: Duration = Duration::from_mins(6);

fn main() {
    let wanted = std::env::var("BENCH").ok().and_then(|number| number.parse().ok());
    let Some(resources) = wanted.filter(|_| !std::env::args().any(|argument| argument == "--list")) else {
        println!("bench: skipped; run: make bench");
        return;
    };
    test_env::block_on(async {
        measure_waiting(resources).await;
        measure(resources).await;
    });
    test_env::stop();
}

async fn apply_all(env: &TestEnv, resources: usize) {
    let apply = |number: usize| async move {
        let spec = json!({
            "policies": {"managed": ["AmazonEC2FullAccess"]},
            "accessKey": {"rotation": {"every": "90d"}},
        });
        drop(env.apply(&name(number), spec).await);
    };
    stream::iter(0..resources).map(apply).buffer_unordered(WRITERS).collect::<Vec<()>>().await;
}

fn name(number: usize) -> String {
    format!("user-{number:04}")
}

/// Resources that wait for the rate limit of AWS hold nothing but their place in the queue.
async fn measure_waiting(resources: usize) {
    let env = TestEnv::with_arguments(&["--aws-rate=1"]).await;
    env.activity.set_budget(None);
    apply_all(&env, resources).await;
    let served = env.aws.log().calls().len();
    println!("{resources} resources waiting, after {served} AWS calls: {}", memory(&env));
}

async fn measure(resources: usize) {
    // The defaults, except a higher AWS rate. A creation is measured without the checks of others: the emulator is slower than
    // AWS, so that they would overtake it.
    let rate: &'static str = format!("--aws-rate={}", rng::number("BENCH_RATE", 500)).leak();
    let checks = ["--resync=1h", "--key-check=1h", "--secret-check=1h"];
    let arguments = [rate, "--verify-interval=1s", "--recovery-delay=60s", "--log=awsdeploy=info"];
    let arguments: Vec<_> = checks.into_iter().chain(arguments).collect();
    let mut env = TestEnv::with_arguments(&arguments).await;
    println!("operator without resources: {}", memory(&env));

    let (begun, position, cpu) = (Instant::now(), env.aws.log().position(), cpu_seconds(&env));
    apply_all(&env, resources).await;
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
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let each = (cpu_seconds(&env) - cpu) * 1000.0 / resources as f64;
    println!("CPU of the operator per created user: {each:.1} ms");

    let (begun, position) = (Instant::now(), env.aws.log().position());
    // The defaults scaled to a tenth, so that an hour takes six minutes.
    let checks = ["--resync=1m", "--key-check=6m", "--secret-check=1m"];
    env.operator.restart_with(&checks).await.expect("the operator restarts");
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
    println!(
        "one hour without changes, scaled to six minutes: {each:.2} calls per resource; {}; {:?}",
        memory(&env),
        by_action(&calls)
    );
    measure_revocations(&env, resources).await;
}

/// Revokes users, spread over all, one after the other, while every user gets a new key.
async fn measure_revocations(env: &TestEnv, resources: usize) {
    let position = env.aws.log().position();
    let created = || env.aws.log().calls_since(position).iter().filter(|call| call.action == "CreateAccessKey").count();
    let rotate = |number: usize| async move {
        let request = json!({"metadata": {"annotations": {well_known::ANNOTATION_ROTATE: "now"}}});
        patch(env, number, request).await;
    };
    let wave = stream::iter(0..resources).map(rotate).buffer_unordered(WRITERS).collect::<Vec<()>>();
    let revocations = async {
        wait_until(1, "rotated", async || created()).await;
        let mut measured = Vec::new();
        let count = REVOCATIONS.min(resources);
        for number in 0..count {
            measured.push(revoke(env, number * resources / count).await);
        }
        (measured, created())
    };
    let (_, (measured, rotated)) = futures::join!(wave, revocations);
    let times = Percentiles::of(measured.iter().map(|(time, _)| *time));
    let calls = Percentiles::of(measured.iter().map(|(_, calls)| *calls));
    println!(
        "{} revocations while {resources} users rotate ({rotated} of them by the end): {times}; AWS calls of others before it: {calls}; {}",
        measured.len(),
        memory(env)
    );
}

/// Returns the time from the write until AWS has set the last key Inactive, and the AWS calls of others before that.
async fn revoke(env: &TestEnv, number: usize) -> (Duration, usize) {
    let (begun, position) = (Instant::now(), env.aws.log().position());
    patch(env, number, json!({"spec": {"credentials": "Revoked"}})).await;
    let user = format!("{}_{}", env.namespace, name(number));
    let is_of_user = |call: &CallRecord| call.user.as_ref() == Some(&user);
    let is_effect = |call: &&CallRecord| call.action == "UpdateAccessKey" && is_of_user(call);
    loop {
        let calls = env.aws.log().calls_since(position);
        if let Some(effect) = calls.iter().find(is_effect) {
            let before = calls.iter().filter(|call| call.seq < effect.seq && !is_of_user(call)).count();
            return (begun.elapsed(), before);
        }
        assert!(begun.elapsed() < MAX_STALL, "{user} is not revoked after {MAX_STALL:?}\n{}", env.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn patch(env: &TestEnv, number: usize, change: Value) {
    let params = PatchParams::default();
    env.users().patch(&name(number), &params, &Patch::Merge(&change)).await.expect("the resource is changed");
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
        // Listing thousands of resources each second would be most of the load.
        tokio::time::sleep(Duration::from_millis(1_000 + u64::try_from(wanted).unwrap_or_default())).await;
    }
}

/// Memory of the operator: what it allocated, and all that is resident, with its program file.
fn memory(env: &TestEnv) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", env.operator.process().id())).unwrap_or_default();
    let field = |name: &str| {
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        kilobytes.map_or_else(|| "?".to_owned(), |kilobytes: u64| (kilobytes / 1024).to_string())
    };
    let [allocated, resident, peak] = ["RssAnon:", "VmRSS:", "VmHWM:"].map(field);
    format!("{allocated} MiB allocated, {resident} MiB resident, {peak} MiB peak")
}

/// CPU time that the operator has used.
fn cpu_seconds(env: &TestEnv) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", env.operator.process().id())).unwrap_or_default();
    // The name in parentheses may contain spaces; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
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
