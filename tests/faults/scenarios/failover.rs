//! Shutdown, paused leaders and two leaders.

use awsdeploy_testkit::aws_proxy::Rule;

use super::Harness;
use crate::{
    operation::{RECOVERY, wait_settled},
    test_env::eventually,
};

pub(super) async fn late_create_of_a_paused_leader_is_undone() {
    let (harness, first) = Harness::with_published_key().await;
    let before = harness.env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).before());
    harness.rotate("now").await;
    assert!(before.wait_until_held(RECOVERY).await, "the call is sent");
    harness.env.operator.pause();
    // The second operator finds an intent without a result, fences and abandons it, and creates its own key.
    let second = harness.env.start_another_operator("second").await;
    let published = wait_settled(&harness.env, &first).await;
    // The first call reaches AWS now, and its operator resumes with a key of an abandoned attempt.
    let count = harness.created_key_count();
    before.release();
    let created = async || (harness.created_key_count() > count).then_some(());
    eventually("AWS creates the late key", created, || harness.env.aws.log().transcript()).await;
    harness.env.operator.resume();
    let undone = async || {
        let calls = harness.env.aws.log().calls();
        let created: Vec<_> = calls
            .iter()
            .filter(|call| call.action == "CreateAccessKey" && call.committed)
            .filter_map(|call| call.access_key.clone())
            .collect();
        let late = created.iter().find(|id| **id != first && **id != published)?;
        calls
            .iter()
            .any(|call| call.action == "DeleteAccessKey" && call.committed && call.access_key.as_ref() == Some(late))
            .then_some(())
    };
    eventually("the late key is deleted", undone, || harness.env.aws.log().transcript()).await;
    assert_eq!(wait_settled(&harness.env, &first).await, published, "the key of the second operator remains published");
    let second_log = second.log();
    assert!(harness.env.account.leaks_in(&second_log).is_empty());
    drop(second);
    harness.assert_invariants_and_idle(2).await;
}

pub(super) async fn shutdown_with_a_staged_key_loses_nothing() {
    let (mut harness, first) = Harness::with_published_key().await;
    let response = harness.env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    harness.rotate("now").await;
    assert!(response.wait_until_held(RECOVERY).await, "the key is created and the response pending");
    let count = harness.created_key_count();
    let (status, ()) = tokio::join!(harness.env.operator.stop(RECOVERY), async {
        let stopping = async || harness.env.log().contains("stop").then_some(());
        eventually("the shutdown started", stopping, || harness.env.log()).await;
        response.release();
    });
    assert!(status.success(), "clean exit: {status}\n{}", harness.env.log());
    // The key is in the journal, in the Secret, or deleted.
    let journal = harness.env.journal("x").await;
    let published = harness.env.published_key("x").await;
    let keys = harness.env.iam("u").await.keys.len();
    assert!(journal.is_some_and(|journal| journal.contains_key("secretAccessKey")) || published != first || keys == 1);
    harness.env.operator.restart().await.expect("the operator restarts");
    wait_settled(&harness.env, &first).await;
    assert_eq!(harness.created_key_count(), count, "the staged key is not lost");
    harness.assert_invariants_and_idle(0).await;
}
