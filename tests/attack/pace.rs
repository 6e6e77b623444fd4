//! A tenant that makes keys by changes of one resource.

use std::time::{Duration, Instant};

use awsdeploy::api::{AwsDeployUser, ConditionType};
use awsdeploy_testkit::aws_proxy::{CallRecord, KeyState};
use serde_json::json;

use crate::{
    arena::Arena,
    tenant::{Kind, PAUSE},
    test_env::{eventually, message},
};

fn keys_created(arena: &Arena, user: &str) -> usize {
    let is_key = |call: &&CallRecord| call.action == "CreateAccessKey" && call.user.as_deref() == Some(user);
    arena.calls().iter().filter(is_key).count()
}

/// The first key of a user is staged while AWS is asked about it. A revocation ends the attempt, and its end begins another.
pub(crate) async fn abandoned_first_keys_count_for_the_interval() {
    const ATTACK: Duration = Duration::from_secs(45);
    let arena = Arena::with_arguments(&["--repair-interval=1h", "--recovery-delay=1m", "--verify-interval=2s"]).await;
    let content = json!({"spec": arena.spec()});
    let applied = async || arena.tenant.apply(Kind::User, "a", &json!({}), &content).await.ok();
    eventually("the tenant creates an allowed resource", applied, String::new).await;
    let name = arena.user_name("a");
    let (begun, mut revocations) = (Instant::now(), 0);
    while begun.elapsed() < ATTACK {
        let user = arena.env.iam_opt(&name).await;
        let has_active = user.iter().flat_map(|user| &user.keys).any(|key| key.state == KeyState::Active);
        revocations += usize::from(has_active);
        let _ = arena
            .tenant
            .patch(Kind::User, "a", &json!({"spec": {"credentials": if has_active { "Revoked" } else { "Active" }}}))
            .await;
        tokio::time::sleep(PAUSE).await;
    }
    let created = keys_created(&arena, &name);
    println!("{created} keys in {ATTACK:?} with a repair interval of an hour");
    assert!(revocations > 0, "no key was revoked");
    assert!(created <= 1, "{created} keys in {ATTACK:?}\n{}", arena.env.aws.log().transcript());
}

/// Without an access key in the spec, the operator deletes key and Secret. That it is declared again makes no first key.
pub(crate) async fn key_that_is_declared_again_is_no_first_key() {
    let arena = Arena::with_arguments(&["--repair-interval=1h", "--recovery-delay=1m"]).await;
    arena.create("a").await;
    let name = arena.user_name("a");
    let without = json!({"spec": {"accessKey": null, "console": {}}});
    arena.tenant.patch(Kind::User, "a", &without).await.expect("allowed by the class");
    arena.env.wait_for_iam(&name, "without a key", |user| user.keys.is_empty()).await;
    let again = json!({"spec": {"accessKey": {"rotation": {"every": "Never"}}}});
    arena.tenant.patch(Kind::User, "a", &again).await.expect("allowed by the class");
    let waits = |user: &AwsDeployUser| {
        message(user, ConditionType::RotationHealthy).contains("a key was created a short time ago")
    };
    arena.env.wait_until("a", "waiting for the interval", waits).await;
    assert_eq!(keys_created(&arena, &name), 1, "{}", arena.env.aws.log().transcript());
}
