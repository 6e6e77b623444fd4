//! Operators that stop, are stopped, or are two.

use awsdeploy_testkit::aws_proxy::Rule;

use super::Play;
use crate::{
    operation::{RECOVERY, settled},
    test_env::eventually,
};

pub(super) async fn late_create_of_a_paused_leader_is_undone() {
    let (play, first) = Play::with_a_key().await;
    let before = play.env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).before());
    play.rotate("now").await;
    assert!(before.wait_until_held(RECOVERY).await, "the call is on its way to AWS");
    play.env.operator.pause();
    // The other one finds an intent without an answer, gives it up behind the fence, and makes a key of its own.
    let second = play.env.another_operator("second").await;
    let published = settled(&play.env, &first).await;
    // Now the first call reaches AWS, and the operator that made it wakes up with a key that nobody asked for any more.
    let count = play.keys_made();
    before.release();
    let made = async || (play.keys_made() > count).then_some(());
    eventually("AWS makes the late key", made, || play.env.aws.log().transcript()).await;
    play.env.operator.resume();
    let undone = async || {
        let calls = play.env.aws.log().calls();
        let made: Vec<_> = calls
            .iter()
            .filter(|call| call.action == "CreateAccessKey" && call.committed)
            .filter_map(|call| call.access_key.clone())
            .collect();
        let late = made.iter().find(|id| **id != first && **id != published)?;
        calls
            .iter()
            .any(|call| call.action == "DeleteAccessKey" && call.committed && call.access_key.as_ref() == Some(late))
            .then_some(())
    };
    eventually("the late key is deleted", undone, || play.env.aws.log().transcript()).await;
    assert_eq!(settled(&play.env, &first).await, published, "the key of the other one stays published");
    let violations_of_the_second = second.log();
    assert!(play.env.account.leaks_in(&violations_of_the_second).is_empty());
    drop(second);
    play.holds(2).await;
}

pub(super) async fn shutdown_with_a_staged_key_loses_nothing() {
    let (mut play, first) = Play::with_a_key().await;
    let made = play.env.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    play.rotate("now").await;
    assert!(made.wait_until_held(RECOVERY).await, "the key is made and its answer is on the way");
    let count = play.keys_made();
    let (status, ()) = tokio::join!(play.env.operator.stop(RECOVERY), async {
        let asked = async || play.env.log().contains("stop").then_some(());
        eventually("it was asked to stop", asked, || play.env.log()).await;
        made.release();
    });
    assert!(status.success(), "it ends well: {status}\n{}", play.env.log());
    // What it leaves is complete: the key stands in the journal or in the Secret, or it is gone.
    let journal = play.env.secret("x.awsdeploy-journal").await;
    let published = play.env.published("x").await;
    let keys = play.env.iam("u").await.keys.len();
    assert!(journal.is_some_and(|journal| journal.contains_key("secretAccessKey")) || published != first || keys == 1);
    play.env.operator.restart().await.expect("the operator comes back");
    settled(&play.env, &first).await;
    assert_eq!(play.keys_made(), count, "the key in hand was not lost");
    play.holds(0).await;
}
