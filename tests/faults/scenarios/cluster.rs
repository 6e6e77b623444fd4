//! Changes to the cluster around the resources.

use std::time::Duration;

use awsdeploy::api::{ConditionType, Reason};
use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde_json::json;

use super::{Harness, plain};
use crate::{
    operation::{RECOVERY, wait_settled},
    test_env::eventually,
};

/// Enough to notice a write per resource, few enough for a laptop.
const MANY: usize = 40;

pub(super) async fn namespace_deletion_deletes_its_users() {
    let (harness, _) = Harness::with_published_key().await;
    let namespaces: Api<Namespace> = Api::all(harness.env.client.clone());
    let namespace = namespaces.get(&harness.env.namespace).await.expect("the namespace");
    namespaces.delete(&harness.env.namespace, &DeleteParams::default()).await.expect("the namespace is deleted");
    let uid = namespace.metadata.uid.expect("a UID");
    let deleted = await_condition(namespaces, &harness.env.namespace, is_deleted(&uid));
    tokio::time::timeout(2 * RECOVERY, deleted).await.expect("in time").expect("the namespace is deleted");
    assert!(harness.env.iam_opt("u").await.is_none(), "the IAM user is deleted");
    harness.assert_invariants(0).await;
}

pub(super) async fn deletion_waits_for_the_operator() {
    let (mut harness, key) = Harness::with_published_key().await;
    harness.env.operator.kill().await;
    harness.env.delete("x").await;
    let user = harness.env.user("x").await;
    assert!(user.metadata.deletion_timestamp.is_some(), "its finalizer keeps it");
    assert!(harness.env.account.accepts(&key), "nothing is deleted meanwhile");
    harness.env.operator.restart().await.expect("the operator restarts");
    harness.env.wait_deleted("x").await;
    assert!(harness.env.iam_opt("u").await.is_none(), "the IAM user is deleted");
    harness.assert_invariants(0).await;
}

pub(super) async fn restored_etcd_backup_gets_a_new_key() {
    let (mut harness, first) = Harness::with_published_key().await;
    let backup: Secret = harness.env.secrets().get("x").await.expect("the Secret");
    let status = harness.env.user("x").await.status;
    harness.rotate("now").await;
    let second = wait_settled(&harness.env, &first).await;
    assert!(!harness.env.account.accepts(&first), "the key of the backup is deleted");
    // The restored etcd: an old Secret, an old status, and no record of the request.
    harness.env.operator.kill().await;
    harness.auditor.expect_key_failure(&first);
    harness.auditor.expect_key_failure(&second);
    let mut now: Secret = harness.env.secrets().get("x").await.expect("the Secret");
    now.data = backup.data;
    now.metadata.annotations = backup.metadata.annotations;
    harness.env.secrets().replace("x", &PostParams::default(), &now).await.expect("the backup is restored");
    let mut user = harness.env.user("x").await;
    user.status = status;
    user.metadata.annotations = None;
    let user = harness.env.users().replace("x", &PostParams::default(), &user).await.expect("an old resource");
    let params = PostParams::default();
    harness.env.users().replace_status("x", &params, &user).await.expect("an old status");
    harness.env.operator.restart().await.expect("the operator restarts");
    let third = wait_settled(&harness.env, &first).await;
    assert_ne!(third, second, "its secret was lost, so it is replaced");
    harness.assert_invariants_and_idle(0).await;
}

pub(super) async fn cloned_cluster_with_its_own_id_writes_nothing() {
    let (harness, key) = Harness::with_published_key().await;
    harness.env.operator.kill().await;
    let position = harness.env.aws.log().position();
    // The same objects with the same UIDs, in a cluster with its own cluster id.
    let clone = harness.env.start_another_operator_with("clone", &["--cluster-id=the-copy"]).await;
    harness.env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    harness.rotate("in the clone").await;
    let reads_user = |call: &awsdeploy_testkit::aws_proxy::CallRecord| call.action == "GetUser";
    for _ in 0..3 {
        let from = harness.env.aws.log().position();
        harness.env.aws.log().wait_since(from, "a read", RECOVERY, reads_user).await.expect("the clone reads");
    }
    assert!(harness.env.aws.log().mutating_calls_since(position).is_empty(), "the clone writes nothing");
    assert!(harness.env.account.accepts(&key), "the key of the original works");
    clone.kill().await;
    harness.assert_invariants(0).await;
}

pub(super) async fn restart_with_many_resources_writes_nothing() {
    let mut harness = Harness::start().await;
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number:02}")).collect();
    let spec = |name: &str| {
        let mut spec = plain();
        spec["userName"] = json!(name);
        spec
    };
    join_all(names.iter().map(|name| harness.env.apply(name, spec(name)))).await;
    for name in &names {
        harness.env.wait_ready(name).await;
        harness.env.wait_journal_deleted(name).await;
    }
    let violations = harness.auditor.check_idle(RECOVERY).await;
    assert!(violations.is_empty(), "{violations:#?}");
    let (aws, kube) = (harness.env.aws.log().position(), harness.kube.log().position());
    harness.env.operator.restart().await.expect("the operator restarts");
    let seen = async || {
        let line = r#"awsdeploy_reconciles_total{result="ok"}"#;
        (harness.env.metric_count(line).await >= MANY as u64).then_some(())
    };
    eventually("each is reconciled", seen, || harness.env.log()).await;
    assert!(harness.env.aws.log().mutating_calls_since(aws).is_empty(), "nothing is written in AWS");
    let written: Vec<_> =
        harness.kube.log().mutating_since(kube).into_iter().filter(|call| call.resource != "leases").collect();
    assert!(written.is_empty(), "nothing is written in Kubernetes: {written:#?}");
    harness.assert_invariants(0).await;
}

/// Deletes the resources of all namespaces, so it must run last.
pub(super) async fn crd_deletion_deletes_all_users() {
    let (harness, first) = Harness::with_published_key().await;
    let crds: Api<CustomResourceDefinition> = Api::all(harness.env.client.clone());
    let name = "awsdeployusers.awsdeploy.dev";
    let crd = crds.get(name).await.expect("the CRD");
    // Resources of other runs have no operator that removes their finalizers.
    let everywhere: Api<awsdeploy::api::AwsDeployUser> = Api::all(harness.env.client.clone());
    for user in everywhere.list(&ListParams::default()).await.expect("the resources") {
        let namespace = user.metadata.namespace.clone().expect("a namespace");
        if namespace != harness.env.namespace {
            let there: Api<awsdeploy::api::AwsDeployUser> = Api::namespaced(harness.env.client.clone(), &namespace);
            let mut user = user;
            user.metadata.finalizers = None;
            let name = user.metadata.name.clone().expect("a name");
            there.replace(&name, &PostParams::default(), &user).await.expect("the finalizers are removed");
        }
    }
    crds.delete(name, &DeleteParams::default()).await.expect("the CRD is deleted");
    let uid = crd.metadata.uid.clone().expect("a UID");
    let deleted = await_condition(crds.clone(), name, is_deleted(&uid));
    tokio::time::timeout(2 * RECOVERY, deleted).await.expect("in time").expect("the CRD is deleted");
    assert!(harness.env.iam_opt("u").await.is_none(), "the IAM user is deleted");
    let exit = harness.env.operator.process().exit_status();
    assert!(exit.is_none(), "the operator runs: {exit:?}");
    // The operator resumes without a restart when the CRD is back.
    let mut again = crd;
    again.metadata.resource_version = None;
    again.metadata.uid = None;
    again.status = None;
    crds.create(&PostParams::default(), &again).await.expect("the CRD is back");
    let served = async || harness.env.users().list(&ListParams::default()).await.is_ok().then_some(());
    eventually("the kind is served", served, || harness.env.log()).await;
    harness.env.apply("x", plain()).await;
    // The operator lists the kind again only after the back-off of its watch.
    let another = |secret: Option<&Secret>| {
        let data = secret.and_then(|secret| secret.data.as_ref());
        data.and_then(|data| data.get("AWS_ACCESS_KEY_ID")).is_some_and(|id| id.0 != first.as_bytes())
    };
    let published = await_condition(harness.env.secrets(), "x", another);
    tokio::time::timeout(2 * RECOVERY, published).await.expect("in time").expect("another key is published");
    tokio::time::timeout(2 * RECOVERY + Duration::from_secs(1), wait_settled(&harness.env, "")).await.expect("in time");
}
