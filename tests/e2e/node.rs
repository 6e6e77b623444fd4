//! A node: containerd with runc, a kubelet, and a scheduler.
//!
//! [`crate::isolation`] prevents changes of the host.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use awsdeploy_testkit::{
    Error, Result,
    control_plane::ControlPlane,
    process::{Process, ProcessSpec},
    tools::Tools,
};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{Api, Client};
use serde_json::json;

use crate::{
    image::TESTKIT,
    isolation::{HostIsolation, data},
    network,
    shell::Shell,
};

/// The name of the node.
const NAME: &str = "e2e";
const START_LIMIT: Duration = Duration::from_mins(2);

/// A running node.
pub(crate) struct Node {
    processes: Vec<Process>,
    directory: PathBuf,
    // Dropped last, after all processes.
    isolation: HostIsolation,
}

impl Node {
    /// Starts containerd with `images`, scheduler and kubelet, and waits until the node is Ready.
    pub(crate) async fn start(
        tools: &Tools,
        control_plane: &ControlPlane,
        isolation: HostIsolation,
        shell: &mut Shell,
        images: &[PathBuf],
    ) -> Result<Self> {
        let directory = isolation.directory().to_owned();
        let mut node = Self { processes: Vec::new(), directory: directory.clone(), isolation };

        node.processes.push(Process::start(containerd(tools, &directory)?)?);
        shell.set("CONTAINERD_ADDRESS", socket(&directory));
        shell.set("CONTAINERD_NAMESPACE", "k8s.io");
        let responds = async || shell.run("ctr version").await.is_ok();
        node.processes[0].wait_until_ready(START_LIMIT, responds).await?;
        for image in images {
            shell.run(&format!("ctr images import {0} && rm {0}", image.display())).await?;
        }

        node.processes.push(Process::start(scheduler(tools, control_plane, &directory)?)?);
        node.processes.push(Process::start(kubelet(tools, control_plane, &directory, &node.isolation)?)?);
        node.wait_until_ready(control_plane.client()).await?;
        Ok(node)
    }

    /// The directory of a pod's volume on the node.
    pub(crate) fn volume(&self, pod_uid: &str, plugin: &str, name: &str) -> PathBuf {
        let pod = data(&self.directory).join("kubelet/pods").join(pod_uid);
        pod.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    async fn wait_until_ready(&self, client: Client) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(client);
        let is_ready = async || {
            let node = nodes.get_opt(NAME).await.ok().flatten();
            let conditions = node.and_then(|node| node.status).and_then(|status| status.conditions);
            conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        let died = async |process: &Process| process.wait_until_ready(START_LIMIT, async || false).await;
        tokio::select! {
            biased;
            died = died(&self.processes[0]) => died,
            died = died(&self.processes[1]) => died,
            ready = self.processes[2].wait_until_ready(START_LIMIT, is_ready) => ready,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The kubelet first, so that it does not restart containers.
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

fn create_dir(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(|source| failed("create", directory, source))
}

fn write(file: &Path, content: &str) -> Result<()> {
    fs::write(file, content).map_err(|source| failed("write", file, source))
}

fn failed(what: &str, file: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("{what} {}", file.display()), source }
}

fn socket(directory: &Path) -> String {
    directory.join("containerd.sock").display().to_string()
}

fn containerd(tools: &Tools, directory: &Path) -> Result<ProcessSpec> {
    let runc = which("runc").ok_or_else(|| Error::Tools("runc is not on PATH".into()))?;
    let networks = directory.join("cni");
    create_dir(&networks)?;
    let file = |name: &str| directory.join(name).display().to_string();
    let config = format!(
        r#"version = 3
root = "{root}"
state = "{state}"
# Not needed, and these plugins would access devices and files of the host.
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{TESTKIT}"

[plugins."io.containerd.cri.v1.runtime"]
  # Containers inherit the OOM score if this process may not lower it.
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{networks}"
"#,
        root = file("data/containerd"),
        state = file("data/containerd-state"),
        socket = socket(directory),
        runc = runc.display(),
        plugins = tools.directory().display(),
        networks = networks.display(),
    );
    write(&directory.join("containerd.toml"), &config)?;
    let network = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": network::BRIDGE,
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": file("addresses"),
                "ranges": [[{"subnet": network::PODS, "gateway": network::NODE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    write(&networks.join("10-pods.conflist"), &network.to_string())?;
    let path = std::env::var("PATH").unwrap_or_default();
    Ok(ProcessSpec::new("containerd", tools.program("containerd"), directory.join("containerd.log"))
        .arguments(["--config", &file("containerd.toml")])
        // containerd finds its shim on PATH.
        .variable("PATH", format!("{}:{path}", tools.directory().display())))
}

fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn scheduler(tools: &Tools, control_plane: &ControlPlane, directory: &Path) -> Result<ProcessSpec> {
    let kubeconfig = directory.join("scheduler.kubeconfig");
    control_plane.write_user_kubeconfig("system:kube-scheduler", None, &kubeconfig)?;
    Ok(ProcessSpec::new("kube-scheduler", tools.program("kube-scheduler"), directory.join("scheduler.log"))
        .arguments(["--kubeconfig", &kubeconfig.to_string_lossy()])
        .arguments(["--leader-elect=false", "--secure-port=0"]))
}

fn kubelet(
    tools: &Tools,
    control_plane: &ControlPlane,
    directory: &Path,
    isolation: &HostIsolation,
) -> Result<ProcessSpec> {
    let file = |name: &str| directory.join(name).display().to_string();
    let kubeconfig = directory.join("kubelet.kubeconfig");
    control_plane.write_user_kubeconfig(&format!("system:node:{NAME}"), Some("system:nodes"), &kubeconfig)?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", socket(directory)),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": isolation.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "podLogsDir": file("pod-logs"),
        "volumePluginDir": file("volume-plugins"),
        // Disk pressure is not tested.
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        // Updates Secret volumes within two seconds instead of up to two minutes.
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "syncFrequency": "1s",
        // For `kubectl logs`. The port is reachable only within the network namespace.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
    });
    write(&directory.join("kubelet.json"), &config.to_string())?;
    Ok(ProcessSpec::new("kubelet", tools.program("kubelet"), directory.join("kubelet.log"))
        .arguments(["--config", &file("kubelet.json"), "--kubeconfig", &kubeconfig.to_string_lossy()])
        .arguments(["--hostname-override", NAME, "--node-ip", network::NODE])
        .arguments(["--root-dir", &file("data/kubelet"), "--cert-dir", &file("kubelet-certificates")]))
}
