//! Stale, delayed and lost responses.

use std::time::Duration;

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, Rule},
    kube_proxy::KubeRule,
};

use super::{Harness, plain};
use crate::{
    operation::{RECOVERY, wait_settled},
    test_env::eventually,
};

pub(super) async fn stale_resource_after_restart_creates_no_key() {
    let (mut harness, first) = Harness::with_published_key().await;
    // The proxy caches the list of this restart, from before the next two rotations.
    harness.env.operator.restart().await.expect("the operator restarts");
    wait_settled(&harness.env, "").await;
    harness.rotate("one").await;
    let second = wait_settled(&harness.env, &first).await;
    harness.rotate("two").await;
    let third = wait_settled(&harness.env, &second).await;
    let count = harness.created_key_count();
    let position = harness.kube.log().position();
    harness.kube.rules().add(KubeRule::on("list", "awsdeployusers").first(1).stale_read());
    harness.env.operator.restart().await.expect("the operator restarts");
    let listed = async || {
        let calls = harness.kube.log().calls();
        calls
            .iter()
            .any(|call| call.seq > position && call.verb == "watch" && call.resource == "awsdeployusers")
            .then_some(())
    };
    eventually("the stale list is served", listed, || harness.kube.log().transcript()).await;
    assert_eq!(wait_settled(&harness.env, "").await, third, "the key is kept");
    assert_eq!(harness.created_key_count(), count, "no key is created for an old request");
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn unavailable_api_server_causes_no_second_key() {
    let (harness, first) = Harness::with_published_key().await;
    let response = harness.env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    harness.rotate("now").await;
    assert!(response.wait_until_held(RECOVERY).await, "the key is created and the response pending");
    let before = harness.created_key_count();
    let position = harness.kube.log().position();
    harness.kube.rules().add(KubeRule::on_all().respond_with(503, "ServiceUnavailable"));
    response.release();
    let refused = async || {
        let refused =
            harness.kube.log().calls().into_iter().filter(|call| call.seq > position && call.status == Some(503));
        (refused.count() >= 8).then_some(())
    };
    eventually("eight calls are refused", refused, || harness.kube.log().transcript()).await;
    assert_eq!(harness.created_key_count(), before, "no key is created while no journal can be written");
    harness.env.operator.wait_until_ready(RECOVERY).await.expect("ready, as a restart would not help");
    harness.kube.rules().clear();
    wait_settled(&harness.env, &first).await;
    assert!(harness.created_key_count() <= before + 1, "at most one more, if the staged key was abandoned");
    harness.assert_invariants_and_idle(1).await;
}

pub(super) async fn rotation_completes_with_half_of_calls_throttled() {
    let (harness, first) = Harness::with_published_key().await;
    let others = ["TagUser", "UntagUser", "UpdateAccessKey", "DeleteAccessKey", "GetUser", "ListAccessKeys"];
    let rule = harness.env.aws.rules().add(Rule::on_any_of(others).every(2).throttle());
    // This call is never retried within a reconcile: a throttled one costs half a minute of back-off.
    harness.env.aws.rules().add(Rule::on("CreateAccessKey").first(1).throttle());
    let position = harness.env.aws.log().position();
    harness.rotate("now").await;
    // The back-off of half a minute plus the other throttled calls may exceed one recovery limit.
    let created = |call: &CallRecord| call.action == "CreateAccessKey" && call.committed;
    harness
        .env
        .aws
        .log()
        .wait_since(position, "another key is created", 2 * RECOVERY, created)
        .await
        .expect("a second attempt");
    wait_settled(&harness.env, &first).await;
    harness.env.wait_for_condition("x", ConditionType::RotationHealthy, "True", None).await;
    assert!(harness.env.aws.rules().hits(rule).acted >= 3, "the rule matched");
    harness.env.aws.rules().clear();
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn user_deleted_before_iam_lists_it_is_removed() {
    let mut harness = Harness::start().await;
    // Below the recovery delay, during which the operator does not trust an absence.
    harness.env.aws.rules().add(Rule::on("GetUser").stale_read(Duration::from_millis(1_900)));
    // The operator is killed right after CreateUser; its last read returned no user.
    let response = harness.env.aws.rules().pause(Rule::on("CreateUser").nth(1).after_commit());
    harness.env.apply("x", plain()).await;
    assert!(response.wait_until_held(RECOVERY).await, "the user is created");
    harness.env.delete("x").await;
    harness.env.operator.kill().await;
    response.abort();
    harness.env.operator.restart().await.expect("the operator restarts");
    harness.env.wait_deleted("x").await;
    assert!(harness.env.iam_opt("u").await.is_none(), "the IAM user is deleted");
    harness.assert_invariants(0).await;
}
