//! Reads what is installed: the facts of the command `doctor`.

use std::fmt::Display;

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};

use super::error::{ClusterError, ClusterErrorKind};
use crate::{
    api::{AwsDeployUser, AwsDeployUserClass},
    domain::installation::{DeploymentFacts, InstallationFacts, PodFacts, TrialAnswer, class_readiness},
};

const GROUP_VERSION: &str = "awsdeploy.dev/v1alpha1";

/// The installation that is checked.
#[derive(Clone, Debug)]
pub struct InstallationNames {
    pub namespace: String,
    pub deployment: String,
    /// `None`: there is no leader election.
    pub lease: Option<String>,
    pub classes: Vec<String>,
}

/// Reads an installation. Stores nothing: the trial resource is a dry run.
pub async fn read_installation(client: &Client, names: &InstallationNames) -> InstallationFacts {
    let namespace = &names.namespace;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment =
        optional(deployments.get_opt(&names.deployment).await, "get Deployment", namespace, &names.deployment);
    let pods = match &deployment {
        Ok(Some(deployment)) => read_pods(client, namespace, deployment).await,
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(error.clone()),
    };
    let leader = match &names.lease {
        None => None,
        Some(lease) => Some(read_leader(client, namespace, lease).await),
    };
    let classes: Api<AwsDeployUserClass> = Api::all(client.clone());
    let listed = classes.list_metadata(&ListParams::default().limit(1)).await;
    let mut found = Vec::new();
    for name in &names.classes {
        let class = classes.get_opt(name).await.map_err(|error| described("get AwsDeployUserClass", name, &error));
        found.push((name.clone(), class.map(|class| class.as_ref().map(class_readiness))));
    }
    InstallationFacts {
        served: read_served(client).await,
        trial: try_resource(client, namespace).await,
        has_classes: listed
            .map(|list| !list.items.is_empty())
            .map_err(|error| ClusterError::from_list("AwsDeployUserClasses", &error).to_string()),
        deployment: deployment.map(|deployment| deployment.as_ref().map(rollout)),
        pods,
        leader,
        classes: found,
    }
}

fn described(action: &str, name: impl Display, error: &kube::Error) -> String {
    ClusterError::new(format!("{action} {name}"), error).to_string()
}

fn optional<T>(
    result: kube::Result<Option<T>>,
    action: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<T>, String> {
    result.map_err(|error| described(action, format!("{namespace}/{name}"), &error))
}

async fn read_served(client: &Client) -> Result<Vec<String>, String> {
    match client.list_api_group_resources(GROUP_VERSION).await {
        Ok(list) => Ok(list.resources.into_iter().map(|resource| resource.name).collect()),
        Err(error) => {
            let error = ClusterError::from_list(&format!("resources of {GROUP_VERSION}"), &error);
            if error.kind == ClusterErrorKind::NotFound { Ok(Vec::new()) } else { Err(error.to_string()) }
        }
    }
}

/// Any resource will do: admission is asked whether it can decide, not what.
async fn try_resource(client: &Client, namespace: &str) -> Result<TrialAnswer, String> {
    let users: Api<AwsDeployUser> = Api::namespaced(client.clone(), namespace);
    let mut trial = AwsDeployUser::default();
    trial.metadata.generate_name = Some("doctor-".to_owned());
    match users.create(&PostParams { dry_run: true, ..PostParams::default() }, &trial).await {
        Ok(_) => Ok(TrialAnswer::Accepted),
        Err(error) => {
            let error = ClusterError::new(format!("create AwsDeployUser in {namespace} (dry run)"), &error);
            match error.kind {
                ClusterErrorKind::Refused | ClusterErrorKind::Invalid => Ok(TrialAnswer::Refused(error.message)),
                _ => Err(error.to_string()),
            }
        }
    }
}

fn rollout(deployment: &Deployment) -> DeploymentFacts {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let observed = status.observed_generation == deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0).min(status.available_replicas.unwrap_or(0));
    DeploymentFacts { wanted, available: if observed { updated } else { 0 } }
}

async fn read_pods(client: &Client, namespace: &str, deployment: &Deployment) -> Result<Vec<PodFacts>, String> {
    let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let selector = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let listed = pods.list(&ListParams::default().labels(&selector)).await;
    let listed =
        listed.map_err(|error| ClusterError::from_list(&format!("Pods in {namespace}"), &error).to_string())?;
    Ok(listed.items.iter().map(facts).collect())
}

/// The kubelet cuts the name of a pod off after 63 characters, and gives a pod in the network of its node the hostname of that.
fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let node = spec.filter(|spec| spec.host_network == Some(true)).and_then(|spec| spec.node_name.clone());
    let name = pod.name_any();
    node.unwrap_or_else(|| name.get(..63).unwrap_or(&name).trim_end_matches(['-', '.']).to_owned())
}

fn facts(pod: &Pod) -> PodFacts {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.iter().flatten();
    let ready = conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let waiting = status.container_statuses.iter().flatten().filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        Some(waiting.message.as_ref().map_or(reason.to_owned(), |message| format!("{reason}: {message}")))
    });
    let unscheduled = conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let unscheduled =
        unscheduled.map(|condition| condition.message.clone().unwrap_or_else(|| "not scheduled".to_owned()));
    let problem = waiting.chain(unscheduled).next().filter(|_| !ready);
    PodFacts { name: pod.name_any(), host: hostname(pod), ready, problem }
}

async fn read_leader(client: &Client, namespace: &str, name: &str) -> Result<String, String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = optional(leases.get_opt(name).await, "get Lease", namespace, name)?;
    Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, spec: &serde_json::Value, status: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn pod_is_known_by_its_hostname() {
        let of = |name: &str, spec| facts(&pod(name, &spec, &json!({}))).host;
        let plain = json!({"containers": [], "nodeName": "n1"});
        assert_eq!(of("operator-7d9f-abcde", plain.clone()), "operator-7d9f-abcde");
        assert_eq!(of(&format!("{}-7d9f-abcde", "o".repeat(62)), plain), "o".repeat(62));
        assert_eq!(of("operator", json!({"containers": [], "nodeName": "n1", "hostNetwork": true})), "n1");
    }

    #[test]
    fn pod_that_is_not_ready_says_why() {
        let spec = json!({"containers": []});
        let of = |status| facts(&pod("p", &spec, &status));
        let pull = json!([{"name": "o", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]);
        assert_eq!(of(json!({"containerStatuses": pull})).problem.as_deref(), Some("ErrImagePull: not found"));
        let pending = json!([{"type": "PodScheduled", "status": "False", "message": "no nodes available"}]);
        assert_eq!(of(json!({"conditions": pending})).problem.as_deref(), Some("no nodes available"));
        let ready = of(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(ready.ready && ready.problem.is_none());
    }

    #[test]
    fn only_pods_of_the_latest_version_count() {
        let of = |observed: i64, updated: i32, available: i32| {
            let deployment = json!({
                "metadata": {"generation": 2}, "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": {"observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available},
            });
            rollout(&serde_json::from_value(deployment).unwrap()).available
        };
        assert_eq!((of(2, 1, 2), of(2, 0, 2), of(2, 2, 0), of(1, 2, 2)), (1, 0, 0, 0));
    }
}
