//! Access to the AWS console, as the console itself would hand it out.

use awsdeploy::api::{ConditionType, Reason};
use k8s_openapi::api::core::v1::Secret;
use kube::{api::PostParams, runtime::wait::await_condition};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, message};

const CHANGE: &str = "arn:aws:iam::aws:policy/IAMUserChangePassword";

fn spec() -> Value {
    json!({"userName": "person", "console": {"passwordResetRequired": true, "secretName": "person-console"}})
}

pub(crate) async fn a_person_gets_a_password_and_the_way_in() {
    let mut stage = Stage::new().await;
    stage.apply("x", spec()).await;
    stage.ready("x").await;
    let iam = stage.iam("person").await;
    assert!(iam.login_profile.expect("a login profile").password_reset_required);
    assert!(iam.attached.contains(CHANGE), "{:?}", iam.attached);
    let secret = stage.secret("person-console").await.expect("the Secret is there");
    let account = stage.account.home().account;
    let url = format!("https://{account}.signin.aws.amazon.com/console");
    assert_eq!((secret["username"].as_str(), secret["consoleSignInUrl"].as_str()), ("person", url.as_str()));
    let password = &secret["password"];
    assert!(password.len() >= 32);
    assert_eq!(secret["credentials.csv"], format!("User name,Password,Console sign-in URL\nperson,{password},{url}\n"));
    assert!(!stage.log().contains(password), "the log holds the password");
    assert!(stage.events("x").await.iter().all(|(_, note)| !note.contains(password)), "an Event holds the password");
    stage.assert_a_fresh_look_writes_nothing("x").await;

    stage.annotate("x", "awsdeploy.dev/reset-password", "forgotten").await;
    let other = |secret: Option<&Secret>| {
        secret.is_some_and(|secret| {
            let data = secret.data.as_ref().and_then(|data| data.get("password"));
            let told = secret.metadata.annotations.as_ref().and_then(|all| all.get("awsdeploy.dev/password"));
            data.is_some_and(|new| new.0 != password.as_bytes()) && told.is_some_and(|told| told == "applied")
        })
    };
    let reset = await_condition(stage.secrets(), "person-console", other);
    tokio::time::timeout(SOON, reset).await.expect("a new password").expect("watched");
    assert_eq!(stage.aws.log().calls_of("UpdateLoginProfile").len(), 1);

    stage.apply("x", json!({"userName": "person"})).await;
    stage.until_iam("person", "without console access", |user| user.login_profile.is_none()).await;
    stage.ready("x").await;
    assert!(stage.secret("person-console").await.is_none());
    let iam = stage.iam("person").await;
    assert!(!iam.attached.contains(CHANGE) && !iam.tags.contains_key("awsdeploy.dev/console"), "{iam:#?}");
}

pub(crate) async fn a_password_that_aws_took_without_telling_is_the_one_in_the_secret() {
    use awsdeploy_testkit::aws_proxy::Rule;
    let stage = Stage::new().await;
    stage.aws.rules().add(Rule::on("CreateLoginProfile").after_commit().first(3).drop_connection());
    stage.apply("x", spec()).await;
    stage.until_iam("person", "with a password", |user| user.login_profile.is_some()).await;
    let before = stage.secret("person-console").await.expect("written first")["password"].clone();
    stage.ready("x").await;
    assert_eq!(stage.secret("person-console").await.expect("the Secret")["password"], before);
}

pub(crate) async fn a_foreign_console_secret_is_left_alone() {
    let stage = Stage::new().await;
    let theirs: Secret =
        serde_json::from_value(json!({"metadata": {"name": "person-console"}, "stringData": {"password": "theirs"}}))
            .expect("a Secret");
    stage.secrets().create(&PostParams::default(), &theirs).await.expect("somebody's Secret");
    stage.apply("x", spec()).await;
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("spec.console.secretName"));
    assert_eq!(stage.secret("person-console").await.expect("theirs")["password"], "theirs");
    assert!(stage.iam("person").await.login_profile.is_none());
}

pub(crate) async fn console_access_leaves_with_the_resource() {
    let stage = Stage::new().await;
    stage.apply("x", spec()).await;
    stage.ready("x").await;
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(stage.iam_opt("person").await.is_none());
    assert!(stage.secret("person-console").await.is_none());
    assert_eq!(stage.aws.log().calls_of("DeleteUser").len(), 1, "what is declared is no surprise");
}
