//! Access to the AWS console: password, sign-in URL and their Secret.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::Call;
use k8s_openapi::api::core::v1::Secret;
use kube::{api::PostParams, runtime::wait::await_condition};
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv, condition, eventually, message};

const CHANGE_PASSWORD: &str = "arn:aws:iam::aws:policy/IAMUserChangePassword";

/// Console access and an access key.
fn spec() -> Value {
    json!({"userName": "person", "accessKey": {}, "console": {"passwordResetRequired": true, "secretName": "person-console"}})
}

/// Console access only.
fn console_only() -> Value {
    json!({"userName": "person", "console": {"secretName": "person-console"}})
}

pub(crate) async fn console_user_gets_password_and_sign_in_instructions() {
    let mut env = TestEnv::new().await;
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    let iam = env.iam("person").await;
    assert!(iam.login_profile.expect("a login profile").password_reset_required);
    assert!(iam.attached.contains(CHANGE_PASSWORD), "{:?}", iam.attached);
    let secret = env.secret_data("person-console").await.expect("the Secret is there");
    let account = env.account.home().account;
    let url = format!("https://{account}.signin.aws.amazon.com/console");
    assert_eq!((secret["username"].as_str(), secret["consoleSignInUrl"].as_str()), ("person", url.as_str()));
    let password = &secret["password"];
    assert!(password.len() >= 32);
    assert_eq!(secret["credentials.csv"], format!("User name,Password,Console sign-in URL\nperson,{password},{url}\n"));
    assert!(!env.log().contains(password), "the log contains the password");
    assert!(env.events("x").await.iter().all(|(_, note)| !note.contains(password)), "an Event contains the password");
    env.assert_restart_writes_nothing("x").await;

    env.annotate("x", "awsdeploy.dev/reset-password", "forgotten").await;
    let other = |secret: Option<&Secret>| {
        secret.is_some_and(|secret| {
            let data = secret.data.as_ref().and_then(|data| data.get("password"));
            let text = secret.metadata.annotations.as_ref().and_then(|all| all.get("awsdeploy.dev/password"));
            data.is_some_and(|new| new.0 != password.as_bytes()) && text.is_some_and(|text| text == "applied")
        })
    };
    let reset = await_condition(env.secrets(), "person-console", other);
    tokio::time::timeout(TIMEOUT, reset).await.expect("a new password").expect("watched");
    assert_eq!(env.aws.log().calls_of("UpdateLoginProfile").len(), 1);

    env.apply("x", json!({"userName": "person"})).await;
    env.wait_for_iam("person", "without console access", |user| user.login_profile.is_none()).await;
    env.wait_ready("x").await;
    assert!(env.secret_data("person-console").await.is_none());
    let iam = env.iam("person").await;
    assert!(!iam.attached.contains(CHANGE_PASSWORD) && !iam.tags.contains_key("awsdeploy.dev/console"), "{iam:#?}");
}

pub(crate) async fn password_of_a_lost_response_matches_the_secret() {
    use awsdeploy_testkit::aws_proxy::Rule;
    let env = TestEnv::new().await;
    env.aws.rules().add(Rule::on("CreateLoginProfile").after_commit().first(3).drop_connection());
    env.apply("x", spec()).await;
    env.wait_for_iam("person", "with a password", |user| user.login_profile.is_some()).await;
    let before = env.secret_data("person-console").await.expect("the Secret is written first")["password"].clone();
    env.wait_ready("x").await;
    assert_eq!(env.secret_data("person-console").await.expect("the Secret")["password"], before);
}

pub(crate) async fn foreign_console_secret_is_not_touched() {
    let env = TestEnv::new().await;
    let theirs: Secret =
        serde_json::from_value(json!({"metadata": {"name": "person-console"}, "stringData": {"password": "theirs"}}))
            .expect("a Secret");
    env.secrets().create(&PostParams::default(), &theirs).await.expect("an unmanaged Secret");
    env.apply("x", spec()).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::SecretConflict)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("spec.console.secretName"));
    assert_eq!(env.secret_data("person-console").await.expect("theirs")["password"], "theirs");
    assert!(env.iam("person").await.login_profile.is_none());
}

pub(crate) async fn console_access_is_deleted_with_the_resource() {
    let env = TestEnv::new().await;
    env.apply("x", spec()).await;
    env.wait_ready("x").await;
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("person").await.is_none());
    assert!(env.secret_data("person-console").await.is_none());
    assert_eq!(
        env.aws.log().calls_of("DeleteUser").len(),
        1,
        "declared console access is deleted without a deletion conflict"
    );
}

pub(crate) async fn console_only_user_gets_no_key() {
    let mut env = TestEnv::new().await;
    let manual_changes = env.aws.manual_changes();
    let rules = Call::iam("UpdateAccountPasswordPolicy").with("MinimumPasswordLength", "40");
    manual_changes
        .call(&rules.with("AllowUsersToChangePassword", "true"))
        .await
        .expect("the password policy of the account");
    manual_changes
        .call(&Call::iam("CreateAccountAlias").with("AccountAlias", "acme"))
        .await
        .expect("the account's alias");
    env.apply("x", console_only()).await;
    let user = env.wait_ready("x").await;
    for kind in [ConditionType::KeyPublished, ConditionType::RotationHealthy] {
        let found = condition(&user, kind).map(|found| (found.status.as_str(), found.reason.as_str()));
        assert_eq!(found, Some(("True", "NotRequested")), "{kind}");
    }
    assert!(message(&user, ConditionType::Ready).contains("no access key"), "{}", message(&user, ConditionType::Ready));
    let status = user.status.expect("a status");
    assert!(status.access_keys.is_empty() && status.secret_name.is_none() && status.next_rotation_time.is_none());
    assert!(env.iam("person").await.login_profile.is_some());
    let secret = env.secret_data("person-console").await.expect("the Secret of the password");
    assert_eq!(secret["consoleSignInUrl"], "https://acme.signin.aws.amazon.com/console");
    assert!(secret["password"].chars().count() >= 40, "the password policy of the account is met");
    assert!(env.iam("person").await.attached.is_empty(), "the account already allows users to change their password");
    assert!(env.secret_data("x").await.is_none() && env.journal("x").await.is_none());
    assert!(env.aws.log().calls_of("CreateAccessKey").is_empty());
    manual_changes.call(&Call::iam("DeleteLoginProfile").with("UserName", "person")).await.expect("manually");
    env.wait_for_iam("person", "with a password again", |user| user.login_profile.is_some()).await;
    assert_eq!(env.secret_data("person-console").await.expect("the Secret")["password"], secret["password"]);
    env.wait_for_condition("x", ConditionType::UserSynced, "True", None).await;
    env.assert_restart_writes_nothing("x").await;
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("person").await.is_none());
}

pub(crate) async fn access_key_can_be_added_to_and_removed_from_a_console_user() {
    // Long enough to read the Secret before its key is deleted.
    let env = TestEnv::with_arguments(&["--deletion-delay=20s"]).await;
    let mut both = console_only();
    both["accessKey"] = json!({"description": "CI", "secret": {"name": "person-aws"}});
    env.apply("x", both).await;
    env.wait_ready("x").await;
    let key = env.published_key("person-aws").await;

    env.apply("x", console_only()).await;
    env.wait_for_iam("person", "without a working key", |user| user.active_keys().is_empty()).await;
    assert!(!env.account.accepts(&key), "revoked at once");
    assert_eq!(env.published_key("person-aws").await, key, "the Secret is kept until the key is deleted");
    let iam = env.wait_for_iam("person", "without a key", |user| user.keys.is_empty()).await;
    let deleted = await_condition(env.secrets(), "person-aws", |secret: Option<&Secret>| secret.is_none());
    tokio::time::timeout(TIMEOUT, deleted).await.expect("the Secret is deleted with its key").expect("watched");
    assert!(iam.login_profile.is_some() && env.secret_data("person-console").await.is_some());
    env.wait_for_iam("person", "without tags of the key", |user| {
        user.tags.keys().all(|tag| !tag.contains(&key)) && user.tags.contains_key("awsdeploy.dev/console")
    })
    .await;
    let user = env
        .wait_until("x", "without the key", |user| user.status.as_ref().is_some_and(|s| s.secret_name.is_none()))
        .await;
    assert_eq!(condition(&user, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("True"));
    assert!(user.status.expect("a status").last_rotation_time.is_none());

    let mut again = console_only();
    again["accessKey"] = json!({});
    env.apply("x", again).await;
    env.wait_ready("x").await;
    assert_ne!(env.published_key("x").await, key);
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 2);
    assert_eq!(env.aws.log().calls_of("CreateLoginProfile").len(), 1, "the password is unchanged");
}

pub(crate) async fn staged_key_removed_from_the_spec_is_abandoned() {
    use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
    let mut env = TestEnv::new().await;
    env.apply("x", console_only()).await;
    env.wait_ready("x").await;
    let rule = env.aws.rules().add(Rule::on("GetCallerIdentity").respond_with(AwsError::invalid_client_token()));
    env.apply("x", spec()).await;
    let staged = async || env.journal("x").await;
    eventually("a staged key", staged, || env.log()).await;
    env.wait_for_iam("person", "with a key", |user| user.keys.len() == 1).await;
    env.apply("x", console_only()).await;
    env.wait_for_iam("person", "without a key", |user| user.keys.is_empty()).await;
    env.wait_journal_deleted("x").await;
    env.aws.rules().remove(rule);
    env.wait_ready("x").await;
    assert!(env.secret_data("x").await.is_none());
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1);
    env.assert_restart_writes_nothing("x").await;
}
