//! What the operator costs in calls to AWS, measured.

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

/// Reads and writes of IAM; the checks by STS are free of its quotas.
fn tally(calls: &[CallRecord]) -> (usize, usize) {
    let iam = calls.iter().filter(|call| call.service == "iam");
    let writes = iam.clone().filter(|call| call.mutating).count();
    (iam.count() - writes, writes)
}

pub(crate) async fn aws_calls_stay_within_budget() {
    let env = TestEnv::with_arguments(&["--resync=1h", "--key-check=1h", "--secret-check=1h", "--cluster-id=it"]).await;
    let since = |mark: LogPosition, user: &str| {
        let calls = env.aws.log().calls_since(mark);
        tally(&calls.into_iter().filter(|call| call.user.as_deref() == Some(user)).collect::<Vec<_>>())
    };
    let mut table = Vec::new();
    for policies in [0, 1, 5] {
        let user = format!("u{policies}");
        let mark = env.aws.log().position();
        env.apply(&user, spec(&user, policies)).await;
        env.ready(&user).await;
        table.push((format!("first creation, {policies} policies"), since(mark, &user), (1, 3 + policies)));
    }
    // Another policy: the facts of the last pass are of another generation, so it reads, and reads are what it needs.
    let mark = env.aws.log().position();
    let other = json!({"managed": ["AmazonS3FullAccess"]});
    env.apply("u1", json!({"userName": "u1", "policies": other, "accessKey": {"rotation": {"overlap": "1s"}}})).await;
    env.ready("u1").await;
    table.push(("one policy for another".to_owned(), since(mark, "u1"), (5, 2)));
    // A rotation looks at the keys before it makes one, before it sets one Inactive and before it deletes one.
    let mark = env.aws.log().position();
    let old = env.published("u1").await;
    env.annotate("u1", awsdeploy::api::well_known::ANNOTATION_ROTATE, "1").await;
    let one_left = |user: &UserSnapshot| user.key(&old).is_none() && user.tags.keys().all(|tag| !tag.contains(&old));
    env.until_iam("u1", "rotated, the old key and its tag gone", one_left).await;
    table.push(("rotation from end to end".to_owned(), since(mark, "u1"), (6, 5)));
    let mark = env.aws.log().position();
    env.delete("u1").await;
    env.gone("u1").await;
    table.push(("delete, 1 policy, 1 key".to_owned(), since(mark, "u1"), (2, 4)));
    let mark = env.aws.log().position();
    env.apply("person", json!({"userName": "person", "console": {}})).await;
    env.ready("person").await;
    // User, password, and the policy that lets the person change it.
    table.push(("console only".to_owned(), since(mark, "person"), (1, 3)));
    let manual_changes = env.aws.manual_changes();
    let create = Call::iam("CreateUser").with("UserName", "ci").with("Path", "/awsdeploy/");
    let consent = format!("it/{}/ci", env.namespace);
    manual_changes.call(&create.with_tags([("awsdeploy.dev/adoptable-by", &consent)])).await.expect("somebody's user");
    manual_changes.attach("ci", "arn:aws:iam::aws:policy/AmazonS3FullAccess").await.expect("by hand");
    let mark = env.aws.log().position();
    let mut adopting = spec("ci", 1);
    adopting["adoption"] = json!("IfTagged");
    env.apply("ci", adopting).await;
    env.ready("ci").await;
    // Marks, the old policy, the consent, the new policy, and the key with its tag.
    table.push(("adoption, 1 policy for another".to_owned(), since(mark, "ci"), (5, 6)));
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
    env.ready("u").await;
    let last = |call: &CallRecord| call.action == "GetUser";
    let mark = env.aws.log().position();
    env.aws.log().wait_since(mark, "a quiet pass", TIMEOUT, last).await.expect("it looks");
    let from = env.aws.log().position();
    env.aws.log().wait_since(from, "another one", TIMEOUT, last).await.expect("it looks");
    let calls = env.aws.log().calls_since(mark);
    let passes = calls.iter().filter(|call| call.action == "GetUser").count();
    let one: Vec<&str> =
        calls.iter().take_while(|call| call.seq <= calls[0].seq + 4).map(|call| call.action.as_str()).collect();
    println!("a quiet pass: {one:?}");
    assert_eq!(one.len(), 5, "{one:?}");
    assert!(passes >= 2 && calls.iter().all(|call| !call.mutating), "{calls:#?}");
}
