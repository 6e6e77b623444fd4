//! The environment of a test: its own namespace, AWS account and operator on the shared control plane.

mod account;
mod actions;
mod apply;
mod assertions;
mod iam_permissions;
mod list;
mod shared;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use awsdeploy::api::{AwsDeployUser, AwsDeployUserClass};
use awsdeploy_testkit::{
    auditor::activity::{ActivityMonitor, ActivitySources},
    aws_proxy::{Account, StrictAws},
    collector::Collector,
    consumer::{Consumer, ConsumerOptions},
    emulator::AwsAccess,
    kube_proxy::KubeProxy,
    operator::{Operator, OperatorOptions},
    secret_mount::SecretMount,
    tls::TlsClient,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    api::DynamicObject,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

pub(crate) use self::shared::RELEASE as OPERATOR_NAMESPACE;
pub(crate) use self::{
    account::TestAccount,
    apply::{ApplyMethod, LAST_APPLIED},
    assertions::{condition, eventually, message},
    list::{Test, tests, trials},
    shared::{actions_seen, block_on, run, stop},
};
use self::{
    apply::Applier,
    iam_permissions::IamPermissions,
    shared::{Shared, create_namespace, shared, start_aws},
};

/// Prefix of the namespaces that the presets serve; the name of the preset follows.
pub(crate) const PRESET_PREFIX: &str = "preset-";
/// The policy of the CDK preset.
pub(crate) const CDK_POLICY: &str = "arn:aws:iam::123456789012:policy/cdk-deploy";
/// Label of namespaces with admission by class.
pub(crate) const ADMISSION_LABEL: &str = "admission";
/// User that the chart limits to confirmations of new keys.
pub(crate) const HANDOVER_AGENT: &str = "handover-agent";
/// Limit for every wait; generous, as machines are slow and shared.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);

static NEXT_NAMESPACE: AtomicU32 = AtomicU32::new(1);

/// A class that allows everything to every namespace; tests about classes use narrower ones.
pub(crate) fn open_class() -> Value {
    json!({
        "namespaces": {"names": ["*"]}, "users": {"namePattern": ".*"},
        "policies": {"allowed": ["*"], "documents": "Allow"}, "groups": ["*"],
        "console": "Allow", "adoption": "Allow", "restart": "Allow", "acknowledgeAdminEquivalent": true,
        "tagKeys": ["*"], "secrets": {"labelKeys": ["*"], "annotationKeys": ["*"], "templateKeys": ["*"]},
    })
}

/// Deviations from the default environment.
#[derive(Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent options")]
pub(crate) struct EnvOptions {
    /// Additional arguments of the operator; later ones win.
    pub(crate) arguments: Vec<&'static str>,
    /// The operator has no access to Secrets of the namespace.
    pub(crate) no_secret_access: bool,
    /// The namespace; a generated one by default.
    pub(crate) namespace: Option<&'static str>,
    /// The id of the AWS account; a unique one by default.
    pub(crate) account: Option<&'static str>,
    pub(crate) no_credentials: bool,
    /// Additional environment variables of the operator.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The collector that the operator exports traces to.
    pub(crate) collector: Option<Arc<Collector>>,
    /// The operator serves TLS; the test reads its endpoints with this client.
    pub(crate) tls: Option<TlsClient>,
    /// The operator uses a fault-injecting proxy for Kubernetes.
    pub(crate) kube_proxy: bool,
    /// The IAM policy of the operator covers the test's own classes only, not the default class.
    pub(crate) own_classes_only: bool,
}

pub(crate) struct TestEnv {
    pub(crate) namespace: String,
    pub(crate) client: Client,
    pub(crate) aws: StrictAws,
    pub(crate) account: Arc<Account>,
    pub(crate) operator: Operator,
    #[allow(dead_code, reason = "used by the fault tests only")]
    pub(crate) kube: Option<KubeProxy>,
    collector: Option<Arc<Collector>>,
    pub(crate) directory: PathBuf,
    operator_options: OperatorOptions,
    bindings: [DynamicObject; 2],
    iam_permissions: IamPermissions,
    applier: Applier,
    /// Fails the test if a resource caused more than its budget.
    pub(crate) activity: ActivityMonitor,
}

impl TestEnv {
    /// The default environment.
    pub(crate) async fn new() -> Self {
        Self::with_options(EnvOptions::default()).await
    }

    /// An environment with additional arguments of the operator.
    pub(crate) async fn with_arguments(arguments: &[&'static str]) -> Self {
        Self::with_options(EnvOptions { arguments: arguments.to_vec(), ..EnvOptions::default() }).await
    }

    /// An environment with these options.
    pub(crate) async fn with_options(options: EnvOptions) -> Self {
        let shared = shared().await;
        let namespace = options
            .namespace
            .map_or_else(|| format!("t{}", NEXT_NAMESPACE.fetch_add(1, Ordering::Relaxed)), str::to_owned);
        let client = shared.client.clone();
        create_namespace(&client, &namespace).await;
        let bindings = shared.bindings.clone().map(|mut binding| {
            binding.metadata.namespace = Some(namespace.clone());
            binding
        });
        let account = options.account.map_or_else(Account::unique, Account::with_id);
        let aws = start_aws(shared, &account).await;
        let iam_permissions = IamPermissions::new(&aws);
        if !options.own_classes_only {
            iam_permissions.grant("default", &open_class());
        }
        let directory = shared.directory.join(&namespace);
        std::fs::create_dir_all(&directory).expect("a directory");
        let mut kubeconfig = shared.kubeconfig.clone();
        let mut kube = None;
        if options.kube_proxy {
            kubeconfig = directory.join("proxy.kubeconfig");
            kube = Some(KubeProxy::start(&shared.kubeconfig, &kubeconfig).await.expect("the Kubernetes proxy starts"));
        }
        let mut operator_options = operator_options(shared, &aws, &kubeconfig, &directory, &namespace, &options);
        if options.no_credentials {
            operator_options = operator_options.variable("AWS_ACCESS_KEY_ID", "").variable("AWS_SECRET_ACCESS_KEY", "");
        }
        operator_options = options
            .variables
            .iter()
            .fold(operator_options, |operator_options, (name, value)| operator_options.variable(name, value));
        if let Some(collector) = &options.collector {
            operator_options = operator_options.variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
        }
        if let Some(client) = options.tls {
            operator_options = operator_options.tls(client);
        }
        if !options.no_secret_access {
            actions::grant_secret_access(&client, &namespace, &bindings[0]).await;
        }
        let activity = ActivityMonitor::start(ActivitySources {
            namespace: namespace.clone(),
            audit_log: shared.audit_log.clone(),
            logs: directory.clone(),
            aws: aws.log().clone(),
        });
        Self {
            activity,
            applier: Applier::new(&namespace),
            operator: Operator::start(operator_options.clone()).await.expect("the operator starts"),
            operator_options,
            namespace,
            client,
            aws,
            account,
            kube,
            collector: options.collector,
            directory,
            bindings,
            iam_permissions,
        }
    }

    /// Creates another namespace that the operator has access to. It watches only those of its arguments.
    #[allow(dead_code, reason = "used by the attack tests only")]
    pub(crate) async fn serve_namespace(&self, namespace: &str) {
        create_namespace(&self.client, namespace).await;
        let mut binding = self.bindings[0].clone();
        binding.metadata.namespace = Some(namespace.to_owned());
        actions::grant_secret_access(&self.client, namespace, &binding).await;
    }

    /// Starts another operator with the same arguments.
    pub(crate) async fn start_another_operator(&self, name: &str) -> Operator {
        Operator::start(self.operator_options.clone().name(name)).await.expect("another operator starts")
    }

    /// Starts another operator with additional arguments; later ones win.
    #[allow(dead_code, reason = "used by the fault tests only")]
    pub(crate) async fn start_another_operator_with(&self, name: &str, arguments: &[&str]) -> Operator {
        let operator_options = self.operator_options.clone().name(name).arguments(arguments);
        Operator::start(operator_options).await.expect("another operator starts")
    }

    /// Starts an operator of another installation, whose namespace is that of the test. It has the rights of a cluster admin:
    /// those of the chart are for the operator's own namespace.
    #[allow(dead_code, reason = "used by the integration tests only")]
    pub(crate) async fn start_other_installation(&self) -> Operator {
        let options = self.operator_options.clone().name("other").arguments(["--namespace", &self.namespace]);
        let options = options.variable("KUBECONFIG", &shared().await.admin);
        Operator::start(options).await.expect("an operator of another installation starts")
    }

    /// A client with the token of the operator.
    pub(crate) async fn operator_client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&shared().await.kubeconfig).expect("the operator's kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// A client that impersonates the user.
    pub(crate) async fn client_as(&self, name: &str) -> Client {
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

    /// Secrets in the namespace of the operator, its journals among them.
    pub(crate) fn operator_secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE)
    }

    pub(crate) fn classes(&self) -> Api<AwsDeployUserClass> {
        Api::all(self.client.clone())
    }

    /// Mounts a Secret and starts a consumer that signs with it ten times per second.
    pub(crate) fn start_consumer(&self, secret: &str, arn: &str) -> (SecretMount, Consumer) {
        let directory = self.directory.join(format!("mount-{secret}"));
        let mounted = SecretMount::start(self.client.clone(), &self.namespace, secret, &directory).expect("a mount");
        let consumer = Consumer::start(ConsumerOptions::new(directory, self.aws.endpoint(), arn));
        (mounted, consumer)
    }
}

fn operator_options(
    shared: &Shared,
    aws: &StrictAws,
    kubeconfig: &Path,
    directory: &Path,
    namespace: &str,
    options: &EnvOptions,
) -> OperatorOptions {
    let mut access = AwsAccess::administrator(shared.moto);
    access.endpoint = aws.endpoint();
    let mut arguments = vec!["--watch-namespaces", namespace];
    arguments.extend([
        "--min-rotation-interval=1s",
        "--repair-interval=50ms",
        "--recovery-delay=3s",
        "--verify-interval=100ms",
        "--deletion-delay=2s",
        "--class-absence-grace=2s",
        "--resync=5s",
        "--key-check=5s",
        "--secret-check=1s",
        "--restart-check=200ms",
        "--aws-rate=500",
        // Classes are shared by all tests, so each operator would report another number of users.
        "--class-status=false",
        "--log=awsdeploy=debug",
    ]);
    if options.kube_proxy {
        // The kubeconfig of the proxy names no namespace, and the journals are in the operator's own.
        arguments.extend(["--namespace", OPERATOR_NAMESPACE]);
    }
    arguments.extend(&options.arguments);
    // A measurement runs a release build.
    let binary = std::env::var("AWSDEPLOY_TEST_OPERATOR");
    let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_aws-deploy-user-operator").to_owned());
    OperatorOptions::new(binary, kubeconfig, access, directory).arguments(arguments)
}
