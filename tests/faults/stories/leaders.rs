//! Operators that stop, are stopped, or are two.

use awsdeploy_testkit::aws_proxy::Rule;

use super::Play;
use crate::{
    scenario::{RECOVERY, settled},
    stage::eventually,
};

pub(super) async fn a_late_create_is_undone() {
    let (play, first) = Play::with_a_key().await;
    let before = play.stage.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).before());
    play.rotate("now").await;
    assert!(before.paused(RECOVERY).await, "the call is on its way to AWS");
    play.stage.operator.pause();
    // The other one finds an intent without an answer, gives it up behind the fence, and makes a key of its own.
    let second = play.stage.another_operator("second").await;
    let published = settled(&play.stage, &first).await;
    // Now the first call reaches AWS, and the operator that made it wakes up with a key that nobody asked for any more.
    let count = play.keys_made();
    before.release();
    let made = async || (play.keys_made() > count).then_some(());
    eventually("AWS makes the late key", made, || play.stage.aws.log().transcript()).await;
    play.stage.operator.resume();
    let undone = async || {
        let calls = play.stage.aws.log().calls();
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
    eventually("the late key is deleted", undone, || play.stage.aws.log().transcript()).await;
    assert_eq!(settled(&play.stage, &first).await, published, "the key of the other one stays published");
    let violations_of_the_second = second.log();
    assert!(play.stage.account.leaks_in(&violations_of_the_second).is_empty());
    drop(second);
    play.holds(2).await;
}

pub(super) async fn asked_to_stop_with_a_key_in_hand() {
    let (mut play, first) = Play::with_a_key().await;
    let made = play.stage.aws.rules().pause(Rule::on("CreateAccessKey").nth(1).after_commit());
    play.rotate("now").await;
    assert!(made.paused(RECOVERY).await, "the key is made and its answer is on the way");
    let count = play.keys_made();
    let (status, ()) = tokio::join!(play.stage.operator.stop(RECOVERY), async {
        let asked = async || play.stage.log().contains("stop").then_some(());
        eventually("it was asked to stop", asked, || play.stage.log()).await;
        made.release();
    });
    assert!(status.success(), "it ends well: {status}\n{}", play.stage.log());
    // What it leaves is complete: the key stands in the journal or in the Secret, or it is gone.
    let journal = play.stage.secret("x.awsdeploy-journal").await;
    let published = play.stage.published("x").await;
    let keys = play.stage.iam("u").await.keys.len();
    assert!(journal.is_some_and(|journal| journal.contains_key("secretAccessKey")) || published != first || keys == 1);
    play.stage.operator.restart().await.expect("the operator comes back");
    settled(&play.stage, &first).await;
    assert_eq!(play.keys_made(), count, "the key in hand was not lost");
    play.holds(0).await;
}
