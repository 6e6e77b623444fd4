//! The stage of a test: a namespace, an AWS account and an operator of its own, on the shared control plane.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use awsdeploy::{
    api::{AwsDeployUser, AwsDeployUserClass, ConditionType, Reason, class::AwsDeployUserClassSpec},
    aws::{Accounts, Connection},
    domain::{
        account::{Role, account_of},
        operator_policy::{Home, Scope, operator_policy},
        role_policy::assume_policy,
    },
};
use awsdeploy_testkit::{
    aws_proxy::{Account, CallLog, CallRecord, Guard, Mark, StrictAws, Truth, UserTruth},
    chart::Chart,
    collector::Collector,
    consumer::{Consumer, ConsumerOptions},
    emulator::AwsAccess,
    kube_proxy::KubeProxy,
    mounted::Mounted,
    operator::{Operator, OperatorOptions},
    rig::Rig,
    tls::TlsClient,
};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::OnceCell};

/// Where the chart is installed.
const SYSTEM: &str = "aws-deploy-user-operator";
/// What the namespaces begin with that the presets serve: their names follow.
pub(crate) const PRESET: &str = "preset-";
/// The policy that the preset for the CDK names.
pub(crate) const CDK_POLICY: &str = "arn:aws:iam::123456789012:policy/cdk-deploy";
/// Label of namespaces in which the API server asks the classes.
pub(crate) const ASKED: &str = "admission";
/// How long anything that should happen may take. Generous: the machines are slow and shared.
pub(crate) const SOON: Duration = Duration::from_mins(1);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));
static SHARED: OnceCell<Result<Shared, String>> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(1);
/// What every test's AWS was asked.
static LOGS: Mutex<Vec<CallLog>> = Mutex::new(Vec::new());

/// What all tests share.
struct Shared {
    rig: Mutex<Option<Rig>>,
    client: Client,
    kubeconfig: PathBuf,
    admin: PathBuf,
    moto: std::net::SocketAddr,
    directory: PathBuf,
    /// The chart's `RoleBinding`s for a namespace, with a placeholder for its name: for Secrets, and for restarts.
    bindings: [DynamicObject; 2],
}

/// Runs a claim.
#[allow(clippy::unnecessary_wraps, reason = "the form of a trial; a claim fails by a panic")]
pub(crate) fn run(claim: impl Future<Output = ()>) -> Result<(), Failed> {
    block_on(claim);
    Ok(())
}

/// Runs a future on the shared runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// Stops the control plane, if a test has started it.
pub(crate) fn stop() {
    if let Some(Ok(shared)) = SHARED.get()
        && let Some(rig) = shared.rig.lock().ok().and_then(|mut rig| rig.take())
    {
        RUNTIME.block_on(rig.stop());
    }
}

/// An AWS of its own for a test.
async fn aws(shared: &Shared, account: &Arc<Account>) -> StrictAws {
    let aws = StrictAws::start(shared.moto, Arc::clone(account)).await.expect("the strict AWS starts");
    LOGS.lock().expect("no test panics with the lock").push(aws.log().clone());
    aws
}

/// The actions of IAM that the operator was seen to call in all tests so far, as policies spell them. People and
/// emulators leave no trace in these logs, and STS asks for no permission.
#[allow(dead_code, reason = "the fault runs share this file")]
pub(crate) fn actions_seen() -> BTreeSet<String> {
    let logs = LOGS.lock().expect("no test panics with the lock");
    let calls = logs.iter().flat_map(|log| log.select(|call| call.service == "iam"));
    calls.map(|call| format!("iam:{}", call.action)).collect()
}

async fn shared() -> &'static Shared {
    // A start that failed once is not tried again by every test.
    match SHARED.get_or_init(async || start().await.map_err(|error| error.to_string())).await {
        Ok(shared) => shared,
        Err(error) => panic!("the stage could not be set: {error}"),
    }
}

async fn start() -> Result<Shared, Box<dyn std::error::Error>> {
    awsdeploy_testkit::install_crypto_provider();
    let rig = Rig::start().await?;
    let admin = rig.control_plane().kubeconfig().to_owned();
    let helm = rig.file("helm");
    std::fs::create_dir_all(&helm)?;
    // Most tests are about what the operator itself refuses; those of admission say where it is asked.
    let values = |admission: bool| {
        json!({
            "replicas": 0,
            "networkPolicy": {"enabled": false},
            "secretAccess": {"namespaces": ["placeholder"]},
            "restartAccess": {"namespaces": ["placeholder"]},
            "metrics": {"auth": {"enabled": true}},
            "admission": {"classes": admission},
            "presets": {
                "cycle": {"enabled": true, "namespaces": [format!("{PRESET}cycle")]},
                "defang": {"enabled": true, "namespaces": [format!("{PRESET}defang")]},
                "cdk": {"enabled": true, "namespaces": [format!("{PRESET}cdk")], "policy": CDK_POLICY},
            },
        })
    };
    let chart = Chart::new(rig.tools(), helm, SYSTEM, SYSTEM).values(values(false));
    let client = rig.control_plane().client();
    create_namespace(&client, "placeholder").await;
    // At first the CRDs are not there; an upgrade takes the preset for an object of the release and lets it live.
    chart.install(&admin).await?;
    let classes: Api<AwsDeployUserClass> = Api::all(client.clone());
    let made = classes.get("cycle").await?.uid();
    chart.install(&admin).await?;
    if classes.get("cycle").await?.uid() != made {
        return Err("an upgrade made the class of a preset anew".into());
    }
    let asked = chart.clone().values(values(true)).template().await?;
    for object in asked.into_iter().filter(|object| object.name_any().starts_with(&format!("{SYSTEM}-classes"))) {
        ask_where_it_is_wanted(&client, object).await?;
    }
    apply_class(&client, "default", true, open_class()).await?;
    let rendered = chart.template().await?;
    let binding = |end: &str| {
        let listed = |object: &&DynamicObject| object.namespace().as_deref() == Some("placeholder");
        let found = rendered.iter().filter(listed).find(|object| object.name_any().ends_with(end));
        found.cloned().ok_or(format!("the chart binds no role ...{end} in a listed namespace"))
    };
    let bindings = [binding("-secrets")?, binding("-restarts")?];
    let kubeconfig = rig.file("operator.kubeconfig");
    rig.control_plane().service_account_kubeconfig(SYSTEM, SYSTEM, &kubeconfig).await?;
    Ok(Shared {
        client,
        kubeconfig,
        admin,
        moto: rig.emulator().addr(),
        directory: rig.directory().to_owned(),
        bindings,
        rig: Mutex::new(Some(rig)),
    })
}

/// Applies an admission policy or its binding, for namespaces that are labelled for it.
async fn ask_where_it_is_wanted(client: &Client, mut object: DynamicObject) -> kube::Result<()> {
    let Some(types) = object.types.clone() else { return Ok(()) };
    let Some(("admissionregistration.k8s.io", version)) = types.api_version.split_once('/') else { return Ok(()) };
    let plural = match types.kind.as_str() {
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
        _ => "validatingadmissionpolicybindings",
    };
    if plural.ends_with("bindings") {
        object.data["spec"]["matchResources"]["namespaceSelector"] = json!({"matchLabels": {ASKED: "yes"}});
    }
    let resource = ApiResource {
        group: "admissionregistration.k8s.io".into(),
        version: version.into(),
        api_version: types.api_version.clone(),
        kind: types.kind.clone(),
        plural: plural.into(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// A class that allows everything everywhere: what is allowed to whom is the matter of the tests that say so.
pub(crate) fn open_class() -> Value {
    json!({
        "namespaces": {"names": ["*"]}, "policies": {"allowed": ["*"], "inline": "Allow"}, "groups": ["*"],
        "console": "Allow", "adoption": "Allow", "restart": "Allow", "acknowledgeAdminEquivalent": true,
    })
}

async fn apply_class(client: &Client, name: &str, is_default: bool, spec: Value) -> kube::Result<AwsDeployUserClass> {
    let annotations = if is_default { json!({"awsdeploy.dev/is-default-class": "true"}) } else { json!({}) };
    let object = json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass",
        "metadata": {"name": name, "annotations": annotations}, "spec": spec,
    });
    let params = PatchParams::apply("test").force().validation_strict();
    Api::all(client.clone()).patch(name, &params, &Patch::Apply(&object)).await
}

async fn create_namespace(client: &Client, name: &str) {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace is created");
}

/// What a test may want otherwise than usual.
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub(crate) struct Wishes {
    /// More arguments of the operator; later ones win.
    pub(crate) arguments: Vec<&'static str>,
    /// The operator may not touch Secrets in the namespace.
    pub(crate) no_secret_access: bool,
    /// The namespace, if it is not one of many.
    pub(crate) namespace: Option<&'static str>,
    /// The id of the AWS account, if it is not one of many.
    pub(crate) account: Option<&'static str>,
    /// The operator has no AWS credentials.
    pub(crate) no_credentials: bool,
    /// More environment variables of the operator.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The operator sends its traces here.
    pub(crate) collector: Option<Arc<Collector>>,
    /// The operator speaks TLS; this client is who asks it.
    pub(crate) tls: Option<TlsClient>,
    /// The operator reaches Kubernetes through a proxy that can go wrong.
    pub(crate) kube_proxy: bool,
    /// The operator has the IAM policy of the test's own classes alone; else that of the default class too.
    pub(crate) own_classes_only: bool,
}

/// What the operator may do in AWS: the IAM policy that it prints for the classes of the test.
struct Rights {
    guard: Arc<Guard>,
    home: Home,
    /// By class: what it needs, and in which role.
    scopes: Mutex<BTreeMap<String, (Option<Role>, Scope)>>,
}

impl Rights {
    fn new(aws: &StrictAws) -> Self {
        let home = Home { partition: "aws".to_owned(), account: aws.account().id().to_owned() };
        Self { guard: aws.guard(), home, scopes: Mutex::default() }
    }

    /// An AWS admin grants what a class needs, and no longer what it needed before.
    fn grant(&self, class: &str, spec: &Value) {
        let Ok(spec) = serde_json::from_value::<AwsDeployUserClassSpec>(spec.clone()) else { return };
        let mut scopes = self.scopes.lock().expect("no test panics with the lock");
        let role = spec.account.as_ref().and_then(Role::of_class);
        scopes.insert(class.to_owned(), (role, Scope::of_class(&spec)));
        let of = |account: Option<&str>| -> Vec<Scope> {
            let there = |role: &Option<Role>| role.as_ref().and_then(|role| account_of(&role.arn)) == account;
            scopes.values().filter(|(role, _)| there(role)).map(|(_, scope)| scope.clone()).collect()
        };
        let mut own = vec![operator_policy(&self.home, &of(None))];
        for role in scopes.values().filter_map(|(role, _)| role.as_ref()) {
            own.push(assume_policy(&role.arn));
            let account = account_of(&role.arn).expect("an ARN with an account");
            let home = Home { account: account.to_owned(), ..self.home.clone() };
            let policy = operator_policy(&home, &of(Some(account)));
            self.guard.enforce_in(account, [&policy]).expect("a policy that AWS takes");
        }
        self.guard.enforce(&own).expect("policies that AWS takes");
    }
}

/// One test's world.
pub(crate) struct Stage {
    pub(crate) namespace: String,
    pub(crate) client: Client,
    pub(crate) aws: StrictAws,
    pub(crate) account: Arc<Account>,
    pub(crate) operator: Operator,
    #[allow(dead_code, reason = "for the fault runs, which share this file")]
    pub(crate) kube: Option<KubeProxy>,
    collector: Option<Arc<Collector>>,
    pub(crate) directory: PathBuf,
    options: OperatorOptions,
    bindings: [DynamicObject; 2],
    rights: Rights,
}

impl Stage {
    /// The usual stage.
    pub(crate) async fn new() -> Self {
        Self::with(Wishes::default()).await
    }

    /// A stage with more arguments for the operator.
    pub(crate) async fn with_arguments(arguments: &[&'static str]) -> Self {
        Self::with(Wishes { arguments: arguments.to_vec(), ..Wishes::default() }).await
    }

    /// A stage as wished.
    pub(crate) async fn with(wishes: Wishes) -> Self {
        let shared = shared().await;
        let namespace =
            wishes.namespace.map_or_else(|| format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)), str::to_owned);
        // A client of its own: connections belong to the runtime's tasks, tests come and go.
        let client = shared.client.clone();
        create_namespace(&client, &namespace).await;
        let bindings = shared.bindings.clone().map(|mut binding| {
            binding.metadata.namespace = Some(namespace.clone());
            binding
        });
        let account = wishes.account.map_or_else(Account::unique, Account::with_id);
        let aws = aws(shared, &account).await;
        let rights = Rights::new(&aws);
        if !wishes.own_classes_only {
            rights.grant("default", &open_class());
        }
        let directory = shared.directory.join(&namespace);
        std::fs::create_dir_all(&directory).expect("a directory");
        let mut kubeconfig = shared.kubeconfig.clone();
        let mut kube = None;
        if wishes.kube_proxy {
            kubeconfig = directory.join("proxy.kubeconfig");
            kube = Some(KubeProxy::start(&shared.kubeconfig, &kubeconfig).await.expect("the Kubernetes proxy starts"));
        }
        let mut options = options(shared, &aws, &kubeconfig, &directory, &namespace, &wishes);
        if wishes.no_credentials {
            options = options.variable("AWS_ACCESS_KEY_ID", "").variable("AWS_SECRET_ACCESS_KEY", "");
        }
        options = wishes.variables.iter().fold(options, |options, (name, value)| options.variable(name, value));
        if let Some(collector) = &wishes.collector {
            options = options.variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
        }
        if let Some(client) = wishes.tls {
            options = options.tls(client);
        }
        let stage = Self {
            operator: Operator::start(options.clone()).await.expect("the operator starts"),
            options,
            namespace,
            client,
            aws,
            account,
            kube,
            collector: wishes.collector,
            directory,
            bindings,
            rights,
        };
        if !wishes.no_secret_access {
            stage.grant_secret_access().await;
        }
        stage
    }

    /// Starts a second operator beside the first, with the same arguments.
    pub(crate) async fn another_operator(&self, name: &str) -> Operator {
        Operator::start(self.options.clone().name(name)).await.expect("another operator starts")
    }

    /// Starts a second operator with more arguments than the first; later ones win.
    #[allow(dead_code, reason = "for the fault runs, which share this file")]
    pub(crate) async fn another_operator_with(&self, name: &str, arguments: &[&str]) -> Operator {
        let options = self.options.clone().name(name).arguments(arguments);
        Operator::start(options).await.expect("another operator starts")
    }

    /// What a cluster admin does to grant access to Secrets: the chart's own `RoleBinding`.
    pub(crate) async fn grant_secret_access(&self) {
        self.bind(&self.bindings[0]).await;
    }

    /// What a cluster admin does to let workloads be restarted: the chart's own `RoleBinding`.
    #[allow(dead_code, reason = "the fault runs share this file")]
    pub(crate) async fn grant_restarts(&self) {
        self.bind(&self.bindings[1]).await;
    }

    async fn bind(&self, binding: &DynamicObject) {
        let types = binding.types.as_ref().expect("types");
        let (group, version) = types.api_version.split_once('/').expect("a group");
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: types.api_version.clone(),
            kind: types.kind.clone(),
            plural: "rolebindings".into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        api.create(&PostParams::default(), binding).await.expect("the RoleBinding is created");
    }

    /// A client with the operator's own token.
    pub(crate) async fn as_operator(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&shared().await.kubeconfig).expect("the operator's kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// A client of a person with no rights but those of their name.
    #[allow(dead_code, reason = "the fault runs share this file")]
    pub(crate) async fn as_person(&self, name: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(&shared().await.admin).expect("the admin's kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.expect("a configuration");
        config.auth_info.impersonate = Some(name.to_owned());
        Client::try_from(config).expect("a client")
    }

    pub(crate) fn users(&self) -> Api<AwsDeployUser> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a resource, strictly: an unknown field fails the test.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> AwsDeployUser {
        self.try_apply(name, spec).await.expect("the API server takes the resource")
    }

    /// Applies a resource that the API server may refuse.
    pub(crate) async fn try_apply(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUser> {
        let params = PatchParams::apply("test").force().validation_strict();
        self.users().patch(name, &params, &Patch::Apply(&self.manifest(name, &spec))).await
    }

    fn manifest(&self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })
    }

    /// Applies a class of this test and gives its name. It serves the namespace of the test unless it says otherwise.
    pub(crate) async fn class(&self, name: &str, spec: Value) -> String {
        let class = self.try_class(name, spec).await.expect("the API server takes the class");
        class.name_any()
    }

    /// Applies a class of this test that the API server may refuse. The operator's IAM policy follows it.
    pub(crate) async fn try_class(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUserClass> {
        self.rights.grant(name, &spec);
        self.try_class_without_rights(name, spec).await
    }

    /// An AWS admin grants what a class needs that the test has not made.
    #[allow(dead_code, reason = "the fault runs share this file")]
    pub(crate) fn grant(&self, class: &str, spec: &Value) {
        self.rights.grant(class, spec);
    }

    /// From now on the operator may do in AWS what this policy allows, until another class of the test is applied.
    #[allow(dead_code, reason = "the fault runs share this file")]
    pub(crate) fn enforce(&self, policy: &Value) {
        self.rights.guard.enforce([policy]).expect("a policy that AWS takes");
    }

    /// Applies a class that the operator has no IAM policy for: what it allows beyond the other classes is for AWS to refuse.
    pub(crate) async fn try_class_without_rights(
        &self,
        name: &str,
        mut spec: Value,
    ) -> kube::Result<AwsDeployUserClass> {
        if spec["namespaces"].is_null() {
            spec["namespaces"] = json!({"names": [self.namespace]});
        }
        apply_class(&self.client, &format!("{}-{name}", self.namespace), false, spec).await
    }

    pub(crate) fn classes(&self) -> Api<AwsDeployUserClass> {
        Api::all(self.client.clone())
    }

    /// Sets labels of the test's namespace; a null takes one away.
    pub(crate) async fn label_namespace(&self, labels: Value) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"labels": labels}});
        namespaces
            .patch(&self.namespace, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("the namespace is labelled");
    }

    /// Asks whether the API server would take the resource, and changes nothing: the API server learns of classes and
    /// labels a moment late, and what it has taken once it takes again.
    #[allow(dead_code, reason = "the fault runs, which share this file, ask nothing of admission")]
    pub(crate) async fn try_dry(&self, name: &str, spec: Value) -> kube::Result<AwsDeployUser> {
        let params = PatchParams::apply("test").force().dry_run();
        self.users().patch(name, &params, &Patch::Apply(&self.manifest(name, &spec))).await
    }

    /// Sets an annotation of a resource.
    pub(crate) async fn annotate(&self, name: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.users().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("an annotation");
    }

    pub(crate) async fn user(&self, name: &str) -> AwsDeployUser {
        self.users().get(name).await.expect("the resource is there")
    }

    /// Waits for a state of the resource, event by event.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&AwsDeployUser) -> bool + Send + Sync,
    ) -> AwsDeployUser {
        let condition = |user: Option<&AwsDeployUser>| user.is_some_and(&wanted);
        match tokio::time::timeout(SOON, await_condition(self.users(), name, condition)).await {
            Ok(Ok(Some(user))) => user,
            Ok(other) => panic!("waiting for {name} to be {what}: {other:?}"),
            Err(_) => {
                let user = self.users().get_opt(name).await;
                panic!(
                    "{name} is not {what} after {SOON:?}: {user:#?}\n{}\n{}",
                    self.aws.log().transcript(),
                    self.log()
                )
            }
        }
    }

    /// Waits until the resource is Ready at its present generation.
    pub(crate) async fn ready(&self, name: &str) -> AwsDeployUser {
        self.until_condition(name, ConditionType::Ready, "True", None).await
    }

    /// Waits for a condition of the present generation.
    pub(crate) async fn until_condition(
        &self,
        name: &str,
        kind: ConditionType,
        status: &str,
        reason: Option<Reason>,
    ) -> AwsDeployUser {
        let what = format!("{kind}={status} {reason:?}");
        self.until(name, &what, |user| {
            condition(user, kind).is_some_and(|condition| {
                condition.status == status
                    && condition.observed_generation == user.metadata.generation
                    && reason.is_none_or(|reason| condition.reason == reason.as_str())
            })
        })
        .await
    }

    /// Waits for a call to AWS since a mark.
    pub(crate) async fn called(&self, since: Mark, action: &str) {
        let wanted = |call: &CallRecord| call.action == action;
        if let Err(error) = self.aws.log().wait_since(since, action, SOON, wanted).await {
            panic!("{error}\n{}", self.log());
        }
    }

    /// Waits until policies were compared after that: of one user, or of all of the account together.
    pub(crate) async fn looked(&self, since: Mark) {
        let looked = CallRecord::compares_policies;
        self.aws.log().wait_since(since, "a look at policies", SOON, looked).await.expect("the operator compares");
    }

    /// Waits until the resource is gone.
    pub(crate) async fn gone(&self, name: &str) {
        let gone = await_condition(self.users(), name, |user: Option<&AwsDeployUser>| user.is_none());
        if tokio::time::timeout(SOON, gone).await.is_err() {
            let user = self.users().get_opt(name).await;
            panic!("{name} is still there: {user:#?}\n{}\n{}", self.aws.log().transcript(), self.log());
        }
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.users().delete(name, &DeleteParams::default()).await.expect("the resource is deleted");
    }

    /// The data of a Secret as text.
    pub(crate) async fn secret(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let secret = self.secrets().get_opt(name).await.expect("Secrets can be read")?;
        Some(
            secret
                .data
                .into_iter()
                .flatten()
                .map(|(name, value)| (name, String::from_utf8(value.0).expect("text")))
                .collect(),
        )
    }

    /// The key that is published in a Secret.
    pub(crate) async fn published(&self, secret: &str) -> String {
        self.secret(secret).await.expect("the Secret is there")["AWS_ACCESS_KEY_ID"].clone()
    }

    /// Waits until a Secret holds another key than this one.
    pub(crate) async fn until_published(&self, secret: &str, other_than: &str) -> String {
        let wanted = |secret: Option<&Secret>| {
            let data = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get("AWS_ACCESS_KEY_ID"));
            data.is_some_and(|id| id.0 != other_than.as_bytes())
        };
        match tokio::time::timeout(SOON, await_condition(self.secrets(), secret, wanted)).await {
            Ok(Ok(_)) => self.published(secret).await,
            other => panic!(
                "no other key than {other_than}: {:?}\n{}\n{}",
                other.is_ok(),
                self.aws.log().transcript(),
                self.log()
            ),
        }
    }

    /// The truth about an IAM user.
    pub(crate) async fn iam(&self, user: &str) -> UserTruth {
        self.iam_opt(user).await.expect("the IAM user is there")
    }

    pub(crate) async fn iam_opt(&self, user: &str) -> Option<UserTruth> {
        self.truth().user(user).await.expect("the truth can be read")
    }

    pub(crate) fn truth(&self) -> Truth {
        self.aws.truth()
    }

    /// Waits for a truth about an IAM user. AWS tells nobody of changes, so this asks.
    pub(crate) async fn until_iam(&self, user: &str, what: &str, wanted: impl Fn(&UserTruth) -> bool) -> UserTruth {
        let probe = async || {
            let truth = self.iam_opt(user).await?;
            wanted(&truth).then_some(truth)
        };
        eventually(what, probe, || format!("{}\n{}", self.aws.log().transcript(), self.log())).await
    }

    /// Reasons and notes of the resource's Events.
    pub(crate) async fn events(&self, name: &str) -> Vec<(String, String)> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = events.list(&ListParams::default()).await.expect("Events can be listed");
        events
            .items
            .into_iter()
            .filter(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name))
            .map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect()
    }

    /// Waits for an Event and gives its note.
    pub(crate) async fn event(&self, name: &str, reason: Reason) -> String {
        let probe = async || {
            let events = self.events(name).await;
            events.into_iter().find(|(found, _)| found == reason.as_str()).map(|(_, note)| note)
        };
        eventually(&format!("an Event {reason}"), probe, || self.log()).await
    }

    /// The operator's log.
    pub(crate) fn log(&self) -> String {
        self.operator.log()
    }

    /// All that a collector of traces was sent.
    #[allow(dead_code, reason = "for the fault runs, which share this file")]
    pub(crate) fn traces(&self) -> String {
        self.collector.as_ref().map(|collector| collector.text()).unwrap_or_default()
    }

    /// How often the metrics count something: the value of the line that begins with `line`.
    pub(crate) async fn count(&self, line: &str) -> u64 {
        let metrics = self.operator.metrics().await.expect("metrics");
        let value = metrics.lines().find_map(|text| text.strip_prefix(line)).map_or("0", str::trim);
        value.parse().unwrap_or_else(|_| panic!("{line}: {value:?} is no number"))
    }

    /// Restarts the operator and waits until it has looked at everything anew. Afterwards nothing that was fine may
    /// have been written, neither in AWS nor in Kubernetes.
    pub(crate) async fn assert_a_fresh_look_writes_nothing(&mut self, name: &str) {
        let (mark, before) = (self.aws.log().mark(), self.fingerprints(name).await);
        self.operator.restart().await.expect("the operator restarts");
        self.looked(mark).await;
        let probe = async || (self.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 1).then_some(());
        eventually("a good pass", probe, || self.log()).await;
        let writes = self.aws.log().mutating_calls_since(mark);
        assert!(writes.is_empty(), "a look at what is fine wrote to AWS: {writes:#?}");
        assert_eq!(self.fingerprints(name).await, before, "a look at what is fine wrote to Kubernetes");
    }

    async fn fingerprints(&self, name: &str) -> Vec<(String, Option<String>)> {
        let mut seen = vec![(name.to_owned(), self.user(name).await.resource_version())];
        let secrets = self.secrets().list(&ListParams::default()).await.expect("Secrets can be listed");
        seen.extend(secrets.items.iter().map(|secret| (secret.name_any(), secret.resource_version())));
        seen.push(("Events".to_owned(), Some(self.events(name).await.len().to_string())));
        seen
    }

    /// A pod's view of a Secret and a workload that signs with it ten times a second.
    pub(crate) fn consume(&self, secret: &str, arn: &str) -> (Mounted, Consumer) {
        let directory = self.directory.join(format!("mount-{secret}"));
        let mounted = Mounted::follow(self.client.clone(), &self.namespace, secret, &directory).expect("a mount");
        let consumer = Consumer::start(ConsumerOptions::new(directory, self.aws.endpoint(), arn));
        (mounted, consumer)
    }
}

/// An AWS account of a test that needs no Kubernetes.
pub(crate) struct Aws {
    pub(crate) account: Arc<Account>,
    proxy: StrictAws,
}

impl Aws {
    pub(crate) async fn new() -> Self {
        let account = Account::unique();
        let proxy = aws(shared().await, &account).await;
        Self { account, proxy }
    }

    /// The real SDK in front of it, with the key of the operator.
    pub(crate) async fn accounts(&self) -> Accounts {
        let access = AwsAccess::administrator(self.address());
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(access.region))
            .endpoint_url(access.endpoint)
            .credentials_provider(Credentials::new(access.access_key_id, access.secret_access_key, None, None, "test"))
            .load()
            .await;
        let connection = Connection { rate: 1000.0, observer: Arc::new(()), session_name: "it".to_owned() };
        Accounts::with_config(config, connection)
    }
}

impl std::ops::Deref for Aws {
    type Target = StrictAws;

    fn deref(&self) -> &StrictAws {
        &self.proxy
    }
}

fn options(
    shared: &Shared,
    aws: &StrictAws,
    kubeconfig: &Path,
    directory: &Path,
    namespace: &str,
    wishes: &Wishes,
) -> OperatorOptions {
    let mut access = AwsAccess::administrator(shared.moto);
    access.endpoint = aws.endpoint();
    let mut arguments = vec!["--watch-namespaces", namespace];
    arguments.extend([
        "--min-rotation-interval=1s",
        "--intent-dwell=3s",
        "--verify-interval=100ms",
        "--retire-dwell=2s",
        "--resync=5s",
        "--key-check=5s",
        "--secret-check=1s",
        "--restart-check=200ms",
        "--aws-rate=500",
        // All tests share the classes; each would see other users.
        "--report-classes=false",
        "--log=awsdeploy=debug",
    ]);
    arguments.extend(&wishes.arguments);
    OperatorOptions::new(env!("CARGO_BIN_EXE_aws-deploy-user-operator"), kubeconfig, access, directory)
        .arguments(arguments)
}

/// The condition of a resource.
pub(crate) fn condition(user: &AwsDeployUser, kind: ConditionType) -> Option<&awsdeploy::api::Condition> {
    user.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// The message of a condition.
pub(crate) fn message(user: &AwsDeployUser, kind: ConditionType) -> String {
    condition(user, kind).map(|condition| condition.message.clone()).unwrap_or_default()
}

/// Asks until there is an answer, for things that tell nobody when they change.
pub(crate) async fn eventually<T: Debug>(
    what: &str,
    probe: impl AsyncFn() -> Option<T>,
    context: impl Fn() -> String,
) -> T {
    let asked = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(SOON, asked).await {
        Ok(answer) => answer,
        Err(elapsed) => panic!("{what}: {elapsed}, not after {SOON:?}\n{}", context()),
    }
}
