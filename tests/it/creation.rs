//! Creation: a manifest leads to an IAM user and a working key in a Secret.

use std::collections::BTreeSet;

use awsdeploy::api::Reason;
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv};

fn cycle_spec() -> Value {
    json!({
        "userName": "cycle-prod",
        "policies": {"managed": ["AmazonEC2FullAccess"]},
        "tags": {"team": "payments"},
        "accessKey": {
            "description": "Cycle hub - production", "useCase": "ThirdPartyService", "region": "us-east-1",
            "rotation": {"every": "30d", "overlap": "24h"},
            "secret": {"name": "cycle-aws", "labels": {"app": "cycle"}},
        },
    })
}

pub(crate) async fn one_manifest_creates_user_policy_key_and_secret() {
    let env = TestEnv::new().await;
    env.apply("cycle", cycle_spec()).await;
    let user = env.wait_ready("cycle").await;

    let iam = env.iam("cycle-prod").await;
    assert_eq!(iam.path, "/awsdeploy/");
    assert_eq!(iam.attached, BTreeSet::from(["arn:aws:iam::aws:policy/AmazonEC2FullAccess".to_owned()]));
    assert_eq!(iam.tags["team"], "payments");
    assert_eq!(iam.tags["awsdeploy.dev/namespace"], env.namespace);
    assert_eq!(iam.tags["awsdeploy.dev/use-case"], "ThirdPartyService");
    assert_eq!(iam.keys.len(), 1);
    let key = &iam.keys[0];
    assert_eq!(iam.tags[&key.id], "Cycle hub - production", "the description tag, as the AWS console shows it");

    let secret = env.secret_data("cycle-aws").await.expect("the Secret is there");
    assert_eq!(secret["AWS_ACCESS_KEY_ID"], key.id);
    assert!(env.account.secret_matches(&key.id, &secret["AWS_SECRET_ACCESS_KEY"]), "id and secret belong together");
    assert_eq!(secret["AWS_REGION"], "us-east-1");
    assert!(
        secret["credentials"].contains(&key.id) && secret["credentials"].contains(&secret["AWS_SECRET_ACCESS_KEY"])
    );
    assert_eq!(secret["config"], "[default]\nregion = us-east-1\n");
    assert!(env.journal("cycle").await.is_none(), "the journal is deleted");

    let status = user.status.expect("a status");
    let conditions: Vec<_> =
        status.conditions.iter().map(|found| (found.type_.as_str(), found.status.as_str())).collect();
    let healthy = ["Ready", "Authorized", "UserSynced", "KeyPublished", "RotationHealthy"];
    assert_eq!(conditions, healthy.map(|kind| (kind, "True")), "and none that is present only while it is True");
    assert_eq!(status.user.expect("a user").arn, Some(iam.arn.clone()));
    assert_eq!(status.secret_name.as_deref(), Some("cycle-aws"));
    assert!(status.next_rotation_time.is_some());

    let (_mount, consumer) = env.start_consumer("cycle-aws", &iam.arn);
    let report = consumer.wait_for("ten accepted calls", TIMEOUT, |report| report.accepted >= 10).await.expect("calls");
    assert_eq!((report.refused, report.unanswered), (0, 0), "{report}");
    assert!(env.wait_for_event("cycle", Reason::Published).await.contains(&key.id));
    assert!(!env.log().contains(&secret["AWS_SECRET_ACCESS_KEY"]), "the log contains the secret");
}

pub(crate) async fn defang_guide_is_one_manifest() {
    let env = TestEnv::new().await;
    env
        .apply(
            "defang",
            json!({
                "policies": {"managed": ["AdministratorAccess"]},
                "accessKey": {"useCase": "ApplicationOnAwsCompute", "description": "defang compose up", "region": "eu-central-1"},
            }),
        )
        .await;
    env.wait_ready("defang").await;
    let iam = env.iam(&format!("{}_defang", env.namespace)).await;
    assert_eq!(iam.attached, BTreeSet::from(["arn:aws:iam::aws:policy/AdministratorAccess".to_owned()]));
    let secret = env.secret_data("defang").await.expect("the Secret is there");
    assert_eq!(secret["AWS_DEFAULT_REGION"], "eu-central-1");
}

pub(crate) async fn first_creation_costs_four_writes_and_one_read() {
    // On a slow machine a creation takes longer than the short resync of the other tests and would read again.
    let env = TestEnv::with_arguments(&["--resync=1h", "--key-check=1h", "--secret-check=1h"]).await;
    env.apply("cycle", cycle_spec()).await;
    env.wait_ready("cycle").await;
    let calls = env.aws.log().calls_for_user("cycle-prod");
    let named = |mutating: bool| -> Vec<&str> {
        calls
            .iter()
            .filter(|call| call.service != "sts" && call.mutating == mutating)
            .map(|call| call.action.as_str())
            .collect()
    };
    assert_eq!(named(true), ["CreateUser", "AttachUserPolicy", "CreateAccessKey", "TagUser"]);
    assert_eq!(named(false), ["GetUser"]);
    let minted = env.published_key("cycle-aws").await;
    let checks =
        env.aws.log().select(|call| call.action == "GetCallerIdentity" && call.caller_key.as_ref() == Some(&minted));
    assert_eq!(checks.len(), 3, "three checks with STS");
}

pub(crate) async fn operator_restart_writes_nothing_and_stays_ready() {
    let mut env = TestEnv::with_arguments(&["--resync=1h", "--key-check=1h", "--secret-check=1h"]).await;
    env.apply("cycle", cycle_spec()).await;
    env.wait_ready("cycle").await;
    env.wait_for_event("cycle", Reason::Published).await;
    env.assert_restart_writes_nothing("cycle").await;
}
