//! Access to the AWS console, as the console itself would hand it out.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::Call;
use k8s_openapi::api::core::v1::Secret;
use kube::{api::PostParams, runtime::wait::await_condition};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, eventually, message};

const CHANGE: &str = "arn:aws:iam::aws:policy/IAMUserChangePassword";

/// Both: access to the console and an access key.
fn spec() -> Value {
    json!({"userName": "person", "accessKey": {}, "console": {"passwordResetRequired": true, "secretName": "person-console"}})
}

/// Access to the console and no key.
fn console_only() -> Value {
    json!({"userName": "person", "console": {"secretName": "person-console"}})
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

pub(crate) async fn console_alone_makes_no_key() {
    let mut stage = Stage::new().await;
    let human = stage.aws.human();
    let rules = Call::iam("UpdateAccountPasswordPolicy").with("MinimumPasswordLength", "40");
    human.call(&rules.with("AllowUsersToChangePassword", "true")).await.expect("the account's rules");
    human.call(&Call::iam("CreateAccountAlias").with("AccountAlias", "acme")).await.expect("the account's alias");
    stage.apply("x", console_only()).await;
    let user = stage.ready("x").await;
    for kind in [ConditionType::KeyPublished, ConditionType::RotationHealthy] {
        let found = condition(&user, kind).map(|found| (found.status.as_str(), found.reason.as_str()));
        assert_eq!(found, Some(("True", "NotRequested")), "{kind}");
    }
    assert!(message(&user, ConditionType::Ready).contains("no access key"), "{}", message(&user, ConditionType::Ready));
    let status = user.status.expect("a status");
    assert!(status.access_keys.is_empty() && status.secret_name.is_none() && status.next_rotation_time.is_none());
    assert!(stage.iam("person").await.login_profile.is_some());
    let secret = stage.secret("person-console").await.expect("the Secret of the password");
    assert_eq!(secret["consoleSignInUrl"], "https://acme.signin.aws.amazon.com/console");
    assert!(secret["password"].chars().count() >= 40, "the account's rules are kept");
    assert!(stage.iam("person").await.attached.is_empty(), "everybody may change the own password already");
    assert!(stage.secret("x").await.is_none() && stage.secret("x.awsdeploy-journal").await.is_none());
    assert!(stage.aws.log().calls_of("CreateAccessKey").is_empty());
    human.call(&Call::iam("DeleteLoginProfile").with("UserName", "person")).await.expect("by hand");
    stage.until_iam("person", "with a password again", |user| user.login_profile.is_some()).await;
    assert_eq!(stage.secret("person-console").await.expect("the Secret")["password"], secret["password"]);
    stage.until_condition("x", ConditionType::UserSynced, "True", None).await;
    stage.assert_a_fresh_look_writes_nothing("x").await;
    stage.delete("x").await;
    stage.gone("x").await;
    assert!(stage.iam_opt("person").await.is_none());
}

pub(crate) async fn an_access_key_comes_and_goes_beside_the_console() {
    // Long enough for a look at the Secret of the key that is on its way out.
    let stage = Stage::with_arguments(&["--retire-dwell=20s"]).await;
    let mut both = console_only();
    both["accessKey"] = json!({"description": "CI", "secret": {"name": "person-aws"}});
    stage.apply("x", both).await;
    stage.ready("x").await;
    let key = stage.published("person-aws").await;

    stage.apply("x", console_only()).await;
    stage.until_iam("person", "without a working key", |user| user.active_keys().is_empty()).await;
    assert!(!stage.account.accepts(&key), "revoked at once");
    assert_eq!(stage.published("person-aws").await, key, "until the key is gone it can be activated again");
    let iam = stage.until_iam("person", "without a key", |user| user.keys.is_empty()).await;
    let gone = await_condition(stage.secrets(), "person-aws", |secret: Option<&Secret>| secret.is_none());
    tokio::time::timeout(SOON, gone).await.expect("the Secret goes with its key").expect("watched");
    assert!(iam.login_profile.is_some() && stage.secret("person-console").await.is_some());
    stage
        .until_iam("person", "without tags of the key", |user| {
            user.tags.keys().all(|tag| !tag.contains(&key)) && user.tags.contains_key("awsdeploy.dev/console")
        })
        .await;
    let user =
        stage.until("x", "rid of the key", |user| user.status.as_ref().is_some_and(|s| s.secret_name.is_none())).await;
    assert_eq!(condition(&user, ConditionType::Ready).map(|ready| ready.status.as_str()), Some("True"));
    assert!(user.status.expect("a status").last_rotation_time.is_none());

    let mut again = console_only();
    again["accessKey"] = json!({});
    stage.apply("x", again).await;
    stage.ready("x").await;
    assert_ne!(stage.published("x").await, key);
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 2);
    assert_eq!(stage.aws.log().calls_of("CreateLoginProfile").len(), 1, "the password is the same one");
}

pub(crate) async fn a_key_under_way_is_given_up_when_it_is_not_declared_any_more() {
    use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
    let mut stage = Stage::new().await;
    stage.apply("x", console_only()).await;
    stage.ready("x").await;
    let rule = stage.aws.rules().add(Rule::on("GetCallerIdentity").answer(AwsError::invalid_client_token()));
    stage.apply("x", spec()).await;
    let staged = async || stage.secret("x.awsdeploy-journal").await;
    eventually("a staged key", staged, || stage.log()).await;
    stage.until_iam("person", "with a key", |user| user.keys.len() == 1).await;
    stage.apply("x", console_only()).await;
    stage.until_iam("person", "without a key", |user| user.keys.is_empty()).await;
    let closed = async || stage.secret("x.awsdeploy-journal").await.is_none().then_some(());
    eventually("the journal is closed", closed, || stage.log()).await;
    stage.aws.rules().remove(rule);
    stage.ready("x").await;
    assert!(stage.secret("x").await.is_none());
    assert_eq!(stage.aws.log().calls_of("CreateAccessKey").len(), 1);
    stage.assert_a_fresh_look_writes_nothing("x").await;
}
