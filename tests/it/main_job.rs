//! The main job: a manifest in, a working key in a Secret out.

use std::collections::BTreeSet;

use awsdeploy::api::{ConditionType, Reason};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition};

fn cycle() -> Value {
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

pub(crate) async fn one_manifest_leads_to_user_policy_key_and_secret() {
    let stage = Stage::new().await;
    stage.apply("cycle", cycle()).await;
    let user = stage.ready("cycle").await;

    let iam = stage.iam("cycle-prod").await;
    assert_eq!(iam.path, "/awsdeploy/");
    assert_eq!(iam.attached, BTreeSet::from(["arn:aws:iam::aws:policy/AmazonEC2FullAccess".to_owned()]));
    assert_eq!(iam.tags["team"], "payments");
    assert_eq!(iam.tags["awsdeploy.dev/namespace"], stage.namespace);
    assert_eq!(iam.tags["awsdeploy.dev/use-case"], "ThirdPartyService");
    assert_eq!(iam.keys.len(), 1);
    let key = &iam.keys[0];
    assert_eq!(iam.tags[&key.id], "Cycle hub - production", "the console shows the description");

    let secret = stage.secret("cycle-aws").await.expect("the Secret is there");
    assert_eq!(secret["AWS_ACCESS_KEY_ID"], key.id);
    assert!(stage.account.secret_matches(&key.id, &secret["AWS_SECRET_ACCESS_KEY"]), "id and secret belong together");
    assert_eq!(secret["AWS_REGION"], "us-east-1");
    assert!(
        secret["credentials"].contains(&key.id) && secret["credentials"].contains(&secret["AWS_SECRET_ACCESS_KEY"])
    );
    assert_eq!(secret["config"], "[default]\nregion = us-east-1\n");
    assert_eq!(
        stage.secrets().get_opt("cycle.awsdeploy-journal").await.expect("readable"),
        None,
        "the journal is closed"
    );

    for kind in ConditionType::ALL {
        assert_eq!(condition(&user, kind).expect("every condition is there").status, "True", "{kind}");
    }
    let status = user.status.expect("a status");
    assert_eq!(status.user.expect("a user").arn, iam.arn);
    assert_eq!(status.secret_name.as_deref(), Some("cycle-aws"));
    assert!(status.next_rotation_time.is_some());

    let (_mount, consumer) = stage.consume("cycle-aws", &iam.arn);
    let report = consumer.until("ten accepted calls", SOON, |report| report.accepted >= 10).await.expect("calls");
    assert_eq!((report.refused, report.unanswered), (0, 0), "{report}");
    assert!(stage.event("cycle", Reason::Published).await.contains(&key.id));
    assert!(!stage.log().contains(&secret["AWS_SECRET_ACCESS_KEY"]), "the log holds the secret");
}

pub(crate) async fn the_defang_guide_is_one_manifest_too() {
    let stage = Stage::new().await;
    stage
        .apply(
            "defang",
            json!({
                "policies": {"managed": ["AdministratorAccess"]},
                "accessKey": {"useCase": "ApplicationOnAwsCompute", "description": "defang compose up", "region": "eu-central-1"},
            }),
        )
        .await;
    stage.ready("defang").await;
    let iam = stage.iam(&format!("{}-defang", stage.namespace)).await;
    assert_eq!(iam.attached, BTreeSet::from(["arn:aws:iam::aws:policy/AdministratorAccess".to_owned()]));
    let secret = stage.secret("defang").await.expect("the Secret is there");
    assert_eq!(secret["AWS_DEFAULT_REGION"], "eu-central-1");
}

pub(crate) async fn first_creation_costs_four_writes_and_one_read() {
    // On a slow machine a creation outlives the short resync of the other tests, and then looks again.
    let stage = Stage::with_arguments(&["--resync=1h", "--key-check=1h", "--secret-check=1h"]).await;
    stage.apply("cycle", cycle()).await;
    stage.ready("cycle").await;
    let calls = stage.aws.log().calls_about("cycle-prod");
    let named = |mutating: bool| -> Vec<&str> {
        calls
            .iter()
            .filter(|call| call.service != "sts" && call.mutating == mutating)
            .map(|call| call.action.as_str())
            .collect()
    };
    assert_eq!(named(true), ["CreateUser", "AttachUserPolicy", "CreateAccessKey", "TagUser"]);
    assert_eq!(named(false), ["GetUser"]);
    let minted = stage.published("cycle-aws").await;
    let checks =
        stage.aws.log().select(|call| call.action == "GetCallerIdentity" && call.caller_key.as_ref() == Some(&minted));
    assert_eq!(checks.len(), 3, "three checks by STS");
}

pub(crate) async fn a_restart_writes_nothing_and_stays_ready() {
    let mut stage = Stage::with_arguments(&["--resync=1h", "--key-check=1h", "--secret-check=1h"]).await;
    stage.apply("cycle", cycle()).await;
    stage.ready("cycle").await;
    stage.event("cycle", Reason::Published).await;
    stage.assert_a_fresh_look_writes_nothing("cycle").await;
}
