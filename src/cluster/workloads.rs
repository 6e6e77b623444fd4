//! Workloads that are restarted for a new key: read by name, restarted by one annotation of their pod template.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::PodTemplateSpec,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::ClusterError;
use crate::{
    api::{
        MANAGER,
        user::{RestartTarget, WorkloadKind},
    },
    domain::restart::{self, RolloutCounts, Workload},
};

/// Workloads of one namespace, for one resource.
pub struct Workloads {
    client: Client,
    namespace: String,
    annotation: String,
}

/// A workload at the time it was read.
pub struct WorkloadSnapshot {
    resource_version: Option<String>,
    /// What the planner needs of it.
    pub workload: Workload,
}

impl Workloads {
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), annotation: restart::pod_template_annotation(name) }
    }

    /// Reads a workload from the API server. `None` only when the API server responds 404.
    pub async fn get(&self, target: &RestartTarget) -> Result<Option<WorkloadSnapshot>, ClusterError> {
        match target.kind {
            WorkloadKind::Deployment => self.get_as::<Deployment>(target).await,
            WorkloadKind::StatefulSet => self.get_as::<StatefulSet>(target).await,
            WorkloadKind::DaemonSet => self.get_as::<DaemonSet>(target).await,
        }
    }

    /// Starts a rollout by setting the annotation to the key id; the same key id starts no second one. `Conflict` if the
    /// workload changed since it was read.
    pub async fn restart(
        &self,
        target: &RestartTarget,
        read: &WorkloadSnapshot,
        key_id: &str,
    ) -> Result<WorkloadSnapshot, ClusterError> {
        match target.kind {
            WorkloadKind::Deployment => self.restart_as::<Deployment>(target, read, key_id).await,
            WorkloadKind::StatefulSet => self.restart_as::<StatefulSet>(target, read, key_id).await,
            WorkloadKind::DaemonSet => self.restart_as::<DaemonSet>(target, read, key_id).await,
        }
    }

    async fn get_as<K: RolloutKind>(&self, target: &RestartTarget) -> Result<Option<WorkloadSnapshot>, ClusterError> {
        let found = self.api::<K>().get_opt(&target.name).await.map_err(|error| self.error("get", target, &error))?;
        Ok(found.map(|found| self.read(&found)))
    }

    async fn restart_as<K: RolloutKind>(
        &self,
        target: &RestartTarget,
        read: &WorkloadSnapshot,
        key_id: &str,
    ) -> Result<WorkloadSnapshot, ClusterError> {
        let patch = json!({
            "metadata": {"resourceVersion": read.resource_version},
            "spec": {"template": {"metadata": {"annotations": {&self.annotation: key_id}}}},
        });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let restarted = self.api::<K>().patch(&target.name, &params, &Patch::Merge(&patch)).await;
        restarted.map(|found| self.read(&found)).map_err(|error| self.error("restart", target, &error))
    }

    fn read<K: RolloutKind>(&self, found: &K) -> WorkloadSnapshot {
        let mut counts = found.rollout_counts();
        counts.generation = found.meta().generation.unwrap_or_default();
        let annotations = found.template().and_then(|template| template.metadata.as_ref()?.annotations.as_ref());
        WorkloadSnapshot {
            resource_version: found.resource_version(),
            workload: Workload {
                restarted_for: annotations.and_then(|all: &BTreeMap<_, _>| all.get(&self.annotation)).cloned(),
                rollout: restart::evaluate_rollout(&counts),
            },
        }
    }

    fn api<K: RolloutKind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn error(&self, verb: &str, target: &RestartTarget, error: &kube::Error) -> ClusterError {
        ClusterError::new(format!("{verb} {} {}/{}", target.kind.as_str(), self.namespace, target.name), error)
    }
}

/// A kind with a pod template that its controller rolls out.
trait RolloutKind: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug {
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn rollout_counts(&self) -> RolloutCounts;
}

impl RolloutKind for Deployment {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn rollout_counts(&self) -> RolloutCounts {
        let (spec, status) = (self.spec.as_ref(), self.status.clone().unwrap_or_default());
        let exceeded = |reason: Option<&str>| reason == Some("ProgressDeadlineExceeded");
        RolloutCounts {
            observed_generation: status.observed_generation.unwrap_or_default(),
            desired: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            updated: status.updated_replicas.unwrap_or_default(),
            total: status.replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: status.terminating_replicas.unwrap_or_default(),
            paused: spec.and_then(|spec| spec.paused).unwrap_or_default(),
            deadline_exceeded: status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Progressing" && exceeded(condition.reason.as_deref())),
            ..RolloutCounts::default()
        }
    }
}

impl RolloutKind for StatefulSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn rollout_counts(&self) -> RolloutCounts {
        let (spec, status) = (self.spec.as_ref(), self.status.clone().unwrap_or_default());
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or_default();
        let on_delete = strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete"));
        RolloutCounts {
            observed_generation: status.observed_generation.unwrap_or_default(),
            desired: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            updated: status.updated_replicas.unwrap_or_default(),
            total: status.replicas,
            available: status.ready_replicas.unwrap_or_default(),
            manual_update: partition > 0 || on_delete,
            ..RolloutCounts::default()
        }
    }
}

impl RolloutKind for DaemonSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn rollout_counts(&self) -> RolloutCounts {
        let strategy = self.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let status = self.status.clone().unwrap_or_default();
        let updated = status.updated_number_scheduled.unwrap_or_default();
        RolloutCounts {
            observed_generation: status.observed_generation.unwrap_or_default(),
            desired: status.desired_number_scheduled,
            updated,
            // Pods on nodes that should run none are not part of `updated`; the DaemonSet controller deletes them.
            total: updated,
            available: status.number_available.unwrap_or_default(),
            manual_update: strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete")),
            ..RolloutCounts::default()
        }
    }
}
