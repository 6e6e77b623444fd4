//! AWS calls per operation, measured against their budgets.

#![allow(clippy::print_stdout, reason = "the measured table is what the test is for")]

use awsdeploy_testkit::aws_proxy::{Call, CallRecord, LogPosition, UserSnapshot};
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv};

fn spec(user: &str, policies: usize) -> Value {
    let managed: Vec<&str> = [
        "AmazonEC2FullAccess",
        "AmazonS3FullAccess",
        "AmazonVPCFullAccess",
        "AmazonRoute53FullAccess",
        "AmazonSQSFullAccess",
    ][..policies]
        .to_vec();
    json!({"userName": user, "policies": {"managed": managed}, "accessKey": {"rotation": {"overlap": "1s"}}})
}

/// IAM reads and writes. STS has separate quotas.
fn count_reads_and_writes(calls: &[CallRecord]) -> (usize, usize) {
    let iam = calls.iter().filter(|call| call.service == "iam");
    let writes = iam.clone().filter(|call| call.mutating).count();
    (iam.count() - writes, writes)
}

pub(crate) async fn aws_calls_stay_within_budget() {
    let env = TestEnv::with_arguments(&["--resync=1h", "--key-check=1h", "--secret-check=1h", "--cluster-id=it"]).await;
    let since = |position: LogPosition, user: &str| {
        let calls = env.aws.log().calls_since(position);
        count_reads_and_writes(&calls.into_iter().filter(|call| call.user.as_deref() == Some(user)).collect::<Vec<_>>())
    };
    let mut table = Vec::new();
    for policies in [0, 1, 5] {
        let user = format!("u{policies}");
        let position = env.aws.log().position();
        env.apply(&user, spec(&user, policies)).await;
        env.wait_ready(&user).await;
        table.push((format!("first creation, {policies} policies"), since(position, &user), (1, 3 + policies)));
    }
    // A changed generation invalidates the cached observations, so everything is read again.
    let position = env.aws.log().position();
    let other = json!({"managed": ["AmazonS3FullAccess"]});
    env.apply("u1", json!({"userName": "u1", "policies": other, "accessKey": {"rotation": {"overlap": "1s"}}})).await;
    env.wait_ready("u1").await;
    table.push(("one policy for another".to_owned(), since(position, "u1"), (5, 2)));
    // A rotation lists the keys before it creates, deactivates and deletes one.
    let position = env.aws.log().position();
    let old = env.published_key("u1").await;
    env.annotate("u1", awsdeploy::api::well_known::ANNOTATION_ROTATE, "1").await;
    let one_left = |user: &UserSnapshot| user.key(&old).is_none() && user.tags.keys().all(|tag| !tag.contains(&old));
    env.wait_for_iam("u1", "rotated, the previous key and its tag deleted", one_left).await;
    table.push(("complete rotation".to_owned(), since(position, "u1"), (6, 5)));
    let position = env.aws.log().position();
    env.delete("u1").await;
    env.wait_deleted("u1").await;
    table.push(("delete, 1 policy, 1 key".to_owned(), since(position, "u1"), (2, 4)));
    let position = env.aws.log().position();
    env.apply("person", json!({"userName": "person", "console": {}})).await;
    env.wait_ready("person").await;
    // User, login profile, and the policy that allows to change the password.
    table.push(("console only".to_owned(), since(position, "person"), (1, 3)));
    let manual_changes = env.aws.manual_changes();
    let create = Call::iam("CreateUser").with("UserName", "ci").with("Path", "/awsdeploy/");
    let consent = format!("it/{}/ci", env.namespace);
    manual_changes
        .call(&create.with_tags([("awsdeploy.dev/adoptable-by", &consent)]))
        .await
        .expect("an unmanaged user");
    manual_changes.attach("ci", "arn:aws:iam::aws:policy/AmazonS3FullAccess").await.expect("manually");
    let position = env.aws.log().position();
    let mut adopting = spec("ci", 1);
    adopting["adoption"] = json!("IfTagged");
    env.apply("ci", adopting).await;
    env.wait_ready("ci").await;
    // Ownership tags, old policy, consent tag, new policy, key and its tag.
    table.push(("adoption, 1 policy for another".to_owned(), since(position, "ci"), (5, 6)));
    println!("{:<28} {:>6} {:>6}", "IAM calls", "reads", "writes");
    for (what, (reads, writes), _) in &table {
        println!("{what:<28} {reads:>6} {writes:>6}");
    }
    for (what, found, wanted) in table {
        assert_eq!(found, wanted, "{what}\n{}", env.aws.log().transcript());
    }
}

pub(crate) async fn single_user_reconcile_costs_five_reads_and_no_write() {
    let env = TestEnv::with_arguments(&["--resync=2s", "--secret-check=1h", "--account-details=false"]).await;
    env.apply("u", spec("u", 1)).await;
    env.wait_ready("u").await;
    let last = |call: &CallRecord| call.action == "GetUser";
    let position = env.aws.log().position();
    env.aws.log().wait_since(position, "a read of the user", TIMEOUT, last).await.expect("the user is read");
    let from = env.aws.log().position();
    env.aws.log().wait_since(from, "another one", TIMEOUT, last).await.expect("the user is read");
    let calls = env.aws.log().calls_since(position);
    let reconciles = calls.iter().filter(|call| call.action == "GetUser").count();
    let one: Vec<&str> =
        calls.iter().take_while(|call| call.seq <= calls[0].seq + 4).map(|call| call.action.as_str()).collect();
    println!("one reconcile: {one:?}");
    assert_eq!(one.len(), 5, "{one:?}");
    assert!(reconciles >= 2 && calls.iter().all(|call| !call.mutating), "{calls:#?}");
}
