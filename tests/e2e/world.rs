//! What the story is told about: a cluster with a node, an AWS, and the operator in pods.

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
    machine::Machine,
    network,
    node::Node,
    shell::Shell,
    summary::Summary,
    version::{self, Version},
    workload::Workload,
};

/// The release, and the namespace it is in.
pub(crate) const RELEASE: &str = "aws-deploy-user-operator";
/// The namespace of the deploy users.
pub(crate) const NAMESPACE: &str = "deploy";
/// The resource of the README.
pub(crate) const USER: &str = "cycle";
/// Its IAM user.
pub(crate) const IAM_USER: &str = "cycle-prod";
/// Its Secret.
pub(crate) const SECRET: &str = "cycle-aws";

/// How long anything that should happen may take. Generous: the machines are slow and shared.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// All of it. Dropping it ends it.
pub(crate) struct World {
    pub(crate) summary: Summary,
    pub(crate) shell: Shell,
    pub(crate) client: Client,
    pub(crate) aws: StrictAws,
    /// Where pods reach AWS.
    pub(crate) endpoint: String,
    pub(crate) images: Images,
    pub(crate) today: Version,
    /// The release before, which is installed first and upgraded.
    pub(crate) before: Option<Version>,
    pub(crate) workload: Option<Workload>,
    /// From then on nothing is to be written for the resource that is left alone.
    pub(crate) peaceful_since: LogPosition,
    requests: u32,
    // In this order they are dropped, so stopped.
    pub(crate) node: Node,
    rig: Rig,
}

/// How a new key came to the pod.
pub(crate) struct Arrival {
    /// The key.
    pub(crate) key: String,
    /// From the write of the Secret, or the beginning of the wait if that was later, to the changed file.
    pub(crate) in_file: Duration,
}

impl World {
    /// Builds the images and starts everything but the operator.
    pub(crate) async fn set_up() -> Result<Self> {
        awsdeploy_testkit::install_crypto_provider();
        let begun = Instant::now();
        let (today, before) = (Version::of_today(), Version::before());
        let tools = Tools::locate().await?;
        let directory = RunDir::create()?;
        let run = directory.path().to_owned();
        let mut shell = Shell::new(&run, tools.directory())?;
        network::set_up(&shell).await?;
        let machine = Machine::shield(&run.join("node"), &shell).await?;

        let (versions, testkit): (Vec<_>, _) = ([&today].into_iter().chain(&before).collect(), version::testkit());
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
        network::serve_api(control_plane.api_server_address()?).await.map_err(io("serve the API server to pods"))?;
        let aws = rig.strict_aws(Account::new()).await?;
        let endpoint = network::expose(aws.address()).await.map_err(io("serve AWS to pods"))?;
        let node = Node::start(&tools, control_plane, machine, &mut shell, &images.archives).await?;
        println!("node: ready after {:.1} s", begun.elapsed().as_secs_f32());
        Ok(Self {
            summary: Summary::default(),
            client: control_plane.client(),
            endpoint: format!("http://{endpoint}"),
            shell,
            aws,
            images,
            today,
            before,
            workload: None,
            peaceful_since: LogPosition::default(),
            requests: 0,
            node,
            rig,
        })
    }

    /// What is installed at the beginning.
    pub(crate) fn first(&self) -> &Version {
        self.before.as_ref().unwrap_or(&self.today)
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        drop(self.node);
        self.rig.stop().await;
    }

    /// The directory of the run.
    pub(crate) fn directory(&self) -> &Path {
        self.rig.directory()
    }

    /// The administrator of the AWS account, as pods reach it.
    pub(crate) fn administrator(&self) -> AwsAccess {
        AwsAccess::administrator(self.aws.address())
    }

    /// What a person would look at after a failure.
    pub(crate) async fn explain(&self) {
        for command in [
            "kubectl get nodes,pods --all-namespaces --output wide",
            "kubectl get events --all-namespaces --sort-by .metadata.creationTimestamp | tail -n 40",
            "kubectl get adu --all-namespaces --output yaml",
            "kubectl -n aws-deploy-user-operator logs --selector app.kubernetes.io/name --prefix --tail 60 --ignore-errors",
            "for log in node/kubelet node/containerd; do echo \"-- $log.log\"; tail -n 25 $RUN/$log.log | cut -c -300; done",
        ] {
            println!("\n-- {command}");
            match self.shell.quiet(command).await {
                Ok(output) => print!("{output}"),
                Err(error) => println!("{error}"),
            }
        }
        println!("\n-- calls to AWS\n{}", self.aws.log().transcript());
    }

    /// The pods of the operator that are not about to go.
    pub(crate) async fn operator_pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), RELEASE);
        let wanted = ListParams::default().labels("app.kubernetes.io/name=aws-deploy-user-operator");
        let pods = pods.list(&wanted).await.expect("pods can be listed").items;
        pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// The process id of a pod's only container.
    pub(crate) async fn process_of(&self, pod: &Pod) -> u32 {
        let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let id = statuses.find_map(|status| status.container_id.as_deref()?.strip_prefix("containerd://"));
        let id = id.unwrap_or_else(|| panic!("{} has no container", pod.name_any()));
        let pid = self.shell.word(&format!("ctr tasks list | awk '$1 == \"{id}\" {{ print $2 }}'")).await;
        pid.parse().unwrap_or_else(|_| panic!("the container {id} has no process: {pid:?}"))
    }

    /// The pod that leads.
    pub(crate) async fn leader(&self) -> Pod {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), RELEASE);
        let probe = async || {
            let holder = leases.get_opt(RELEASE).await.ok()??.spec?.holder_identity?;
            self.operator_pods().await.into_iter().find(|pod| holder.starts_with(&pod.name_any()))
        };
        eventually("a leader", SOON, probe).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The key id that is published.
    pub(crate) async fn published(&self) -> String {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        key_of(&secrets.get(SECRET).await.expect("the Secret is there")).expect("the Secret holds a key")
    }

    /// What is so in AWS.
    pub(crate) async fn iam(&self) -> Option<UserSnapshot> {
        self.aws.inspector().user(IAM_USER).await.expect("the truth can be read")
    }

    /// The pod that uses the key.
    pub(crate) fn workload(&self) -> &Workload {
        self.workload.as_ref().expect("the pod runs")
    }

    /// Asks for a new key, as the README says.
    pub(crate) async fn ask_for_a_key(&mut self) {
        self.requests += 1;
        let value = self.requests;
        let command =
            format!("kubectl -n {NAMESPACE} annotate adu {USER} --overwrite awsdeploy.dev/rotate=request-{value}");
        self.shell.shown(&command).await;
    }

    /// Waits until another key than this one is published, then in the pod's files, then in use there.
    pub(crate) async fn until_another_key_is_used(&self, than: &str) -> Arrival {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let other = |secret: Option<&Secret>| secret.and_then(key_of).is_some_and(|key| key != than);
        let published = tokio::time::timeout(SOON, await_condition(secrets, SECRET, other)).await;
        let at = Instant::now();
        assert!(matches!(published, Ok(Ok(Some(_)))), "no other key than {than} is published after {SOON:?}");
        // Asked anew each time: the next rotation may be faster than the file, and then its key is waited for.
        let in_file = async || {
            let key = self.published().await;
            (key != than && self.workload().mounted_key()? == key).then(|| (key, at.elapsed()))
        };
        let in_file = eventually("the new key in the pod's file", SOON, in_file);
        let (key, in_file) = in_file.await.unwrap_or_else(|error| panic!("{error}"));
        let used = async || self.workload().report().keys.contains_key(&key).then_some(());
        eventually("a call with the new key", SOON, used).await.unwrap_or_else(|error| panic!("{error}"));
        println!("{key} is published, in the pod's file, and in use");
        Arrival { key, in_file }
    }

    /// Waits until the published key is the only one.
    pub(crate) async fn until_one_key_is_left(&self) {
        let alone = async || {
            let keys = self.iam().await?.keys;
            let published = self.published().await;
            (keys.len() == 1 && keys[0].id == published && keys[0].accepted).then_some(())
        };
        let alone = eventually("the published key to be the only one", SOON, alone).await;
        alone.unwrap_or_else(|error| panic!("{error}"));
    }
}

pub(crate) fn key_of(secret: &Secret) -> Option<String> {
    let id = secret.data.as_ref()?.get("AWS_ACCESS_KEY_ID")?;
    String::from_utf8(id.0.clone()).ok()
}
