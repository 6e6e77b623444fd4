//! What comes over the network, or does not.

use std::time::Duration;

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, Rule},
    kube_proxy::KubeRule,
};

use super::{Play, plain};
use crate::{
    operation::{RECOVERY, settled},
    test_env::eventually,
};

pub(super) async fn stale_resource_after_restart_creates_no_key() {
    let (mut play, first) = Play::with_a_key().await;
    // The list that a restart begins with is remembered by the proxy: the one of a time before the next two rotations.
    play.env.operator.restart().await.expect("the operator comes back");
    settled(&play.env, "").await;
    play.rotate("one").await;
    let second = settled(&play.env, &first).await;
    play.rotate("two").await;
    let third = settled(&play.env, &second).await;
    let made = play.keys_made();
    let mark = play.kube.log().position();
    play.kube.rules().add(KubeRule::on("list", "awsdeployusers").first(1).stale_read());
    play.env.operator.restart().await.expect("the operator comes back");
    let listed = async || {
        let calls = play.kube.log().calls();
        calls
            .iter()
            .any(|call| call.seq > mark && call.verb == "watch" && call.resource == "awsdeployusers")
            .then_some(())
    };
    eventually("the old list was served", listed, || play.kube.log().transcript()).await;
    assert_eq!(settled(&play.env, "").await, third, "the key stays");
    assert_eq!(play.keys_made(), made, "no key is made for a request that was honoured long ago");
    play.holds(0).await;
}

pub(super) async fn unavailable_api_server_causes_no_second_key() {
    let (play, first) = Play::with_a_key().await;
    let made = play.env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    play.rotate("now").await;
    assert!(made.wait_until_held(RECOVERY).await, "the key is made and its answer is on the way");
    let before = play.keys_made();
    let mark = play.kube.log().position();
    play.kube.rules().add(KubeRule::on_all().respond_with(503, "ServiceUnavailable"));
    made.release();
    let refused = async || {
        let refused = play.kube.log().calls().into_iter().filter(|call| call.seq > mark && call.status == Some(503));
        (refused.count() >= 8).then_some(())
    };
    eventually("eight calls met nobody", refused, || play.kube.log().transcript()).await;
    assert_eq!(play.keys_made(), before, "no key is made while nothing can be written down");
    play.env.operator.wait_until_ready(RECOVERY).await.expect("ready: a restart would help nobody");
    play.kube.rules().clear();
    settled(&play.env, &first).await;
    assert!(play.keys_made() <= before + 1, "one catches up, if the one in hand had to be given up");
    play.holds(1).await;
}

pub(super) async fn rotation_completes_with_half_of_calls_throttled() {
    let (play, first) = Play::with_a_key().await;
    let others = ["TagUser", "UntagUser", "UpdateAccessKey", "DeleteAccessKey", "GetUser", "ListAccessKeys"];
    let rule = play.env.aws.rules().add(Rule::on_any_of(others).every(2).throttle());
    // This one is never tried twice in a pass: it costs half a minute of back-off.
    play.env.aws.rules().add(Rule::on("CreateAccessKey").first(1).throttle());
    let mark = play.env.aws.log().position();
    play.rotate("now").await;
    // Half a minute of back-off and the throttled calls around it may take longer than what follows.
    let made = |call: &CallRecord| call.action == "CreateAccessKey" && call.committed;
    play.env.aws.log().wait_since(mark, "another key is made", 2 * RECOVERY, made).await.expect("a second attempt");
    settled(&play.env, &first).await;
    play.env.until_condition("x", ConditionType::RotationHealthy, "True", None).await;
    assert!(play.env.aws.rules().hits(rule).acted >= 3, "it did hit");
    play.env.aws.rules().clear();
    play.holds(0).await;
}

pub(super) async fn user_deleted_before_iam_lists_it_is_removed() {
    let mut play = Play::set().await;
    // Less than the time for which the operator does not trust it.
    play.env.aws.rules().add(Rule::on("GetUser").stale_read(Duration::from_millis(1_900)));
    // The operator looks, makes the user, and is stopped right there; what it saw last is that there is none.
    let made = play.env.aws.rules().pause(Rule::on("CreateUser").nth(1).after_commit());
    play.env.apply("x", plain()).await;
    assert!(made.wait_until_held(RECOVERY).await, "the user is made");
    play.env.delete("x").await;
    play.env.operator.kill().await;
    made.abort();
    play.env.operator.restart().await.expect("the operator comes back");
    play.env.gone("x").await;
    assert!(play.env.iam_opt("u").await.is_none(), "the IAM user is gone");
    play.held(0).await;
}
