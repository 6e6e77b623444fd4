//! What all stages share: one control plane, which the first test starts and which is stopped after the last one.

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

use super::{ADMISSION_LABEL, CDK_POLICY, PRESET_PREFIX, open_class};

/// Where the chart is installed, and the name of the operator's account there.
pub(super) const SYSTEM: &str = "aws-deploy-user-operator";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));

static SHARED: OnceCell<Result<Shared, String>> = OnceCell::const_new();

/// What every test's AWS was asked.
static LOGS: Mutex<Vec<CallLog>> = Mutex::new(Vec::new());

/// What all tests share.
pub(super) struct Shared {
    rig: Mutex<Option<Rig>>,
    pub(super) client: Client,
    pub(super) kubeconfig: PathBuf,
    pub(super) admin: PathBuf,
    pub(super) moto: std::net::SocketAddr,
    pub(super) directory: PathBuf,
    /// The chart's `RoleBinding`s for a namespace, with a placeholder for its name: for Secrets, and for restarts.
    pub(super) bindings: [DynamicObject; 2],
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
pub(super) async fn aws(shared: &Shared, account: &Arc<Account>) -> StrictAws {
    let aws = StrictAws::start(shared.moto, Arc::clone(account)).await.expect("the strict AWS starts");
    LOGS.lock().expect("no test panics with the lock").push(aws.log().clone());
    aws
}

/// The actions of IAM that the operator was seen to call in all tests so far, as policies spell them. People and
/// emulators leave no trace in these logs, and STS asks for no permission.
pub(crate) fn actions_seen() -> BTreeSet<String> {
    let logs = LOGS.lock().expect("no test panics with the lock");
    let calls = logs.iter().flat_map(|log| log.select(|call| call.service == "iam"));
    calls.map(|call| format!("iam:{}", call.action)).collect()
}

pub(super) async fn shared() -> &'static Shared {
    // A start that failed once is not tried again by every test.
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
                "cycle": {"enabled": true, "namespaces": [format!("{PRESET_PREFIX}cycle")]},
                "defang": {"enabled": true, "namespaces": [format!("{PRESET_PREFIX}defang")]},
                "cdk": {"enabled": true, "namespaces": [format!("{PRESET_PREFIX}cdk")], "policy": CDK_POLICY},
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
    rig.control_plane().write_service_account_kubeconfig(SYSTEM, SYSTEM, &kubeconfig).await?;
    Ok(Shared {
        client,
        kubeconfig,
        admin,
        moto: rig.emulator().address(),
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
