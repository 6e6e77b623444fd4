//! What comes over the network, or does not.

use std::time::Duration;

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, Rule},
    kube_proxy::KubeRule,
};

use super::{Play, plain};
use crate::{
    scenario::{RECOVERY, settled},
    stage::eventually,
};

pub(super) async fn an_old_resource_after_a_restart_costs_no_key() {
    let (mut play, first) = Play::with_a_key().await;
    // The list that a restart begins with is remembered by the proxy: the one of a time before the next two rotations.
    play.stage.operator.restart().await.expect("the operator comes back");
    settled(&play.stage, "").await;
    play.rotate("one").await;
    let second = settled(&play.stage, &first).await;
    play.rotate("two").await;
    let third = settled(&play.stage, &second).await;
    let made = play.keys_made();
    let mark = play.kube.log().mark();
    play.kube.rules().add(KubeRule::on("list", "awsdeployusers").first(1).stale_read());
    play.stage.operator.restart().await.expect("the operator comes back");
    let listed = async || {
        let calls = play.kube.log().calls();
        calls
            .iter()
            .any(|call| call.seq > mark && call.verb == "watch" && call.resource == "awsdeployusers")
            .then_some(())
    };
    eventually("the old list was served", listed, || play.kube.log().transcript()).await;
    assert_eq!(settled(&play.stage, "").await, third, "the key stays");
    assert_eq!(play.keys_made(), made, "no key is made for a request that was honoured long ago");
    play.holds(0).await;
}

pub(super) async fn an_api_server_that_is_away_costs_no_second_key() {
    let (play, first) = Play::with_a_key().await;
    let made = play.stage.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    play.rotate("now").await;
    assert!(made.paused(RECOVERY).await, "the key is made and its answer is on the way");
    let before = play.keys_made();
    let mark = play.kube.log().mark();
    play.kube.rules().add(KubeRule::on_all().answer(503, "ServiceUnavailable"));
    made.release();
    let refused = async || {
        let refused = play.kube.log().calls().into_iter().filter(|call| call.seq > mark && call.status == Some(503));
        (refused.count() >= 8).then_some(())
    };
    eventually("eight calls met nobody", refused, || play.kube.log().transcript()).await;
    assert_eq!(play.keys_made(), before, "no key is made while nothing can be written down");
    play.stage.operator.until_ready(RECOVERY).await.expect("ready: a restart would help nobody");
    play.kube.rules().clear();
    settled(&play.stage, &first).await;
    assert!(play.keys_made() <= before + 1, "one catches up, if the one in hand had to be given up");
    play.holds(1).await;
}

pub(super) async fn half_of_all_calls_throttled() {
    let (play, first) = Play::with_a_key().await;
    let others = ["TagUser", "UntagUser", "UpdateAccessKey", "DeleteAccessKey", "GetUser", "ListAccessKeys"];
    let rule = play.stage.aws.rules().add(Rule::on_any_of(others).every(2).throttle());
    // This one is never tried twice in a pass: it costs half a minute of back-off.
    play.stage.aws.rules().add(Rule::on("CreateAccessKey").first(1).throttle());
    let mark = play.stage.aws.log().mark();
    play.rotate("now").await;
    // Half a minute of back-off and the throttled calls around it may take longer than what follows.
    let made = |call: &CallRecord| call.action == "CreateAccessKey" && call.committed;
    play.stage.aws.log().wait_since(mark, "another key is made", 2 * RECOVERY, made).await.expect("a second attempt");
    settled(&play.stage, &first).await;
    play.stage.until_condition("x", ConditionType::RotationHealthy, "True", None).await;
    assert!(play.stage.aws.rules().hits(rule).acted >= 3, "it did hit");
    play.stage.aws.rules().clear();
    play.holds(0).await;
}

pub(super) async fn a_user_deleted_before_iam_shows_it_does_not_stay() {
    let mut play = Play::set().await;
    // Less than the time for which the operator does not trust it.
    play.stage.aws.rules().add(Rule::on("GetUser").stale_read(Duration::from_millis(1_900)));
    // The operator looks, makes the user, and is stopped right there; what it saw last is that there is none.
    let made = play.stage.aws.rules().pause(Rule::on("CreateUser").nth(1).after_commit());
    play.stage.apply("x", plain()).await;
    assert!(made.paused(RECOVERY).await, "the user is made");
    play.stage.delete("x").await;
    play.stage.operator.kill().await;
    made.abort();
    play.stage.operator.restart().await.expect("the operator comes back");
    play.stage.gone("x").await;
    assert!(play.stage.iam_opt("u").await.is_none(), "the IAM user is gone");
    play.held(0).await;
}
