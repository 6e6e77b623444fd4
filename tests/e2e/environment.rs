//! Environment of the scenario: a cluster with a node, an AWS emulator, and the operator in pods.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use awsdeploy_testkit::{
    Error, Result,
    aws_proxy::{Account, LogPosition, StrictAws, UserSnapshot},
    emulator::AwsAccess,
    rig::Rig,
    run_dir::RunDir,
    tools::Tools,
    wait::eventually,
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Pod, Secret},
};
use kube::{Api, Client, ResourceExt as _, api::ListParams, runtime::wait::await_condition};

use crate::{
    image::{self, Images},
    isolation::HostIsolation,
    network,
    node::Node,
    shell::Shell,
    summary::Summary,
    version::{self, Version},
    workload::Workload,
};

/// Name of the release and of its namespace.
pub(crate) const RELEASE: &str = "aws-deploy-user-operator";
/// Namespace of the deploy users.
pub(crate) const NAMESPACE: &str = "deploy";
/// Resource of the README.
pub(crate) const USER: &str = "cycle";
/// Its IAM user.
pub(crate) const IAM_USER: &str = "cycle-prod";
/// Its Secret.
pub(crate) const SECRET: &str = "cycle-aws";

/// Timeout of waits. Generous, because machines are slow and shared.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);

/// The environment. Stops when dropped.
pub(crate) struct E2eEnv {
    pub(crate) summary: Summary,
    pub(crate) shell: Shell,
    pub(crate) client: Client,
    pub(crate) aws: StrictAws,
    /// Endpoint of AWS for pods.
    pub(crate) endpoint: String,
    pub(crate) images: Images,
    pub(crate) current: Version,
    /// The previous release, which is installed first and then upgraded.
    pub(crate) previous: Option<Version>,
    pub(crate) workload: Option<Workload>,
    /// Log position after which no write for the unchanged resource is expected.
    pub(crate) unchanged_since: LogPosition,
    requests: u32,
    // Dropped, and so stopped, in this order.
    pub(crate) node: Node,
    rig: Rig,
}

/// Propagation of a new key to the pod.
pub(crate) struct KeyUpdate {
    /// Key ID.
    pub(crate) key: String,
    /// Time from the write of the Secret (or the start of the wait, if later) to the updated file.
    pub(crate) in_file: Duration,
}

impl E2eEnv {
    /// Builds the images and starts everything except the operator.
    pub(crate) async fn start() -> Result<Self> {
        awsdeploy_testkit::install_crypto_provider();
        let begun = Instant::now();
        let (current, previous) = (Version::current(), Version::previous());
        let tools = Tools::locate().await?;
        let directory = RunDir::create()?;
        let run = directory.path().to_owned();
        let mut shell = Shell::new(&run, tools.directory())?;
        network::start(&shell).await?;
        let isolation = HostIsolation::apply(&run.join("node"), &shell).await?;

        let (versions, testkit): (Vec<_>, _) = ([&current].into_iter().chain(&previous).collect(), version::testkit());
        let (rig, images) =
            tokio::try_join!(Rig::start_in(directory), image::build(&shell, &run, &versions, &testkit))?;
        println!("control plane and images: ready after {:.1} s", begun.elapsed().as_secs_f32());
        let control_plane = rig.control_plane();
        shell.set("KUBECONFIG", control_plane.kubeconfig().display().to_string());
        shell.set("RUN", run.display().to_string());
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        network::forward_api_server(control_plane.api_server_address()?)
            .await
            .map_err(io("forward the API server to pods"))?;
        let aws = rig.strict_aws(Account::new()).await?;
        let endpoint = network::forward_to_pods(aws.address()).await.map_err(io("forward AWS to pods"))?;
        let node = Node::start(&tools, control_plane, isolation, &mut shell, &images.archives).await?;
        println!("node: ready after {:.1} s", begun.elapsed().as_secs_f32());
        Ok(Self {
            summary: Summary::default(),
            client: control_plane.client(),
            endpoint: format!("http://{endpoint}"),
            shell,
            aws,
            images,
            current,
            previous,
            workload: None,
            unchanged_since: LogPosition::default(),
            requests: 0,
            node,
            rig,
        })
    }

    /// The version that is installed first.
    pub(crate) fn first(&self) -> &Version {
        self.previous.as_ref().unwrap_or(&self.current)
    }

    /// Stops everything in order.
    pub(crate) async fn stop(self) {
        drop(self.node);
        self.rig.stop().await;
    }

    /// The directory of the run.
    pub(crate) fn directory(&self) -> &Path {
        self.rig.directory()
    }

    /// Credentials of the administrator of the AWS account.
    pub(crate) fn administrator(&self) -> AwsAccess {
        AwsAccess::administrator(self.aws.address())
    }

    /// Prints diagnostics after a failure.
    pub(crate) async fn print_diagnostics(&self) {
        for command in [
            "kubectl get nodes,pods --all-namespaces --output wide",
            "kubectl get events --all-namespaces --sort-by .metadata.creationTimestamp | tail -n 40",
            "kubectl get adu --all-namespaces --output yaml",
            "kubectl -n aws-deploy-user-operator logs --selector app.kubernetes.io/name --prefix --tail 60 --ignore-errors",
            "for log in node/kubelet node/containerd; do echo \"-- $log.log\"; tail -n 25 $RUN/$log.log | cut -c -300; done",
        ] {
            println!("\n-- {command}");
            match self.shell.run(command).await {
                Ok(output) => print!("{output}"),
                Err(error) => println!("{error}"),
            }
        }
        println!("\n-- AWS calls\n{}", self.aws.log().transcript());
    }

    /// Pods of the operator that are not terminating.
    pub(crate) async fn operator_pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), RELEASE);
        let wanted = ListParams::default().labels("app.kubernetes.io/name=aws-deploy-user-operator");
        let pods = pods.list(&wanted).await.expect("pods can be listed").items;
        pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Process ID of a pod's container.
    pub(crate) async fn process_of(&self, pod: &Pod) -> u32 {
        let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let id = statuses.find_map(|status| status.container_id.as_deref()?.strip_prefix("containerd://"));
        let id = id.unwrap_or_else(|| panic!("{} has no container", pod.name_any()));
        let pid = self.shell.output_of(&format!("ctr tasks list | awk '$1 == \"{id}\" {{ print $2 }}'")).await;
        pid.parse().unwrap_or_else(|_| panic!("the container {id} has no process: {pid:?}"))
    }

    /// The leader pod.
    pub(crate) async fn leader(&self) -> Pod {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), RELEASE);
        let probe = async || {
            let holder = leases.get_opt(RELEASE).await.ok()??.spec?.holder_identity?;
            self.operator_pods().await.into_iter().find(|pod| holder.starts_with(&pod.name_any()))
        };
        eventually("a leader", TIMEOUT, probe).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The published key ID.
    pub(crate) async fn published(&self) -> String {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        key_of(&secrets.get(SECRET).await.expect("the Secret is there")).expect("the Secret holds a key")
    }

    /// The IAM user.
    pub(crate) async fn iam(&self) -> Option<UserSnapshot> {
        self.aws.inspector().user(IAM_USER).await.expect("the truth can be read")
    }

    /// The pod that uses the key.
    pub(crate) fn workload(&self) -> &Workload {
        self.workload.as_ref().expect("the pod runs")
    }

    /// Requests a rotation, as described in the README.
    pub(crate) async fn request_rotation(&mut self) {
        self.requests += 1;
        let value = self.requests;
        let command =
            format!("kubectl -n {NAMESPACE} annotate adu {USER} --overwrite awsdeploy.dev/rotate=request-{value}");
        self.shell.run_printed(&command).await;
    }

    /// Waits until a key other than `than` is published, then mounted in the pod, then used.
    pub(crate) async fn wait_for_new_key_in_use(&self, than: &str) -> KeyUpdate {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let other = |secret: Option<&Secret>| secret.and_then(key_of).is_some_and(|key| key != than);
        let published = tokio::time::timeout(TIMEOUT, await_condition(secrets, SECRET, other)).await;
        let at = Instant::now();
        assert!(matches!(published, Ok(Ok(Some(_)))), "no new key was published within {TIMEOUT:?}, still {than}");
        // Read the published key on each poll: if the next rotation is faster than the mount, wait for its key.
        let in_file = async || {
            let key = self.published().await;
            (key != than && self.workload().mounted_key()? == key).then(|| (key, at.elapsed()))
        };
        let in_file = eventually("the new key to be mounted", TIMEOUT, in_file);
        let (key, in_file) = in_file.await.unwrap_or_else(|error| panic!("{error}"));
        let used = async || self.workload().report().keys.contains_key(&key).then_some(());
        eventually("a call with the new key", TIMEOUT, used).await.unwrap_or_else(|error| panic!("{error}"));
        println!("{key} is published, mounted and in use");
        KeyUpdate { key, in_file }
    }

    /// Waits until the published key is the only key.
    pub(crate) async fn wait_for_single_key(&self) {
        let alone = async || {
            let keys = self.iam().await?.keys;
            let published = self.published().await;
            (keys.len() == 1 && keys[0].id == published && keys[0].accepted).then_some(())
        };
        let alone = eventually("the published key to be the only one", TIMEOUT, alone).await;
        alone.unwrap_or_else(|error| panic!("{error}"));
    }
}

pub(crate) fn key_of(secret: &Secret) -> Option<String> {
    let id = secret.data.as_ref()?.get("AWS_ACCESS_KEY_ID")?;
    String::from_utf8(id.0.clone()).ok()
}
