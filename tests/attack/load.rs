//! A tenant that writes as fast as it can: others are served, revocation comes first, keys are made at a bounded rate.

use std::time::{Duration, Instant};

use awsdeploy::api::{AwsDeployUser, well_known};
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, KeyState, UserSnapshot},
    percentiles::Percentiles,
    rng,
};
use futures::future::join_all;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    arena::{Arena, POLICY},
    tenant::Kind,
    test_env::{TestEnv, eventually},
};

/// Resources of the attacker.
const RESOURCES: usize = 40;
/// Resources of another tenant whose credentials are revoked one after the other, unless `ATTACK_REVOCATIONS` sets another number.
const REVOCATIONS: u64 = 20;
/// Resources of the attacker that are created and deleted all the time.
const NEWCOMERS: usize = 12;
/// AWS calls of others at most between the write of a revocation and its effect: five seconds at the rate of the test. Counted,
/// because the time depends on what else the machine does.
const MAX_CALLS_OF_OTHERS: usize = 100;
/// Rounds of changes of all resources of the attacker at most, so that the flood ends by itself.
const MAX_ROUNDS: usize = 400;

/// How long a revocation took, and how many AWS calls of others came before its effect.
struct Revocation {
    time: Duration,
    calls_of_others: usize,
}

async fn revoke_credentials(arena: &Arena, name: &str) -> Revocation {
    let users: Api<AwsDeployUser> = Api::namespaced(arena.env.client.clone(), arena.other);
    let (begun, position) = (Instant::now(), arena.env.aws.log().position());
    let patch = Patch::Merge(json!({"spec": {"credentials": "Revoked"}}));
    users.patch(name, &PatchParams::default(), &patch).await.expect("the other tenant revokes its resource");
    let user = format!("{}_{name}", arena.other);
    let is_inactive = |user: &UserSnapshot| user.keys.iter().all(|key| key.state == KeyState::Inactive);
    arena.env.wait_for_iam(&user, "revoked", is_inactive).await;
    let time = begun.elapsed();
    let is_effect = |call: &&CallRecord| call.action == "UpdateAccessKey" && call.user.as_ref() == Some(&user);
    let calls = arena.env.aws.log().calls_since(position);
    let effect = calls.iter().find(is_effect).expect("the key is set Inactive").seq;
    let is_of_others =
        |call: &&CallRecord| call.seq < effect && call.service == "iam" && call.user.as_ref() != Some(&user);
    Revocation { time, calls_of_others: calls.iter().filter(is_of_others).count() }
}

pub(crate) async fn revocation_comes_first_while_a_tenant_floods() {
    let arena = Arena::with_arguments(&["--aws-rate=20"]).await;
    let wide = json!({"users": {"namePattern": null, "path": "/tenant/"}, "policies": {"allowed": [POLICY]},
        "tagKeys": ["cost"]});
    arena.env.apply_class("tenant", wide).await;
    let victims: Vec<String> =
        (0..rng::number("ATTACK_REVOCATIONS", REVOCATIONS)).map(|number| format!("late{number}")).collect();
    join_all(victims.iter().map(|name| arena.serve_other(name))).await;
    let spec = |cost: usize| json!({"spec": {"className": arena.class, "policies": {"managed": [POLICY]}, "tags": {"cost": cost.to_string()}}});
    for number in 0..RESOURCES {
        let (name, content) = (format!("f{number}"), spec(0));
        let applied = async || arena.tenant.apply(Kind::User, &name, &json!({}), &content).await.ok();
        eventually("the resource is created", applied, String::new).await;
    }
    let flood = async {
        for round in 1..MAX_ROUNDS {
            let content = spec(round);
            let names: Vec<String> = (0..RESOURCES).map(|number| format!("f{number}")).collect();
            let writes = names.iter().map(|name| arena.tenant.patch(Kind::User, name, &content));
            join_all(writes).await;
        }
    };
    let measure = async {
        let mut revocations = Vec::new();
        for name in &victims {
            revocations.push(revoke_credentials(&arena, name).await);
        }
        revocations
    };
    let revocations = tokio::select! {
        () = flood => panic!("the flood ended before the revocations took effect"),
        revocations = measure => revocations,
    };
    let times = Percentiles::of(revocations.iter().map(|revocation| revocation.time));
    let calls = Percentiles::of(revocations.iter().map(|revocation| revocation.calls_of_others));
    println!(
        "revocation under a flood of {RESOURCES} resources, {} times: {times}; AWS calls of others before it: {calls}",
        victims.len()
    );
    let of_the_victims = || {
        let log = arena.env.log();
        log.lines().filter(|line| line.contains("resource=\"late")).collect::<Vec<_>>().join("\n")
    };
    assert!(calls.max <= MAX_CALLS_OF_OTHERS, "{calls:?}\n{}", of_the_victims());
    assert!(arena.violations().is_empty(), "{:#?}", arena.violations());
}

/// What is created with revoked credentials has nothing to lose, and is no more urgent than the rotation of another tenant.
pub(crate) async fn revoked_newcomers_do_not_starve_others() {
    let arena = Arena::with_arguments(&["--aws-rate=20"]).await;
    let wide = json!({"users": {"namePattern": null, "path": "/tenant/"}, "policies": {"allowed": [POLICY]}});
    arena.env.apply_class("tenant", wide).await;
    arena.serve_other("late0").await;
    let content =
        json!({"spec": {"className": arena.class, "policies": {"managed": [POLICY]}, "credentials": "Revoked"}});
    let churn = async |number: usize| {
        let name = format!("n{number}");
        for _ in 0..MAX_ROUNDS {
            let _ = arena.tenant.apply(Kind::User, &name, &json!({}), &content).await;
            let user = arena.user_name(&name);
            let created = async || arena.env.iam_opt(&user).await.map(drop);
            eventually("the user of a newcomer", created, String::new).await;
            let _ = arena.tenant.delete(Kind::User, &name).await;
            let deleted = async || (!arena.tenant.exists(Kind::User, &name).await).then_some(());
            eventually("a newcomer is deleted", deleted, String::new).await;
        }
    };
    let rotate = async {
        let users: Api<AwsDeployUser> = Api::namespaced(arena.env.client.clone(), arena.other);
        // Every newcomer is on its way.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (begun, position) = (Instant::now(), arena.env.aws.log().position());
        let request = json!({"metadata": {"annotations": {well_known::ANNOTATION_ROTATE: "now"}}});
        users.patch("late0", &PatchParams::default(), &Patch::Merge(&request)).await.expect("a request");
        let user = format!("{}_late0", arena.other);
        let is_effect = |call: &CallRecord| call.action == "CreateAccessKey" && call.user.as_ref() == Some(&user);
        let rotated = async || {
            let calls = arena.env.aws.log().calls_since(position);
            let effect = calls.iter().find(|call| is_effect(call))?.seq;
            let is_of_others = |call: &&CallRecord| call.seq < effect && call.user.as_ref() != Some(&user);
            Some(calls.iter().filter(is_of_others).count())
        };
        let calls = eventually("the other tenant gets its key", rotated, String::new).await;
        println!("rotation beside {NEWCOMERS} newcomers: {:.1?}, {calls} calls of others before it", begun.elapsed());
        calls
    };
    let calls = tokio::select! {
        _ = join_all((0..NEWCOMERS).map(churn)) => panic!("the churn ended before the rotation"),
        calls = rotate => calls,
    };
    // Deletions of all newcomers may come first, once.
    let most = NEWCOMERS * 15 + MAX_CALLS_OF_OTHERS;
    assert!(calls <= most, "{calls} calls of others came first");
}

/// Edits, a request and a deletion in turn, for a bounded time.
pub(crate) async fn edits_of_a_secret_mint_keys_at_a_bounded_rate() {
    const ATTACK: Duration = Duration::from_secs(30);
    // One per repair interval of 5 s, and the one that was due when the attack began.
    const MAX_KEYS: usize = 7;
    let arena = Arena::with_arguments(&["--repair-interval=5s"]).await;
    arena.create("a").await;
    let position = arena.env.aws.log().position();
    let (begun, mut edits) = (Instant::now(), 0_u64);
    while begun.elapsed() < ATTACK {
        let data = json!({"AWS_ACCESS_KEY_ID": "edited", "AWS_SECRET_ACCESS_KEY": "edited", "credentials": "edited"});
        let _ = arena.tenant.patch(Kind::Secret, "a", &json!({ "stringData": data })).await;
        if edits.is_multiple_of(3) {
            let _ = arena.tenant.annotate("a", well_known::ANNOTATION_ROTATE, &edits.to_string()).await;
        }
        if edits.is_multiple_of(5) {
            let _ = arena.tenant.delete(Kind::Secret, "a").await;
        }
        edits += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let created = arena.env.aws.log().calls_since(position);
    let created = created.iter().filter(|call| call.action == "CreateAccessKey").count();
    println!("{edits} edits of a Secret in {ATTACK:?}: {created} keys");
    assert!(created <= MAX_KEYS, "{created} keys after {edits} edits");
    arena.assert_harmless().await;
}

/// Every connection is held open and half of them send half a request.
pub(crate) async fn probes_are_answered_under_a_flood_of_connections() {
    let env = TestEnv::new().await;
    let address = env.operator.metrics_address();
    let mut connections = Vec::new();
    for number in 0..600_usize {
        let Ok(mut connection) = TcpStream::connect(address).await else { continue };
        if number.is_multiple_of(2) {
            let _ = connection.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").await;
        }
        connections.push(connection);
        if number.is_multiple_of(50) {
            let limit = Duration::from_secs(5);
            let alive = env.operator.wait_until_ready(limit).await;
            assert!(alive.is_ok(), "not answered beside {number} connections: {alive:?}\n{}", env.log());
        }
    }
    assert!(connections.len() > 100, "{}", connections.len());
}
