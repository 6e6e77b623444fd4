//! Several AWS accounts: the operator assumes a role in each, and a failing account does not affect the others.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use awsdeploy::{
    api::{AwsDeployUserClass, ConditionType, Reason, well_known},
    aws::AwsErrorKind,
    domain::account::Role,
};
use awsdeploy_testkit::aws_proxy::{
    Account, AccountRef, Authorizer, AwsError, AwsResponse, Call, CallRecord, Caller, Pause, Rule, UserSnapshot,
};
use futures::future::{BoxFuture, join_all};
use kube::{ResourceExt, api::DeleteParams, runtime::wait::await_condition};
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TIMEOUT, TestAccount, TestEnv, message};

const EXTERNAL_ID: &str = "production/cluster:1";
/// The access key of the operator in every account of the tests.
const OPERATOR_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";

/// Roles that trust the operator, by ARN, with the external id that each requires.
#[derive(Default)]
struct Trust(Mutex<BTreeMap<String, Option<String>>>);

impl Trust {
    /// Installs an empty trust: every `AssumeRole` is denied until `allow` is called.
    fn of(account: &Account) -> Arc<Self> {
        let trust = Arc::new(Self::default());
        account.authorize_with(Arc::clone(&trust) as _);
        trust
    }

    fn allow(&self, role: &str) {
        self.roles().insert(role.to_owned(), Some(EXTERNAL_ID.to_owned()));
    }

    fn deny(&self, role: &str) {
        self.roles().remove(role);
    }

    fn roles(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authorizer for Trust {
    fn check<'a>(&'a self, _: &'a Caller, call: &'a Call) -> BoxFuture<'a, Result<(), AwsError>> {
        let role = call.param("RoleArn").filter(|_| call.action == "AssumeRole");
        let requested = role.map(|role| (role, self.roles().get(role).cloned()));
        let result = match requested {
            Some((_, Some(id))) if id.as_deref() == call.param("ExternalId") => Ok(()),
            Some((role, _)) => {
                Err(AwsError::access_denied("arn:aws:iam::111122223333:role/operator", "sts:AssumeRole", role))
            }
            None => Ok(()),
        };
        Box::pin(async { result })
    }
}

/// An account id that no other test uses.
fn account_id() -> String {
    Account::unique().id().to_owned()
}

fn role(account: &str, name: &str) -> String {
    format!("arn:aws:iam::{account}:role/{name}")
}

fn class(account: &str, name: &str) -> Value {
    json!({"account": {"id": account, "roleArn": role(account, name), "externalId": EXTERNAL_ID}})
}

async fn user_in(env: &TestEnv, account: &str, user: &str) -> Option<UserSnapshot> {
    env.inspector().in_account(AccountRef::aws(account)).user(user).await.expect("the account can be read")
}

fn uses_own_credentials(call: &CallRecord) -> bool {
    call.caller_key.as_deref() == Some(OPERATOR_KEY_ID)
}

pub(crate) async fn users_of_a_role_share_its_account_and_session() {
    let env = TestEnv::with_arguments(&["--resync=1s"]).await;
    let there = account_id();
    Trust::of(&env.account).allow(&role(&there, "r"));
    let class = env.apply_class("c", class(&there, "r")).await;
    for name in ["a", "b", "c"] {
        env.apply(name, json!({"className": class, "userName": name})).await;
    }
    for name in ["a", "b", "c"] {
        let user = env.wait_ready(name).await;
        let iam = user_in(&env, &there, name).await.expect("the user is in the other account");
        let recorded = user.status.expect("a status").user.expect("a user");
        assert_eq!((recorded.account, recorded.arn), (there.clone(), Some(iam.arn)));
        assert!(env.iam_opt(name).await.is_none(), "and not in the operator's own");
        assert!(env.account.accepts(&env.published_key(name).await), "its key was verified there");
    }
    let old = env.published_key("a").await;
    env.annotate("a", well_known::ANNOTATION_ROTATE, "1").await;
    env.wait_published("a", &old).await;
    let position = env.aws.log().position();
    for _ in 0..3 {
        env.wait_for_drift_check(env.aws.log().position()).await;
    }
    assert!(env.aws.log().mutating_calls_since(position).iter().all(|call| call.user.as_deref() == Some("a")));

    let assumed = env.aws.log().calls_of("AssumeRole");
    assert_eq!(assumed.len(), 1, "one session for three resources and all their reconciles: {assumed:#?}");
    assert!(assumed[0].params["RoleSessionName"].starts_with("aws-deploy-user-operator@"), "{assumed:#?}");
    assert_eq!(assumed[0].params["ExternalId"], EXTERNAL_ID);
    let own = env.aws.log().select(|call| uses_own_credentials(call) && call.action != "AssumeRole");
    assert!(own.is_empty(), "the operator's own credentials are used for nothing else: {own:#?}");
    let line = |operation: &str| {
        format!("awsdeploy_aws_requests_total{{account=\"{there}\",operation=\"{operation}\",code=\"OK\"}}")
    };
    assert_eq!(env.metric_count(&line("AssumeRole")).await, 1);
    assert_eq!(env.metric_count(&line("CreateUser")).await, 3);

    env.delete("a").await;
    env.wait_deleted("a").await;
    assert!(user_in(&env, &there, "a").await.is_none());
}

pub(crate) async fn role_of_a_class_is_mutable_and_its_account_is_not() {
    let env = TestEnv::new().await;
    let there = account_id();
    let trust = Trust::of(&env.account);
    trust.allow(&role(&there, "old"));
    trust.allow(&role(&there, "new"));
    let name = env.apply_class("c", class(&there, "old")).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let position = env.aws.log().position();
    env.apply_class("c", class(&there, "new")).await;
    let assumes_new_role =
        |call: &CallRecord| call.action == "AssumeRole" && call.params.get("RoleArn") == Some(&role(&there, "new"));
    env.aws
        .log()
        .wait_since(position, "the other role", TIMEOUT, assumes_new_role)
        .await
        .expect("the other role is assumed");
    env.wait_until("x", "recorded with its new role", |user| {
        let class = user.status.as_ref().and_then(|status| status.class.as_ref());
        class.and_then(|class| class.account.as_ref()?.role_arn.clone()) == Some(role(&there, "new"))
    })
    .await;
    assert_eq!(env.published_key("x").await, key);
    assert!(env.aws.log().mutating_calls_since(position).is_empty());

    let refused = |spec: Value| {
        let env = &env;
        async move { env.try_apply_class("c", spec).await.expect_err("the API server refuses it").to_string() }
    };
    let other = account_id();
    assert!(refused(class(&other, "new")).await.contains("account.id is immutable"));
    let mut mixed = class(&there, "new");
    mixed["account"]["roleArn"] = json!(role(&other, "new"));
    assert!(refused(mixed).await.contains("account.roleArn must be a role of the account account.id"));
    let alone = json!({"account": {"id": there, "externalId": EXTERNAL_ID}});
    assert!(refused(alone).await.contains("account.externalId needs account.roleArn"));
    for bad in ["x", "with space", "ü-ü"] {
        let mut spec = class(&there, "new");
        spec["account"]["externalId"] = json!(bad);
        assert!(refused(spec).await.contains("externalId"), "{bad}");
    }
}

pub(crate) async fn caller_identity_decides_the_account_first() {
    let env = TestEnv::new().await;
    let there = account_id();
    Trust::of(&env.account).allow(&role(&there, "r"));
    let named = there.clone();
    let wrong_account =
        move |_: &Call, answer: &mut AwsResponse| answer.body = answer.body.replace(&named, "999999999999");
    env.aws.rules().add(Rule::on("GetCallerIdentity").rewrite(wrong_account));
    let class = env.apply_class("c", class(&there, "r")).await;
    env.apply("x", json!({"className": class, "userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::WrongAccount)).await;
    let text = message(&user, ConditionType::Ready);
    let wanted = format!(
        "class {class} is for AWS account {there}, but the credentials of {} belong to account 999999999999; nothing is written to AWS",
        role(&there, "r")
    );
    assert!(text.contains(&wanted), "{text}");
    let others = env.aws.log().select(|call| call.service == "iam");
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!(user.metadata.finalizers, None, "nothing was started");
}

/// Waits for a condition of a class. Returns its message.
async fn class_condition(env: &TestEnv, class: &str, kind: &str, status: &str, reason: Reason) -> String {
    let found = |class: Option<&AwsDeployUserClass>| {
        let status = class?.status.as_ref()?;
        status.conditions.iter().find(|condition| condition.type_ == kind).cloned()
    };
    let fits = |class: Option<&AwsDeployUserClass>| {
        found(class).is_some_and(|found| found.status == status && found.reason == reason.as_str())
    };
    match tokio::time::timeout(TIMEOUT, await_condition(env.classes(), class, fits)).await {
        Ok(Ok(class)) => found(class.as_ref()).expect("the condition").message,
        other => panic!("{kind}={status} {reason}: {other:?}\n{}", env.log()),
    }
}

pub(crate) async fn denied_role_reports_what_to_fix_and_recovers() {
    let env =
        TestEnv::with_options(EnvOptions { arguments: vec!["--class-status=true"], ..EnvOptions::default() }).await;
    let there = account_id();
    let trust = Trust::of(&env.account);
    let name = env.apply_class("c", class(&there, "r")).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::AssumeRoleDenied)).await;
    let text = message(&user, ConditionType::Ready);
    for part in
        [role(&there, "r").as_str(), "trust policy", "account.externalId", "sts:AssumeRole", "iam-policy --class"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(user.metadata.finalizers, None, "it can be deleted at once");
    let text = class_condition(&env, &name, "CredentialsValid", "False", Reason::AssumeRoleDenied).await;
    assert!(text.contains("trust policy"), "{text}");
    class_condition(&env, &name, "AccountMatches", "Unknown", Reason::AssumeRoleDenied).await;
    let line =
        format!("awsdeploy_aws_requests_total{{account=\"{there}\",operation=\"AssumeRole\",code=\"AccessDenied\"}}");
    assert!(env.metric_count(&line).await >= 1);

    trust.allow(&role(&there, "r"));
    // Sooner than the back-off of five minutes: the class status recovers first and requeues the users of the account.
    env.wait_ready("x").await;
    let text = class_condition(&env, &name, "CredentialsValid", "True", Reason::Reconciled).await;
    assert!(text.contains(&role(&there, "r")), "{text}");
    class_condition(&env, &name, "AccountMatches", "True", Reason::Reconciled).await;
}

pub(crate) async fn unresponsive_account_does_not_block_others() {
    // With a concurrency of four, 12 resources that hang for 25 s each would block everything beyond the time-out. More would
    // only test how many calls a second the emulator answers after the release.
    let env = TestEnv::with_arguments(&["--concurrency=4"]).await;
    let (silent, refused, well) = (account_id(), account_id(), account_id());
    let trust = Trust::of(&env.account);
    trust.allow(&role(&silent, "r"));
    trust.allow(&role(&well, "r"));
    let pause = Pause::default();
    for n in 0..12 {
        env.aws.rules().add(Rule::on("GetUser").user(&format!("s{n}")).pause(&pause));
    }
    let spec = |class: &str, user: &str| json!({"className": class, "userName": user, "accessKey": {"rotation": {"overlap": "1s"}}});
    for (class, prefix) in [
        (env.apply_class("silent", class(&silent, "r")).await, "s"),
        (env.apply_class("refused", class(&refused, "r")).await, "r"),
    ] {
        for n in 0..12 {
            let name = format!("{prefix}{n}");
            env.apply(&name, spec(&class, &name)).await;
        }
    }
    assert!(pause.wait_until_held(TIMEOUT).await, "reconciles of the unresponsive account are running");
    let class = env.apply_class("well", class(&well, "r")).await;
    env.apply("other", spec(&class, "other")).await;
    env.apply("own", json!({"userName": "own", "accessKey": {"rotation": {"overlap": "1s"}}})).await;
    for name in ["other", "own"] {
        env.wait_ready(name).await;
        let old = env.published_key(name).await;
        env.annotate(name, well_known::ANNOTATION_ROTATE, "1").await;
        env.wait_published(name, &old).await;
    }
    assert!(pause.held() > 0, "the account has not responded yet");
    assert!(env.inspector().in_account(AccountRef::aws(&silent)).users().await.expect("users").is_empty());
    env.wait_for_condition("r0", ConditionType::Ready, "False", Some(Reason::AssumeRoleDenied)).await;
    pause.release();
    env.wait_ready("s0").await;
}

pub(crate) async fn revocation_reaches_an_account_that_no_class_serves() {
    let env = TestEnv::new().await;
    let there = account_id();
    Trust::of(&env.account).allow(&role(&there, "r"));
    let mut spec = class(&there, "r");
    spec["onRevoked"] = json!("Delete");
    let name = env.apply_class("c", spec).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    env.wait_ready("x").await;
    env.classes().delete(&name, &DeleteParams::default()).await.expect("the class is deleted");
    env.wait_until("x", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none()))
        .await;
    assert!(user_in(&env, &there, "u").await.is_none());
    assert!(env.secret_data("x").await.is_none());
}

pub(crate) async fn deletion_waits_for_a_role_in_its_account() {
    let mut env = TestEnv::new().await;
    let there = account_id();
    let trust = Trust::of(&env.account);
    trust.allow(&role(&there, "r"));
    let name = env.apply_class("c", class(&there, "r")).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    env.wait_ready("x").await;
    trust.deny(&role(&there, "r"));
    env.classes().delete(&name, &DeleteParams::default()).await.expect("the class is deleted");
    env.operator.restart().await.expect("the operator restarts, without its session");
    env.delete("x").await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::AssumeRoleDenied)).await;
    let text = message(&user, ConditionType::Ready);
    for part in [role(&there, "r"), format!("class {name}"), format!("account.id {there}")] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    assert!(user.finalizers().contains(&well_known::FINALIZER.to_owned()));
    assert!(user_in(&env, &there, "u").await.is_some());

    trust.allow(&role(&there, "q"));
    env.apply_class("another", class(&there, "q")).await;
    env.wait_deleted("x").await;
    assert!(user_in(&env, &there, "u").await.is_none());
}

pub(crate) async fn user_of_an_interrupted_creation_is_found() {
    let mut env = TestEnv::new().await;
    let there = account_id();
    Trust::of(&env.account).allow(&role(&there, "r"));
    let name = env.apply_class("c", class(&there, "r")).await;
    let pause = env.aws.rules().pause(Rule::on("CreateUser").after_commit());
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the user is created and the response pending");
    env.operator.kill().await;
    pause.abort();
    env.classes().delete(&name, &DeleteParams::default()).await.expect("the class is deleted");
    env.delete("x").await;
    env.operator.restart().await.expect("the operator restarts");
    // User, account and role were recorded before the user was created.
    env.wait_deleted("x").await;
    assert!(user_in(&env, &there, "u").await.is_none(), "the user is deleted");
}

pub(crate) async fn class_of_another_account_cannot_take_over_a_user() {
    let env = TestEnv::new().await;
    let (here, there) = (account_id(), account_id());
    let trust = Trust::of(&env.account);
    trust.allow(&role(&here, "r"));
    trust.allow(&role(&there, "r"));
    let strict = |namespaces: Value| {
        let mut spec = class(&here, "r");
        spec["onRevoked"] = json!("Deactivate");
        spec["namespaces"] = namespaces;
        spec
    };
    let first = env.apply_class("first", strict(json!({"names": [env.namespace]}))).await;
    let second = env.apply_class("second", class(&there, "r")).await;
    env.apply("x", json!({"className": first, "userName": "u"})).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    let position = env.aws.log().position();
    env.apply("x", json!({"className": second, "userName": "u"})).await;
    let user = env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let text = message(&user, ConditionType::Authorized);
    assert!(text.contains(&format!("is for AWS account {there}")) && text.contains("are not moved"), "{text}");
    assert!(env.aws.log().mutating_calls_since(position).is_empty());
    assert!(user_in(&env, &there, "u").await.is_none());
    assert_eq!(user_in(&env, &here, "u").await.expect("the user").active_keys(), [key.as_str()]);

    env.apply_class("first", strict(json!({"names": ["other"]}))).await;
    env.wait_for_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Revoked)).await;
    assert!(user_in(&env, &here, "u").await.expect("the user").active_keys().is_empty(), "revoked in its own account");
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(user_in(&env, &here, "u").await.is_none());
}

pub(crate) async fn session_refresh_is_shared_and_denied_one_is_dropped() {
    let aws = TestAccount::new().await;
    let role = Role { arn: role(&account_id(), "r"), external_id: None };
    let ending = |_: &Call, answer: &mut AwsResponse| {
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(3);
        let (head, rest) = answer.body.split_once("<Expiration>").expect("an end");
        let (_, tail) = rest.split_once("</Expiration>").expect("an end");
        answer.body = format!("{head}<Expiration>{}</Expiration>{tail}", soon.strftime("%FT%TZ"));
    };
    aws.rules().add(Rule::on("AssumeRole").nth(1).after_commit().rewrite(ending));
    let accounts = aws.accounts().await;
    let ten_calls = async || {
        let iam = accounts.client(Some(&role));
        let requested = join_all((0..10).map(|_| iam.get_user("absent"))).await;
        assert!(requested.into_iter().all(|user| user.expect("an answer").is_none()));
    };
    let sessions = || (aws.log().calls_of("AssumeRole").len(), aws.log().calls_of("GetCallerIdentity").len());
    ten_calls().await;
    assert_eq!(sessions(), (1, 1), "ten concurrent calls share one session");
    ten_calls().await;
    assert_eq!(sessions(), (2, 1), "it expires in three minutes: one call refreshes it");
    ten_calls().await;
    assert_eq!(sessions(), (2, 1));

    let rejected = aws.rules().add(Rule::on("GetUser").nth(1).respond_with(AwsError::invalid_client_token()));
    let error = accounts.client(Some(&role)).get_user("absent").await.expect_err("AWS rejects the session");
    assert_eq!(error.kind, AwsErrorKind::Credentials, "{error}");
    assert_eq!(aws.rules().hits(rejected).acted, 1);
    ten_calls().await;
    assert_eq!(sessions(), (3, 2), "a new session, and its caller identity is read again");
    accounts.retain_roles(&HashSet::from([role.clone()]));
    ten_calls().await;
    assert_eq!(sessions(), (3, 2));
    accounts.retain_roles(&HashSet::new());
    ten_calls().await;
    assert_eq!(sessions(), (4, 3), "the session of a role that no class uses is dropped");
}

/// Starts an operator with these variables instead of an access key and has it create a user.
async fn user_is_created_with(variables: Vec<(&'static str, String)>, prepare: impl AsyncFnOnce(&TestEnv) -> String) {
    let env = TestEnv::with_options(EnvOptions { no_credentials: true, variables, ..EnvOptions::default() }).await;
    let account = prepare(&env).await;
    // The account of the role is the operator's own one here, and the policy of the environment is for another.
    let all = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]});
    env.set_iam_policy(&all);
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
    assert!(user_in(&env, &account, "u").await.is_some());
    let own = env.aws.log().select(uses_own_credentials);
    assert!(own.is_empty(), "no long-lived key: {own:#?}");
    env.delete("x").await;
    env.wait_deleted("x").await;
}

pub(crate) async fn operator_runs_with_web_identity_only() {
    let account = account_id();
    let token = std::env::temp_dir().join(format!("awsdeploy-token-{account}"));
    std::fs::write(&token, "a.projected.token").expect("a token");
    let variables = vec![
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
        ("AWS_ROLE_ARN", role(&account, "operator")),
        ("AWS_ROLE_SESSION_NAME", "pod".to_owned()),
    ];
    user_is_created_with(variables, async |_| account).await;
    let _ = std::fs::remove_file(token);
}

pub(crate) async fn operator_runs_with_pod_identity_only() {
    use axum::{Router, http::HeaderMap, routing::get};
    let credentials = Arc::new(Mutex::new(None::<Value>));
    let served = Arc::clone(&credentials);
    let agent = Router::new().route(
        "/v1/credentials",
        get(async move |headers: HeaderMap| {
            let known = headers.get("authorization").is_some_and(|token| token == "a.projected.token");
            let found = served.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if known { found.unwrap_or_default().to_string() } else { "{}".to_owned() }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move { axum::serve(listener, agent).await });
    let account = account_id();
    let token = std::env::temp_dir().join(format!("awsdeploy-token-{account}"));
    std::fs::write(&token, "a.projected.token").expect("a token");
    let variables = vec![
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{address}/v1/credentials")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.display().to_string()),
    ];
    user_is_created_with(variables, async |env| {
        let call = Call::sts("AssumeRole").with("RoleArn", role(&account, "operator")).with("RoleSessionName", "pod");
        let answer = env.aws.manual_changes().call(&call).await.expect("a session");
        let text = |name: &str| {
            let (_, rest) = answer.body.split_once(&format!("<{name}>")).expect(name);
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        let given = json!({
            "AccessKeyId": text("AccessKeyId"), "SecretAccessKey": text("SecretAccessKey"),
            "Token": text("SessionToken"), "Expiration": text("Expiration"), "AccountId": account,
        });
        *credentials.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
        account.clone()
    })
    .await;
    serving.abort();
    let _ = std::fs::remove_file(token);
}
