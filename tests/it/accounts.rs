//! Several AWS accounts: the operator takes a role in each, and one that is of no use is nobody else's trouble.

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

use crate::test_env::{Aws, EnvOptions, TIMEOUT, TestEnv, message};

const EXTERNAL_ID: &str = "production/cluster:1";
/// Whom every account of the tests takes for the operator.
const OPERATOR: &str = "AKIAIOSFODNN7EXAMPLE";

/// Roles that trust the operator, with the external id that each asks for.
#[derive(Default)]
struct Trust(Mutex<BTreeMap<String, Option<String>>>);

impl Trust {
    /// No role of this AWS trusts anybody before it is told to.
    fn of(account: &Account) -> Arc<Self> {
        let trust = Arc::new(Self::default());
        account.authorize_with(Arc::clone(&trust) as _);
        trust
    }

    fn allow(&self, role: &str) {
        self.roles().insert(role.to_owned(), Some(EXTERNAL_ID.to_owned()));
    }

    fn withdraw(&self, role: &str) {
        self.roles().remove(role);
    }

    fn roles(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authorizer for Trust {
    fn check<'a>(&'a self, _: &'a Caller, call: &'a Call) -> BoxFuture<'a, Result<(), AwsError>> {
        let role = call.param("RoleArn").filter(|_| call.action == "AssumeRole");
        let asked = role.map(|role| (role, self.roles().get(role).cloned()));
        let result = match asked {
            Some((_, Some(id))) if id.as_deref() == call.param("ExternalId") => Ok(()),
            Some((role, _)) => {
                Err(AwsError::access_denied("arn:aws:iam::111122223333:role/operator", "sts:AssumeRole", role))
            }
            None => Ok(()),
        };
        Box::pin(async { result })
    }
}

/// An account that no other test knows.
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
    env.inspector().in_account(AccountRef::aws(account)).user(user).await.expect("the truth can be read")
}

fn own_credentials(call: &CallRecord) -> bool {
    call.caller_key.as_deref() == Some(OPERATOR)
}

pub(crate) async fn users_of_a_role_share_its_account_and_session() {
    let env = TestEnv::with_arguments(&["--resync=1s"]).await;
    let there = account_id();
    Trust::of(&env.account).allow(&role(&there, "r"));
    let class = env.class("c", class(&there, "r")).await;
    for name in ["a", "b", "c"] {
        env.apply(name, json!({"className": class, "userName": name})).await;
    }
    for name in ["a", "b", "c"] {
        let user = env.ready(name).await;
        assert_eq!(user.annotations()[well_known::ANNOTATION_ACCOUNT], there);
        let iam = user_in(&env, &there, name).await.expect("the user is in the other account");
        assert_eq!(user.status.expect("a status").user.expect("a user").arn, iam.arn);
        assert!(env.iam_opt(name).await.is_none(), "and not in the operator's own");
        assert!(env.account.accepts(&env.published(name).await), "its key was verified there");
    }
    let old = env.published("a").await;
    env.annotate("a", well_known::ANNOTATION_ROTATE, "1").await;
    env.until_published("a", &old).await;
    let mark = env.aws.log().position();
    for _ in 0..3 {
        env.looked(env.aws.log().position()).await;
    }
    assert!(env.aws.log().mutating_calls_since(mark).iter().all(|call| call.user.as_deref() == Some("a")));

    let assumed = env.aws.log().calls_of("AssumeRole");
    assert_eq!(assumed.len(), 1, "one session for three resources and all their passes: {assumed:#?}");
    assert!(assumed[0].params["RoleSessionName"].starts_with("aws-deploy-user-operator@"), "{assumed:#?}");
    assert_eq!(assumed[0].params["ExternalId"], EXTERNAL_ID);
    let own = env.aws.log().select(|call| own_credentials(call) && call.action != "AssumeRole");
    assert!(own.is_empty(), "nothing else is done with the operator's own credentials: {own:#?}");
    let line = |operation: &str| {
        format!("awsdeploy_aws_requests_total{{account=\"{there}\",operation=\"{operation}\",code=\"OK\"}}")
    };
    assert_eq!(env.count(&line("AssumeRole")).await, 1);
    assert_eq!(env.count(&line("CreateUser")).await, 3);

    env.delete("a").await;
    env.gone("a").await;
    assert!(user_in(&env, &there, "a").await.is_none());
}

pub(crate) async fn role_of_a_class_is_mutable_and_its_account_is_not() {
    let env = TestEnv::new().await;
    let there = account_id();
    let trust = Trust::of(&env.account);
    trust.allow(&role(&there, "old"));
    trust.allow(&role(&there, "new"));
    let name = env.class("c", class(&there, "old")).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    env.ready("x").await;
    let key = env.published("x").await;
    let mark = env.aws.log().position();
    env.class("c", class(&there, "new")).await;
    let takes =
        |call: &CallRecord| call.action == "AssumeRole" && call.params.get("RoleArn") == Some(&role(&there, "new"));
    env.aws.log().wait_since(mark, "the other role", TIMEOUT, takes).await.expect("the other role is taken");
    env.until("x", "remembered by its new role", |user| {
        let class = user.status.as_ref().and_then(|status| status.class.as_ref());
        class.and_then(|class| class.account.as_ref()?.role_arn.clone()) == Some(role(&there, "new"))
    })
    .await;
    assert_eq!(env.published("x").await, key);
    assert!(env.aws.log().mutating_calls_since(mark).is_empty());

    let refused = |spec: Value| {
        let env = &env;
        async move { env.try_class("c", spec).await.expect_err("the API server refuses it").to_string() }
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
    let lie = move |_: &Call, answer: &mut AwsResponse| answer.body = answer.body.replace(&named, "999999999999");
    env.aws.rules().add(Rule::on("GetCallerIdentity").rewrite(lie));
    let class = env.class("c", class(&there, "r")).await;
    env.apply("x", json!({"className": class, "userName": "u"})).await;
    let user = env.until_condition("x", ConditionType::Ready, "False", Some(Reason::WrongAccount)).await;
    let told = message(&user, ConditionType::Ready);
    let wanted = format!(
        "class {class} is for AWS account {there}, and the credentials of {} are of account 999999999999; nothing is written to AWS",
        role(&there, "r")
    );
    assert!(told.contains(&wanted), "{told}");
    let others = env.aws.log().select(|call| call.service == "iam");
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!(user.metadata.finalizers, None, "nothing was begun");
}

/// Waits for a condition of a class and gives its message.
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
    let env = TestEnv::with(EnvOptions { arguments: vec!["--class-status=true"], ..EnvOptions::default() }).await;
    let there = account_id();
    let trust = Trust::of(&env.account);
    let name = env.class("c", class(&there, "r")).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    let user = env.until_condition("x", ConditionType::Ready, "False", Some(Reason::AssumeRoleDenied)).await;
    let told = message(&user, ConditionType::Ready);
    for part in
        [role(&there, "r").as_str(), "trust policy", "account.externalId", "sts:AssumeRole", "iam-policy --class"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(user.metadata.finalizers, None, "it can be deleted at once");
    let told = class_condition(&env, &name, "CredentialsValid", "False", Reason::AssumeRoleDenied).await;
    assert!(told.contains("trust policy"), "{told}");
    class_condition(&env, &name, "AccountMatches", "Unknown", Reason::AssumeRoleDenied).await;
    let line =
        format!("awsdeploy_aws_requests_total{{account=\"{there}\",operation=\"AssumeRole\",code=\"AccessDenied\"}}");
    assert!(env.count(&line).await >= 1);

    trust.allow(&role(&there, "r"));
    // Sooner than the five minutes that a refusal is waited out: the class hears of it first, and wakes the others.
    env.ready("x").await;
    let told = class_condition(&env, &name, "CredentialsValid", "True", Reason::Reconciled).await;
    assert!(told.contains(&role(&there, "r")), "{told}");
    class_condition(&env, &name, "AccountMatches", "True", Reason::Reconciled).await;
}

pub(crate) async fn unresponsive_account_does_not_block_others() {
    // With four passes at a time, each of which hangs for 25 s, 24 resources would hold everything up for minutes.
    let env = TestEnv::with_arguments(&["--concurrency=4"]).await;
    let (silent, refused, well) = (account_id(), account_id(), account_id());
    let trust = Trust::of(&env.account);
    trust.allow(&role(&silent, "r"));
    trust.allow(&role(&well, "r"));
    let pause = Pause::default();
    for n in 0..24 {
        env.aws.rules().add(Rule::on("GetUser").user(&format!("s{n}")).pause(&pause));
    }
    let spec = |class: &str, user: &str| json!({"className": class, "userName": user, "accessKey": {"rotation": {"overlap": "1s"}}});
    for (class, prefix) in
        [(env.class("silent", class(&silent, "r")).await, "s"), (env.class("refused", class(&refused, "r")).await, "r")]
    {
        for n in 0..24 {
            let name = format!("{prefix}{n}");
            env.apply(&name, spec(&class, &name)).await;
        }
    }
    assert!(pause.wait_until_held(TIMEOUT).await, "passes over the silent account are under way");
    let class = env.class("well", class(&well, "r")).await;
    env.apply("other", spec(&class, "other")).await;
    env.apply("own", json!({"userName": "own", "accessKey": {"rotation": {"overlap": "1s"}}})).await;
    for name in ["other", "own"] {
        env.ready(name).await;
        let old = env.published(name).await;
        env.annotate(name, well_known::ANNOTATION_ROTATE, "1").await;
        env.until_published(name, &old).await;
    }
    assert!(pause.held() > 0, "the silent account has not answered yet");
    assert!(env.inspector().in_account(AccountRef::aws(&silent)).users().await.expect("users").is_empty());
    env.until_condition("r0", ConditionType::Ready, "False", Some(Reason::AssumeRoleDenied)).await;
    pause.release();
    env.ready("s0").await;
}

pub(crate) async fn revocation_reaches_an_account_that_no_class_serves() {
    let env = TestEnv::new().await;
    let there = account_id();
    Trust::of(&env.account).allow(&role(&there, "r"));
    let mut spec = class(&there, "r");
    spec["onRevoked"] = json!("Delete");
    let name = env.class("c", spec).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    env.ready("x").await;
    env.classes().delete(&name, &DeleteParams::default()).await.expect("the class is deleted");
    env.until("x", "without a user", |user| user.status.as_ref().is_some_and(|status| status.user.is_none())).await;
    assert!(user_in(&env, &there, "u").await.is_none());
    assert!(env.secret("x").await.is_none());
}

pub(crate) async fn deletion_waits_for_a_role_in_its_account() {
    let mut env = TestEnv::new().await;
    let there = account_id();
    let trust = Trust::of(&env.account);
    trust.allow(&role(&there, "r"));
    let name = env.class("c", class(&there, "r")).await;
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    env.ready("x").await;
    trust.withdraw(&role(&there, "r"));
    env.classes().delete(&name, &DeleteParams::default()).await.expect("the class is deleted");
    env.operator.restart().await.expect("the operator restarts, without its session");
    env.delete("x").await;
    let user = env.until_condition("x", ConditionType::Ready, "False", Some(Reason::AssumeRoleDenied)).await;
    let told = message(&user, ConditionType::Ready);
    for part in [role(&there, "r"), format!("class {name}"), format!("account.id {there}")] {
        assert!(told.contains(&part), "{part}: {told}");
    }
    assert!(user.finalizers().contains(&well_known::FINALIZER.to_owned()));
    assert!(user_in(&env, &there, "u").await.is_some());

    trust.allow(&role(&there, "q"));
    env.class("another", class(&there, "q")).await;
    env.gone("x").await;
    assert!(user_in(&env, &there, "u").await.is_none());
}

pub(crate) async fn user_of_an_interrupted_creation_is_found() {
    let mut env = TestEnv::new().await;
    let there = account_id();
    Trust::of(&env.account).allow(&role(&there, "r"));
    let name = env.class("c", class(&there, "r")).await;
    let pause = env.aws.rules().pause(Rule::on("CreateUser").after_commit());
    env.apply("x", json!({"className": name, "userName": "u"})).await;
    assert!(pause.wait_until_held(TIMEOUT).await, "the user is made, and nobody has been told");
    env.operator.kill().await;
    pause.abort();
    env.classes().delete(&name, &DeleteParams::default()).await.expect("the class is deleted");
    env.delete("x").await;
    env.operator.restart().await.expect("the operator comes back");
    // Nothing says which role led there: the operator's own account is not where the user is, and that is all it knows.
    let user = env.until_condition("x", ConditionType::Ready, "False", Some(Reason::WrongAccount)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains(&there) && told.contains("No class serves account"), "{told}");
    assert!(user_in(&env, &there, "u").await.is_some());
    env.class("c", class(&there, "r")).await;
    env.gone("x").await;
    assert!(user_in(&env, &there, "u").await.is_none(), "it was found and removed");
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
    let first = env.class("first", strict(json!({"names": [env.namespace]}))).await;
    let second = env.class("second", class(&there, "r")).await;
    env.apply("x", json!({"className": first, "userName": "u"})).await;
    env.ready("x").await;
    let key = env.published("x").await;
    let mark = env.aws.log().position();
    env.apply("x", json!({"className": second, "userName": "u"})).await;
    let user = env.until_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    let told = message(&user, ConditionType::Authorized);
    assert!(told.contains(&format!("is for AWS account {there}")) && told.contains("is not moved"), "{told}");
    assert!(env.aws.log().mutating_calls_since(mark).is_empty());
    assert!(user_in(&env, &there, "u").await.is_none());
    assert_eq!(user_in(&env, &here, "u").await.expect("the user").active_keys(), [key.as_str()]);

    env.class("first", strict(json!({"names": ["nobodys"]}))).await;
    env.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::Revoked)).await;
    assert!(user_in(&env, &here, "u").await.expect("the user").active_keys().is_empty(), "it was decided where it is");
    env.delete("x").await;
    env.gone("x").await;
    assert!(user_in(&env, &here, "u").await.is_none());
}

pub(crate) async fn session_refresh_is_shared_and_denied_one_is_dropped() {
    let aws = Aws::new().await;
    let role = Role { arn: role(&account_id(), "r"), external_id: None };
    let ending = |_: &Call, answer: &mut AwsResponse| {
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(3);
        let (head, rest) = answer.body.split_once("<Expiration>").expect("an end");
        let (_, tail) = rest.split_once("</Expiration>").expect("an end");
        answer.body = format!("{head}<Expiration>{}</Expiration>{tail}", soon.strftime("%FT%TZ"));
    };
    aws.rules().add(Rule::on("AssumeRole").nth(1).after_commit().rewrite(ending));
    let accounts = aws.accounts().await;
    let ten = async || {
        let iam = accounts.client(Some(&role));
        let asked = join_all((0..10).map(|_| iam.get_user("nobody"))).await;
        assert!(asked.into_iter().all(|user| user.expect("an answer").is_none()));
    };
    let sessions = || (aws.log().calls_of("AssumeRole").len(), aws.log().calls_of("GetCallerIdentity").len());
    ten().await;
    assert_eq!(sessions(), (1, 1), "ten calls at once take one session");
    ten().await;
    assert_eq!(sessions(), (2, 1), "it has three minutes left: one renews it");
    ten().await;
    assert_eq!(sessions(), (2, 1));

    let struck = aws.rules().add(Rule::on("GetUser").nth(1).respond_with(AwsError::invalid_client_token()));
    let error = accounts.client(Some(&role)).get_user("nobody").await.expect_err("AWS has ended the session");
    assert_eq!(error.kind, AwsErrorKind::Credentials, "{error}");
    assert_eq!(aws.rules().hits(struck).acted, 1);
    ten().await;
    assert_eq!(sessions(), (3, 2), "a new one, and AWS is asked again whose it is");
    accounts.retain_roles(&HashSet::from([role.clone()]));
    ten().await;
    assert_eq!(sessions(), (3, 2));
    accounts.retain_roles(&HashSet::new());
    ten().await;
    assert_eq!(sessions(), (4, 3), "what no class names is dropped");
}

/// Starts an operator without a key, with these variables, and has it make a user in the account.
async fn user_is_created_with(variables: Vec<(&'static str, String)>, prepare: impl AsyncFnOnce(&TestEnv) -> String) {
    let env = TestEnv::with(EnvOptions { no_credentials: true, variables, ..EnvOptions::default() }).await;
    let account = prepare(&env).await;
    // Its own account is the one of the role here, and the policy of the env is for another.
    let all = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]});
    env.enforce(&all);
    env.apply("x", json!({"userName": "u"})).await;
    env.ready("x").await;
    assert!(user_in(&env, &account, "u").await.is_some());
    let own = env.aws.log().select(own_credentials);
    assert!(own.is_empty(), "no long-lived key: {own:#?}");
    env.delete("x").await;
    env.gone("x").await;
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
    let shown = Arc::clone(&credentials);
    let agent = Router::new().route(
        "/v1/credentials",
        get(async move |headers: HeaderMap| {
            let known = headers.get("authorization").is_some_and(|token| token == "a.projected.token");
            let found = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
