//! What happens to the cluster around the resources.

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

use super::{Play, plain};
use crate::{
    operation::{RECOVERY, settled},
    test_env::eventually,
};

/// How many resources count as many here: enough to see a write per resource, few enough for a laptop.
const MANY: usize = 40;

pub(super) async fn namespace_deletion_deletes_its_users() {
    let (play, _) = Play::with_a_key().await;
    let namespaces: Api<Namespace> = Api::all(play.env.client.clone());
    let namespace = namespaces.get(&play.env.namespace).await.expect("the namespace");
    namespaces.delete(&play.env.namespace, &DeleteParams::default()).await.expect("the namespace is deleted");
    let uid = namespace.metadata.uid.expect("a UID");
    let gone = await_condition(namespaces, &play.env.namespace, is_deleted(&uid));
    tokio::time::timeout(2 * RECOVERY, gone).await.expect("in time").expect("the namespace is gone");
    assert!(play.env.iam_opt("u").await.is_none(), "the IAM user is gone");
    play.held(0).await;
}

pub(super) async fn deletion_waits_for_the_operator() {
    let (mut play, key) = Play::with_a_key().await;
    play.env.operator.kill().await;
    play.env.delete("x").await;
    let user = play.env.user("x").await;
    assert!(user.metadata.deletion_timestamp.is_some(), "its finalizer keeps it");
    assert!(play.env.account.accepts(&key), "nothing is half deleted");
    play.env.operator.restart().await.expect("the operator comes back");
    play.env.gone("x").await;
    assert!(play.env.iam_opt("u").await.is_none(), "the IAM user is gone");
    play.held(0).await;
}

pub(super) async fn restored_etcd_backup_gets_a_new_key() {
    let (mut play, first) = Play::with_a_key().await;
    let backup: Secret = play.env.secrets().get("x").await.expect("the Secret");
    let status = play.env.user("x").await.status;
    play.rotate("now").await;
    let second = settled(&play.env, &first).await;
    assert!(!play.env.account.accepts(&first), "the key of the backup is gone");
    // etcd of before: an old Secret, an old status, and a request that nobody remembers.
    play.env.operator.kill().await;
    play.auditor.expect_key_failure(&first);
    play.auditor.expect_key_failure(&second);
    let mut now: Secret = play.env.secrets().get("x").await.expect("the Secret");
    now.data = backup.data;
    now.metadata.annotations = backup.metadata.annotations;
    play.env.secrets().replace("x", &PostParams::default(), &now).await.expect("the backup is put back");
    let mut user = play.env.user("x").await;
    user.status = status;
    user.metadata.annotations = None;
    let user = play.env.users().replace("x", &PostParams::default(), &user).await.expect("an old resource");
    let params = PostParams::default();
    play.env.users().replace_status("x", &params, &user).await.expect("an old status");
    play.env.operator.restart().await.expect("the operator comes back");
    let third = settled(&play.env, &first).await;
    assert_ne!(third, second, "its value was lost with the Secret, so it makes room for another");
    play.holds(0).await;
}

pub(super) async fn cloned_cluster_with_its_own_id_writes_nothing() {
    let (play, key) = Play::with_a_key().await;
    play.env.operator.kill().await;
    let mark = play.env.aws.log().position();
    // The same objects with the same UIDs, in a cluster that knows that it is a copy.
    let clone = play.env.another_operator_with("clone", &["--cluster-id=the-copy"]).await;
    play.env.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    play.rotate("in the copy").await;
    let asked = |call: &awsdeploy_testkit::aws_proxy::CallRecord| call.action == "GetUser";
    for _ in 0..3 {
        let from = play.env.aws.log().position();
        play.env.aws.log().wait_since(from, "a look", RECOVERY, asked).await.expect("the clone looks");
    }
    assert!(play.env.aws.log().mutating_calls_since(mark).is_empty(), "the copy writes nothing");
    assert!(play.env.account.accepts(&key), "the key of the original works");
    clone.kill().await;
    play.held(0).await;
}

pub(super) async fn restart_with_many_resources_writes_nothing() {
    let mut play = Play::set().await;
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number:02}")).collect();
    let spec = |name: &str| {
        let mut spec = plain();
        spec["userName"] = json!(name);
        spec
    };
    join_all(names.iter().map(|name| play.env.apply(name, spec(name)))).await;
    for name in &names {
        play.env.ready(name).await;
        let closed = async || play.env.secret(&format!("{name}.awsdeploy-journal")).await.is_none().then_some(());
        eventually("the attempt is closed", closed, || play.env.log()).await;
    }
    let quiet = play.auditor.check_idle(RECOVERY).await;
    assert!(quiet.is_empty(), "{quiet:#?}");
    let (aws, kube) = (play.env.aws.log().position(), play.kube.log().position());
    play.env.operator.restart().await.expect("the operator comes back");
    let seen = async || {
        let line = r#"awsdeploy_reconciles_total{result="ok"}"#;
        (play.env.count(line).await >= MANY as u64).then_some(())
    };
    eventually("each was looked at", seen, || play.env.log()).await;
    assert!(play.env.aws.log().mutating_calls_since(aws).is_empty(), "nothing is written in AWS");
    let written: Vec<_> =
        play.kube.log().mutating_since(kube).into_iter().filter(|call| call.resource != "leases").collect();
    assert!(written.is_empty(), "nothing is written in Kubernetes: {written:#?}");
    play.held(0).await;
}

/// Every namespace of this program loses its resources: nothing may run after it.
pub(super) async fn crd_deletion_deletes_all_users() {
    let (play, first) = Play::with_a_key().await;
    let crds: Api<CustomResourceDefinition> = Api::all(play.env.client.clone());
    let name = "awsdeployusers.awsdeploy.dev";
    let crd = crds.get(name).await.expect("the CRD");
    // What other runs have left has no operator any more that would let it go.
    let everywhere: Api<awsdeploy::api::AwsDeployUser> = Api::all(play.env.client.clone());
    for user in everywhere.list(&ListParams::default()).await.expect("the resources") {
        let namespace = user.metadata.namespace.clone().expect("a namespace");
        if namespace != play.env.namespace {
            let there: Api<awsdeploy::api::AwsDeployUser> = Api::namespaced(play.env.client.clone(), &namespace);
            let mut user = user;
            user.metadata.finalizers = None;
            let name = user.metadata.name.clone().expect("a name");
            there.replace(&name, &PostParams::default(), &user).await.expect("it is let go");
        }
    }
    crds.delete(name, &DeleteParams::default()).await.expect("the CRD is deleted");
    let uid = crd.metadata.uid.clone().expect("a UID");
    let gone = await_condition(crds.clone(), name, is_deleted(&uid));
    tokio::time::timeout(2 * RECOVERY, gone).await.expect("in time").expect("the CRD is gone");
    assert!(play.env.iam_opt("u").await.is_none(), "the IAM user is gone");
    let exit = play.env.operator.process().exit_status();
    assert!(exit.is_none(), "the operator lives: {exit:?}");
    // It is installed again, and the operator takes it up without a restart.
    let mut again = crd;
    again.metadata.resource_version = None;
    again.metadata.uid = None;
    again.status = None;
    crds.create(&PostParams::default(), &again).await.expect("the CRD is back");
    let served = async || play.env.users().list(&ListParams::default()).await.is_ok().then_some(());
    eventually("the kind is served", served, || play.env.log()).await;
    play.env.apply("x", plain()).await;
    // The operator lists the kind again only after a pause of its watch.
    let another = |secret: Option<&Secret>| {
        let data = secret.and_then(|secret| secret.data.as_ref());
        data.and_then(|data| data.get("AWS_ACCESS_KEY_ID")).is_some_and(|id| id.0 != first.as_bytes())
    };
    let published = await_condition(play.env.secrets(), "x", another);
    tokio::time::timeout(2 * RECOVERY, published).await.expect("in time").expect("another key is published");
    tokio::time::timeout(2 * RECOVERY + Duration::from_secs(1), settled(&play.env, "")).await.expect("in time");
}
