//! The control plane that all tests share: started by the first test and stopped after the last one.

use std::{
    collections::BTreeSet,
    future::Future,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
};

use awsdeploy::api::AwsDeployUserClass;
use awsdeploy_testkit::{
    aws_proxy::{Account, CallLog, StrictAws},
    chart::Chart,
    rig::Rig,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::OnceCell};

use super::{ADMISSION_LABEL, CDK_POLICY, HANDOVER_AGENT, PRESET_PREFIX, open_class};

/// Namespace and release of the chart, and name of the operator's ServiceAccount.
pub(crate) const RELEASE: &str = "aws-deploy-user-operator";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));

static SHARED: OnceCell<Result<Shared, String>> = OnceCell::const_new();

/// The call logs of all tests.
static CALL_LOGS: Mutex<Vec<CallLog>> = Mutex::new(Vec::new());

pub(super) struct Shared {
    rig: Mutex<Option<Rig>>,
    pub(super) client: Client,
    pub(super) kubeconfig: PathBuf,
    pub(super) admin: PathBuf,
    pub(super) moto: std::net::SocketAddr,
    pub(super) directory: PathBuf,
    pub(super) kubectl: PathBuf,
    /// The installed chart.
    pub(super) chart: Chart,
    /// `None` if the cluster is not of the test kit.
    pub(super) audit_log: Option<PathBuf>,
    /// The `RoleBinding`s of the chart for Secrets and for restarts, with a placeholder as namespace.
    pub(super) bindings: [DynamicObject; 2],
}

/// Runs a test.
#[allow(clippy::unnecessary_wraps, reason = "the signature of a trial; a test fails by a panic")]
pub(crate) fn run(test: impl Future<Output = ()>) -> Result<(), Failed> {
    block_on(test);
    Ok(())
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// Stops the control plane if a test started it.
pub(crate) fn stop() {
    if let Some(Ok(shared)) = SHARED.get()
        && let Some(rig) = shared.rig.lock().ok().and_then(|mut rig| rig.take())
    {
        RUNTIME.block_on(rig.stop());
    }
}

/// Starts the AWS endpoint of a test.
pub(super) async fn start_aws(shared: &Shared, account: &Arc<Account>) -> StrictAws {
    let aws = StrictAws::start(shared.moto, Arc::clone(account)).await.expect("the strict AWS starts");
    // The first call to an account takes the emulator long, and longer than the operator waits while many tests start: its SDK
    // would repeat the call.
    aws.inspector().user("none").await.expect("the account is ready");
    CALL_LOGS.lock().expect("no test panics with the lock").push(aws.log().clone());
    aws
}

/// The IAM actions that operators called in all tests so far, as policies spell them. Manual changes are not logged,
/// and `GetCallerIdentity` needs no permission.
pub(crate) fn actions_seen() -> BTreeSet<String> {
    let logs = CALL_LOGS.lock().expect("no test panics with the lock");
    let calls = logs.iter().flat_map(|log| log.select(|call| call.service == "iam"));
    calls.map(|call| format!("iam:{}", call.action)).collect()
}

pub(super) async fn shared() -> &'static Shared {
    // A failed start is not retried by every test.
    match SHARED.get_or_init(async || start().await.map_err(|error| error.to_string())).await {
        Ok(shared) => shared,
        Err(error) => panic!("the test environment could not be set: {error}"),
    }
}

async fn start() -> Result<Shared, Box<dyn std::error::Error>> {
    awsdeploy_testkit::install_crypto_provider();
    let rig = Rig::start().await?;
    let admin = rig.control_plane().kubeconfig().to_owned();
    let helm = rig.file("helm");
    std::fs::create_dir_all(&helm)?;
    // Most tests are about the authorization by the operator; only admission tests enable the policies, by label.
    let values = |admission: bool| {
        json!({
            "replicaCount": 0,
            "networkPolicy": {"enabled": false},
            "secretAccess": {"namespaces": ["placeholder"]},
            "restartAccess": {"namespaces": ["placeholder"]},
            "metrics": {"auth": {"enabled": true}},
            "admission": {"classes": admission, "handoverAgents": [HANDOVER_AGENT]},
            "presets": {
                "cycle": {"enabled": true, "namespaces": [format!("{PRESET_PREFIX}cycle")]},
                "defang": {"enabled": true, "namespaces": [format!("{PRESET_PREFIX}defang")]},
                "cdk": {"enabled": true, "namespaces": [format!("{PRESET_PREFIX}cdk")], "policy": CDK_POLICY},
            },
        })
    };
    let chart = Chart::new(rig.tools(), helm, RELEASE, RELEASE).values(values(false));
    let client = rig.control_plane().client();
    create_namespace(&client, "placeholder").await;
    // The CRDs are missing at the first install; the upgrade must keep the preset classes and not recreate them.
    chart.install(&admin).await?;
    let classes: Api<AwsDeployUserClass> = Api::all(client.clone());
    let created = classes.get("cycle").await?.uid();
    chart.install(&admin).await?;
    if classes.get("cycle").await?.uid() != created {
        return Err("an upgrade recreated the class of a preset".into());
    }
    let policies = chart.clone().values(values(true)).template().await?;
    for object in policies.into_iter().filter(|object| object.name_any().starts_with(&format!("{RELEASE}-classes"))) {
        apply_in_labelled_namespaces(&client, object).await?;
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
    rig.control_plane().write_service_account_kubeconfig(RELEASE, RELEASE, &kubeconfig).await?;
    Ok(Shared {
        client,
        kubeconfig,
        admin,
        moto: rig.emulator().address(),
        directory: rig.directory().to_owned(),
        kubectl: rig.tools().program("kubectl"),
        chart,
        audit_log: rig.control_plane().audit_log().ok(),
        bindings,
        rig: Mutex::new(Some(rig)),
    })
}

/// Applies an admission policy or its binding, restricted to labelled namespaces.
async fn apply_in_labelled_namespaces(client: &Client, mut object: DynamicObject) -> kube::Result<()> {
    let Some(types) = object.types.clone() else { return Ok(()) };
    let Some(("admissionregistration.k8s.io", version)) = types.api_version.split_once('/') else { return Ok(()) };
    let plural = match types.kind.as_str() {
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
        _ => "validatingadmissionpolicybindings",
    };
    if plural.ends_with("bindings") {
        object.data["spec"]["matchResources"]["namespaceSelector"] = json!({"matchLabels": {ADMISSION_LABEL: "yes"}});
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

pub(super) async fn apply_class(
    client: &Client,
    name: &str,
    is_default: bool,
    spec: Value,
) -> kube::Result<AwsDeployUserClass> {
    let annotations = if is_default { json!({"awsdeploy.dev/is-default-class": "true"}) } else { json!({}) };
    let object = json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass",
        "metadata": {"name": name, "annotations": annotations}, "spec": spec,
    });
    let params = PatchParams::apply("test").force().validation_strict();
    Api::all(client.clone()).patch(name, &params, &Patch::Apply(&object)).await
}

pub(super) async fn create_namespace(client: &Client, name: &str) {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace is created");
}
