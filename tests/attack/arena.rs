//! A tenant that attacks, two victims beside it, and the claim that holds whatever the tenant writes:
//! no call of the operator names a user, a key or an account that the class of the tenant does not give it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU32, Ordering},
};

use awsdeploy::api::{AwsDeployUser, ConditionType, well_known};
use awsdeploy_testkit::{
    aws_proxy::{CallRecord, LogPosition, UserSnapshot},
    consumer::{Consumer, ConsumerOptions},
    secret_mount::SecretMount,
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};

use crate::{
    tenant::{Kind, Tenant},
    test_env::{ADMISSION_LABEL, EnvOptions, TIMEOUT, TestEnv, condition, eventually, open_class},
};

/// The user of a person, with no mark of ours: path `/`, an administrator, a key, no password.
pub(crate) const ADMIN: &str = "ci-admin";
/// The policy that the class of the tenant allows.
pub(crate) const POLICY: &str = "AmazonS3ReadOnlyAccess";
/// Resources of the tenant at a time.
pub(crate) const MAX_RESOURCES: u32 = 4;
/// The policy that a password with a required reset needs.
/// What a class of the tenant allows, for these namespaces, and what becomes of a user that it does not allow any more.
pub(crate) fn class_for(namespaces: &[&str], on_revoked: &str) -> Value {
    json!({"namespaces": {"names": namespaces}, "users": {"namePattern": null, "path": "/tenant/"},
        "policies": {"allowed": [POLICY]}, "console": "Allow", "onRevoked": on_revoked})
}

const CHANGE_PASSWORD: &str = "IAMUserChangePassword";
const ADMINISTRATOR: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
/// The credentials of the operator in every test.
const OPERATOR_KEY: &str = "AKIAIOSFODNN7EXAMPLE";

static NEXT: AtomicU32 = AtomicU32::new(1);

pub(crate) struct Arena {
    pub(crate) env: TestEnv,
    pub(crate) tenant: Tenant,
    /// The class of the tenant.
    pub(crate) class: String,
    /// The namespace of the other tenant and its class.
    pub(crate) other: &'static str,
    pub(crate) other_class: String,
    /// The user, the key id and the content of the Secret of the other tenant.
    pub(crate) victim: UserSnapshot,
    pub(crate) victim_key: String,
    victim_data: BTreeMap<String, Vec<u8>>,
    /// The user of a person.
    pub(crate) admin: UserSnapshot,
    pub(crate) admin_key: String,
    consumer: Consumer,
    _mount: SecretMount,
    start: LogPosition,
    kube_start: u64,
}

/// The class of the tenant: one policy, names of its own only, a password, and nothing else.
fn tenant_class() -> Value {
    json!({
        "users": {"namePattern": null, "maxPerNamespace": MAX_RESOURCES, "path": "/tenant/"},
        "policies": {"allowed": [POLICY]}, "console": "Allow", "tagKeys": ["cost"],
    })
}

impl Arena {
    pub(crate) async fn new() -> Self {
        Self::with_arguments(&[]).await
    }

    /// An arena whose operator has additional arguments.
    pub(crate) async fn with_arguments(arguments: &[&'static str]) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let (namespace, other) = (leak(format!("attacker{number}")), leak(format!("victim{number}")));
        let mut all = vec!["--watch-namespaces", other];
        all.extend(arguments);
        let options =
            EnvOptions { namespace: Some(namespace), arguments: all, kube_proxy: true, ..EnvOptions::default() };
        let env = TestEnv::with_options(options).await;
        restrict_default_class(&env).await;
        env.serve_namespace(other).await;
        for namespace in [namespace, other] {
            label(&env, namespace).await;
        }
        let class = env.apply_class("tenant", tenant_class()).await;
        let other_class = json!({"namespaces": {"names": [other]}, "users": {"namePattern": null, "path": "/other/"},
            "policies": {"allowed": [POLICY]}, "console": "Allow"});
        let other_class = env.apply_class("other", other_class).await;

        let manual_changes = env.aws.manual_changes();
        manual_changes.create_user(ADMIN).await.expect("an unmanaged user");
        manual_changes.attach(ADMIN, ADMINISTRATOR).await.expect("a policy");
        let admin_key = manual_changes.create_key(ADMIN).await.expect("a key").id;
        let admin = env.iam(ADMIN).await;

        let spec = json!({"className": other_class, "policies": {"managed": [POLICY]},
            "accessKey": {"rotation": {"every": "Never"}}});
        apply_in(&env, other, "app", &spec).await;
        wait_ready_in(&env, other, "app").await;
        let victim = env.iam(&format!("{other}_app")).await;
        let secrets: Api<Secret> = Api::namespaced(env.client.clone(), other);
        let secret = secrets.get("app").await.expect("the Secret of the other tenant");
        let victim_data: BTreeMap<String, Vec<u8>> =
            secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect();
        let victim_key = String::from_utf8_lossy(&victim_data["AWS_ACCESS_KEY_ID"]).into_owned();
        let directory = env.directory.join("mount");
        let mount = SecretMount::start(env.client.clone(), other, "app", &directory).expect("a mount");
        let consumer = Consumer::start(ConsumerOptions::new(directory, env.aws.endpoint(), &victim.arn));

        let tenant = Tenant::new(&env).await;
        wait_for_admission(&tenant, &class).await;
        let kube_start = env.kube.as_ref().expect("a proxy").log().position();
        let start = env.aws.log().position();
        Self {
            env,
            tenant,
            class,
            other,
            other_class,
            victim,
            victim_key,
            victim_data,
            admin,
            admin_key,
            consumer,
            _mount: mount,
            start,
            kube_start,
        }
    }

    /// A spec that the class of the tenant allows.
    pub(crate) fn spec(&self) -> Value {
        json!({"className": self.class, "policies": {"managed": [POLICY]},
            "accessKey": {"rotation": {"every": "Never"}}})
    }

    /// The IAM user of a resource of the tenant.
    pub(crate) fn user_name(&self, resource: &str) -> String {
        format!("{}_{resource}", self.tenant.namespace)
    }

    /// Creates a resource of the tenant, and waits until it has its key.
    pub(crate) async fn create(&self, name: &str) {
        let allowed =
            async || self.tenant.apply(Kind::User, name, &json!({}), &json!({"spec": self.spec()})).await.ok();
        eventually("the tenant creates an allowed resource", allowed, String::new).await;
        self.env.wait_ready(name).await;
    }

    /// Creates a resource of the other tenant, and waits until it has its key.
    pub(crate) async fn serve_other(&self, name: &str) {
        let spec = json!({"className": self.other_class, "policies": {"managed": [POLICY]},
            "accessKey": {"rotation": {"every": "Never"}}});
        apply_in(&self.env, self.other, name, &spec).await;
        wait_ready_in(&self.env, self.other, name).await;
    }

    /// The calls of the operator since the attack began.
    pub(crate) fn calls(&self) -> Vec<CallRecord> {
        self.env.aws.log().calls_since(self.start)
    }

    /// What contradicts the claim in the calls so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let calls = self.calls();
        let created = self.env.aws.log().calls_of("CreateAccessKey");
        let owners: BTreeMap<&str, &str> =
            created.iter().filter_map(|call| Some((call.access_key.as_deref()?, call.user.as_deref()?))).collect();
        for call in &calls {
            if let Some(why) = self.violation(call, &owners) {
                violations.push(format!("{call}: {why}"));
            }
        }
        let kube = self.env.kube.as_ref().expect("a proxy");
        for call in kube.log().mutating_since(self.kube_start) {
            let is_content = ["secrets", "deployments", "pods", "statefulsets"].contains(&call.resource.as_str());
            if is_content
                && call.namespace.as_deref() == Some(self.other)
                && !Self::is_served_later(call.name.as_deref())
            {
                violations.push(format!("{} {} {:?} of the other tenant", call.verb, call.resource, call.name));
            }
        }
        violations
    }

    /// Only the first resource of the other tenant is a victim; later ones show that it is served.
    fn is_served_later(secret: Option<&str>) -> bool {
        secret.is_some_and(|name| name.starts_with("late"))
    }

    fn violation(&self, call: &CallRecord, owners: &BTreeMap<&str, &str>) -> Option<String> {
        let signed_by = call.caller_key.as_deref().unwrap_or_default();
        if signed_by != OPERATOR_KEY && !owners.contains_key(signed_by) {
            return Some(format!("signed with {signed_by}, which the operator did not create"));
        }
        if call.service == "sts" {
            return call.params.get("RoleArn").map(|role| format!("assumes {role}"));
        }
        for value in call.params.values() {
            let names = [ADMIN, &self.admin.id, &self.admin_key];
            if let Some(name) = names.iter().find(|name| value.contains(**name)) {
                return Some(format!("names {name}"));
            }
            if call.mutating && [&self.victim.name, &self.victim.id, &self.victim_key].contains(&value) {
                return Some(format!("changes {value} of the other tenant"));
            }
        }
        let own = format!("{}_", self.tenant.namespace);
        let later = format!("{}_late", self.other);
        let is_known = |user: &str| {
            user.starts_with(&own) || user.starts_with(&later) || (!call.mutating && user == self.victim.name)
        };
        if let Some(user) = call.params.get("UserName").filter(|user| !is_known(user)) {
            return Some(format!("names the user {user}"));
        }
        if let Some(key) = call.params.get("AccessKeyId") {
            match owners.get(key.as_str()) {
                Some(owner) if is_known(owner) => {}
                Some(owner) => return Some(format!("names the key {key} of {owner}")),
                None => return Some(format!("names the key {key}, which the operator did not create")),
            }
        }
        let policies = ["PolicyArn", "PermissionsBoundary"].iter().filter_map(|name| call.params.get(*name));
        if let Some(policy) = policies
            .into_iter()
            .find(|policy| ![POLICY, CHANGE_PASSWORD].iter().any(|end| policy.ends_with(&format!("policy/{end}"))))
        {
            return Some(format!("names the policy {policy}"));
        }
        // Marks of ownership in a later write, as by a key id that is the name of a tag.
        let marks = [well_known::TAG_CLUSTER, well_known::TAG_NAMESPACE, well_known::TAG_NAME, well_known::TAG_UID];
        let marked = call.params.values().any(|value| marks.contains(&value.as_str()));
        (marked && call.action == "TagUser").then(|| "rewrites the marks of ownership".to_owned())
    }

    /// Fails if a call contradicts the claim or if anything of the victims changed, and if the operator does not serve the
    /// other tenant any more.
    pub(crate) async fn assert_harmless(&self) {
        self.serve_other("late").await;
        if let Err(why) = self.check().await {
            panic!("{why}\n{}\n{}", self.env.aws.log().transcript(), self.env.log());
        }
    }

    /// The claim, and the state of the victims.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let violations = self.violations();
        if !violations.is_empty() {
            return Err(format!("{} calls beyond the class:\n{}", violations.len(), violations.join("\n")));
        }
        let admin = self.env.iam(ADMIN).await;
        if admin != self.admin {
            return Err(format!("the user of a person changed: {admin:?}, before: {:?}", self.admin));
        }
        let victim = self.env.iam(&self.victim.name).await;
        if victim != self.victim {
            return Err(format!("the user of the other tenant changed: {victim:?}, before: {:?}", self.victim));
        }
        let secrets: Api<Secret> = Api::namespaced(self.env.client.clone(), self.other);
        let secret = secrets.get("app").await.map_err(|error| format!("the Secret of the other tenant: {error}"))?;
        let data: BTreeMap<String, Vec<u8>> =
            secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect();
        if data != self.victim_data {
            return Err("the Secret of the other tenant changed".to_owned());
        }
        let report = self.consumer.report();
        if report.refused > 0 || report.accepted == 0 {
            return Err(format!("the workload of the other tenant: {report}"));
        }
        let own = format!("{}_", self.tenant.namespace);
        let users = self.env.inspector().users().await.map_err(|error| error.to_string())?;
        let own: Vec<&UserSnapshot> = users.iter().filter(|user| user.name.starts_with(&own)).collect();
        if own.len() > MAX_RESOURCES as usize || own.iter().any(|user| user.keys.len() > 2) {
            return Err(format!("users or keys beyond the class: {own:?}"));
        }
        let allowed: BTreeSet<_> =
            [POLICY, CHANGE_PASSWORD].map(|name| format!("arn:aws:iam::aws:policy/{name}")).into();
        match own.iter().find(|user| !user.attached.is_subset(&allowed) || !user.inline.is_empty()) {
            Some(user) => Err(format!("rights beyond the class: {user:?}")),
            None => Ok(()),
        }
    }
}

/// The default class of the test environment allows everything; it must not serve the namespaces of an arena.
async fn restrict_default_class(env: &TestEnv) {
    let mut spec = open_class();
    spec["namespaces"] =
        json!({"selector": {"matchExpressions": [{"key": ADMISSION_LABEL, "operator": "DoesNotExist"}]}});
    let class = json!({"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass",
        "metadata": {"name": "default", "annotations": {well_known::ANNOTATION_DEFAULT_CLASS: "true"}}, "spec": spec});
    let params = PatchParams::apply("test").force();
    env.classes().patch("default", &params, &Patch::Apply(&class)).await.expect("the default class");
}

async fn label(env: &TestEnv, namespace: &str) {
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    let patch = json!({"metadata": {"labels": {ADMISSION_LABEL: "yes"}}});
    namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a label");
}

/// Admission caches classes and labels, so the first requests may pass.
async fn wait_for_admission(tenant: &Tenant, class: &str) {
    let refused = async || {
        let spec = json!({"className": class, "policies": {"managed": ["AdministratorAccess"]}});
        match tenant.apply(Kind::User, "probe", &json!({}), &json!({ "spec": spec })).await {
            Err(refused) if refused.is_forbidden() => Some(()),
            _ => {
                let _ = tenant.delete(Kind::User, "probe").await;
                None
            }
        }
    };
    eventually("admission by class", refused, String::new).await;
}

async fn apply_in(env: &TestEnv, namespace: &str, name: &str, spec: &Value) {
    let users: Api<AwsDeployUser> = Api::namespaced(env.client.clone(), namespace);
    let user = json!({"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec});
    let user: AwsDeployUser = serde_json::from_value(user).expect("a resource");
    // Admission may have a stale list of classes.
    let created = async || match users.create(&PostParams::default(), &user).await {
        Err(kube::Error::Api(status)) if status.code != 409 => None,
        _ => Some(()),
    };
    eventually("the other tenant creates its resource", created, String::new).await;
}

async fn wait_ready_in(env: &TestEnv, namespace: &str, name: &str) {
    let users: Api<AwsDeployUser> = Api::namespaced(env.client.clone(), namespace);
    let ready = |user: Option<&AwsDeployUser>| {
        user.and_then(|user| condition(user, ConditionType::Ready)).is_some_and(|ready| ready.status == "True")
    };
    let waited = tokio::time::timeout(TIMEOUT, await_condition(users, name, ready)).await;
    assert!(matches!(waited, Ok(Ok(_))), "{namespace}/{name} is not Ready: {waited:?}\n{}", env.log());
}
