//! The operations during which faults are injected.

use std::time::Duration;

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{
    auditor::Auditor,
    aws_proxy::{Call, PolicySnapshot},
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::test_env::{TestEnv, eventually};

/// Limit for recovery; includes back-offs of half a minute.
pub(crate) const RECOVERY: Duration = Duration::from_mins(1);

const WORKLOAD: &str = "web";

/// Formats whose parts must belong to one key, so that the auditor can compare them.
const FORMATS: [&str; 4] = ["Environment", "CredentialsFile", "Csv", "ProcessJson"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Creation,
    Adoption,
    Rotation,
    Restart,
    DeletedSecret,
    EditedSecret,
    MissingFile,
    DeletedKey,
    PolicyChange,
    NewDocument,
    EditedDocument,
    RemovedDocument,
    DeletionWithDocument,
    Revocation,
    Deletion,
    Retention,
}

impl Operation {
    pub(crate) const ALL: [Self; 16] = [
        Self::Creation,
        Self::Adoption,
        Self::Rotation,
        Self::Restart,
        Self::DeletedSecret,
        Self::EditedSecret,
        Self::MissingFile,
        Self::DeletedKey,
        Self::PolicyChange,
        Self::NewDocument,
        Self::EditedDocument,
        Self::RemovedDocument,
        Self::DeletionWithDocument,
        Self::Revocation,
        Self::Deletion,
        Self::Retention,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Adoption => "adoption",
            Self::Rotation => "rotation",
            Self::Restart => "restart",
            Self::DeletedSecret => "deleted-secret",
            Self::EditedSecret => "edited-secret",
            Self::MissingFile => "missing-file",
            Self::DeletedKey => "deleted-key",
            Self::PolicyChange => "policy-change",
            Self::NewDocument => "new-document",
            Self::EditedDocument => "edited-document",
            Self::RemovedDocument => "removed-document",
            Self::DeletionWithDocument => "deletion-with-document",
            Self::Revocation => "revocation",
            Self::Deletion => "deletion",
            Self::Retention => "retention",
        }
    }

    pub(crate) fn is_short(self) -> bool {
        matches!(self, Self::Creation | Self::Rotation)
    }

    /// Whether a consumer can use the published key throughout.
    pub(crate) fn has_a_working_key_throughout(self) -> bool {
        matches!(
            self,
            Self::Rotation
                | Self::Restart
                | Self::DeletedSecret
                | Self::MissingFile
                | Self::PolicyChange
                | Self::NewDocument
                | Self::EditedDocument
                | Self::RemovedDocument
                | Self::Retention
        )
    }

    fn spec(self) -> Value {
        let policy = if self == Self::Retention { "Retain" } else { "Delete" };
        let restart = if self == Self::Restart { json!([{"kind": "Deployment", "name": WORKLOAD}]) } else { json!([]) };
        json!({
            "userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]}, "tags": {"team": "payments"},
            "deletionPolicy": policy, "adoption": if self == Self::Adoption { "IfTagged" } else { "Never" },
            "accessKey": {"description": "a hub", "secret": {"formats": FORMATS}, "restart": restart,
                "rotation": {"every": "Never", "overlap": "1s"}},
        })
    }

    /// The spec with a managed policy for a document that allows this action.
    fn spec_with_document(self, action: &str) -> Value {
        let mut spec = self.spec();
        spec["policies"]["documents"] = json!([{"name": "state", "as": "Managed", "document": document(action)}]);
        spec
    }

    /// Sets up the initial state. Returns the id of the key published in it.
    pub(crate) async fn prepare(self, env: &TestEnv) -> String {
        if self == Self::Creation {
            return String::new();
        }
        if self == Self::Adoption {
            return create_unmanaged_user(env).await;
        }
        if self == Self::Restart {
            env.grant_restarts().await;
            create_workload(env).await;
        }
        let has_document = matches!(self, Self::EditedDocument | Self::RemovedDocument | Self::DeletionWithDocument);
        let spec = if has_document { self.spec_with_document("s3:GetObject") } else { self.spec() };
        env.apply("x", spec).await;
        wait_settled(env, "").await
    }

    /// Starts the operation.
    pub(crate) async fn start(self, env: &TestEnv, key: &str, auditor: &Auditor) {
        match self {
            Self::Creation | Self::RemovedDocument => drop(env.apply("x", self.spec()).await),
            Self::Adoption => {
                auditor.allow_adoption("u");
                env.apply("x", self.spec()).await;
            }
            Self::Rotation | Self::Restart => {
                env.annotate("x", "awsdeploy.dev/rotate", &format!("away from {key}")).await;
            }
            Self::DeletedSecret => {
                auditor.expect_key_failure(key);
                env.secrets().delete("x", &kube::api::DeleteParams::default()).await.expect("the Secret is deleted");
            }
            Self::EditedSecret => {
                auditor.expect_key_failure(key);
                let copies = ["AWS_SECRET_ACCESS_KEY", "credentials", "accessKeys.csv", "credentials.json"];
                let edited: Value = copies.iter().map(|name| ((*name).to_owned(), json!("edited manually"))).collect();
                patch_secret(env, json!({"stringData": edited})).await;
            }
            Self::MissingFile => patch_secret(env, json!({"data": {"config": null}})).await,
            Self::DeletedKey => {
                auditor.expect_key_failure(key);
                env.aws.manual_changes().delete_key("u", key).await.expect("the key is deleted manually");
            }
            Self::PolicyChange => {
                let mut spec = self.spec();
                spec["policies"] = json!({
                    "managed": ["ReadOnlyAccess"],
                    "documents": [{"name": "state", "document": {"Version": "2012-10-17", "Statement": [
                        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::state/*"}]}}],
                });
                spec["tags"] = json!({"stage": "test"});
                env.apply("x", spec).await;
            }
            Self::NewDocument => drop(env.apply("x", self.spec_with_document("s3:GetObject")).await),
            Self::EditedDocument => drop(env.apply("x", self.spec_with_document("s3:PutObject")).await),
            Self::Revocation => {
                let mut spec = self.spec();
                spec["credentials"] = json!("Revoked");
                env.apply("x", spec).await;
            }
            Self::Deletion | Self::DeletionWithDocument | Self::Retention => env.delete("x").await,
        }
    }

    /// Waits until the operation is complete.
    pub(crate) async fn end(self, env: &TestEnv, key: &str) {
        match self {
            Self::Creation => drop(wait_settled(env, "").await),
            Self::Adoption => wait_adopted(env, key).await,
            Self::Restart => wait_restarted(env, key).await,
            Self::Rotation | Self::DeletedSecret | Self::EditedSecret | Self::DeletedKey => {
                drop(wait_settled(env, key).await);
            }
            Self::MissingFile => {
                let probe = async || env.secret_data("x").await?.contains_key("config").then_some(());
                eventually("the file is restored", probe, || env.log()).await;
                assert_eq!(wait_settled(env, "").await, key, "a lost file costs no key");
            }
            Self::PolicyChange => {
                assert_eq!(wait_settled(env, "").await, key, "a policy costs no key");
                let wanted = |user: &awsdeploy_testkit::aws_proxy::UserSnapshot| {
                    user.attached.len() == 1
                        && user.attached.iter().all(|arn| arn.ends_with("/ReadOnlyAccess"))
                        && user.inline.contains_key("state")
                        && user.tags.contains_key("stage")
                        && !user.tags.contains_key("team")
                };
                env.wait_for_iam("u", "as declared", wanted).await;
            }
            Self::NewDocument | Self::EditedDocument => {
                assert_eq!(wait_settled(env, "").await, key, "a document costs no key");
                let (action, versions) =
                    if self == Self::NewDocument { ("s3:GetObject", 1) } else { ("s3:PutObject", 2) };
                let probe = async || {
                    let policies = policies(env).await;
                    let is_declared = |policy: &PolicySnapshot| {
                        policy.document() == Some(&document(action))
                            && policy.attachment_count == 1
                            && policy.versions.len() == versions
                    };
                    (policies.len() == 1 && policies.iter().all(is_declared)).then_some(())
                };
                eventually("the policy is as declared", probe, || env.log()).await;
            }
            Self::RemovedDocument => {
                assert_eq!(wait_settled(env, "").await, key, "a document costs no key");
                let probe = async || policies(env).await.is_empty().then_some(());
                eventually("the policy is deleted", probe, || env.log()).await;
            }
            Self::DeletionWithDocument => {
                env.wait_deleted("x").await;
                assert!(env.iam_opt("u").await.is_none(), "the IAM user is deleted");
                assert_eq!(policies(env).await, [], "its policies are deleted");
            }
            Self::Revocation => {
                env.wait_for_iam("u", "without an Active key", |user| user.active_keys().is_empty()).await;
                let reason = Some(awsdeploy::api::Reason::CredentialsRevoked);
                env.wait_for_condition("x", ConditionType::KeyPublished, "False", reason).await;
            }
            Self::Deletion => {
                env.wait_deleted("x").await;
                assert!(env.iam_opt("u").await.is_none(), "the IAM user is deleted");
                let probe = async || env.secret_data("x").await.is_none().then_some(());
                eventually("the Secret is deleted", probe, || env.log()).await;
                env.wait_journal_deleted("x").await;
            }
            Self::Retention => {
                env.wait_deleted("x").await;
                let user = env.iam("u").await;
                let tags: Vec<_> = user.tags.keys().filter(|tag| tag.starts_with("awsdeploy.dev/")).collect();
                assert!(tags.is_empty(), "all ownership tags are removed: {tags:?}");
                assert_eq!(user.active_keys(), [key], "the key is kept");
                assert_eq!(env.published_key("x").await, key, "the Secret is kept");
            }
        }
    }

    /// Whether the resource exists at the end, so that the auditor can check that it is idle.
    pub(crate) fn keeps_the_resource(self) -> bool {
        !matches!(self, Self::Deletion | Self::DeletionWithDocument | Self::Retention)
    }
}

fn document(action: &str) -> Value {
    let statement = json!({"Effect": "Allow", "Action": action, "Resource": "arn:aws:s3:::state/*"});
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

/// The managed policies of the documents of the user.
async fn policies(env: &TestEnv) -> Vec<PolicySnapshot> {
    env.inspector().policies("/awsdeploy/u/").await.expect("policies")
}

/// Creates an unmanaged user with a policy, a key and the consent tag for `x`. Returns the id of the key.
async fn create_unmanaged_user(env: &TestEnv) -> String {
    let manual_changes = env.aws.manual_changes();
    let consent = format!("faults/{}/x", env.namespace);
    let create = Call::iam("CreateUser").with("UserName", "u").with("Path", "/awsdeploy/");
    let create = create.with_tags([("awsdeploy.dev/adoptable-by", consent.as_str())]);
    manual_changes.call(&create).await.expect("an unmanaged user");
    manual_changes.attach("u", "arn:aws:iam::aws:policy/ReadOnlyAccess").await.expect("a policy");
    manual_changes.create_key("u").await.expect("a key").id
}

/// Waits until the user is adopted and has a published key beside its own one.
async fn wait_adopted(env: &TestEnv, theirs: &str) {
    env.wait_ready("x").await;
    let probe = async || {
        let published = env.secret_data("x").await?.get("AWS_ACCESS_KEY_ID")?.clone();
        let user = env.iam_opt("u").await?;
        let keys = user.keys.len() == 2 && user.active_keys().contains(&theirs) && user.key(&published).is_some();
        let tagged = user.tags.contains_key(&format!("awsdeploy.dev/key/{published}"));
        let used_up = !user.tags.contains_key("awsdeploy.dev/adoptable-by");
        let policy = user.attached.len() == 1 && user.attached.iter().all(|arn| arn.ends_with("/AmazonEC2FullAccess"));
        let closed = env.journal("x").await.is_none();
        let reported = env.user("x").await.status?.access_keys.len() == 2;
        (keys && tagged && used_up && policy && closed && reported).then_some(())
    };
    let context = || format!("{}\n{}", env.aws.log().transcript(), env.log());
    eventually("the user is adopted and its own key kept", probe, context).await;
}

/// Creates a Deployment of zero replicas: there is no kubelet, and it is rolled out as soon as it is observed.
async fn create_workload(env: &TestEnv) {
    let (labels, pod) = (json!({"app": WORKLOAD}), json!({"containers": [{"name": "c", "image": "uploader"}]}));
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": WORKLOAD},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }));
    let deployment = deployment.expect("a Deployment");
    deployments(env).create(&kube::api::PostParams::default(), &deployment).await.expect("the Deployment is created");
}

fn deployments(env: &TestEnv) -> kube::Api<Deployment> {
    kube::Api::namespaced(env.client.clone(), &env.namespace)
}

/// Waits until another key is published and the workload was restarted for it, once.
async fn wait_restarted(env: &TestEnv, other_than: &str) {
    let key = wait_settled(env, other_than).await;
    let probe = async || {
        let secret = env.secrets().get("x").await.ok()?;
        (!secret.annotations().contains_key("awsdeploy.dev/restarts")).then_some(())
    };
    eventually("no restart is pending", probe, || env.log()).await;
    let deployment = deployments(env).get(WORKLOAD).await.expect("the Deployment is there");
    let template = deployment.spec.and_then(|spec| spec.template.metadata).and_then(|metadata| metadata.annotations);
    assert_eq!(template.unwrap_or_default().get("key.awsdeploy.dev/x"), Some(&key), "restarted for the new key");
    assert_eq!(deployment.metadata.generation, Some(2), "exactly once");
}

async fn patch_secret(env: &TestEnv, patch: Value) {
    let params = kube::api::PatchParams::default();
    env.secrets().patch("x", &params, &kube::api::Patch::Merge(&patch)).await.expect("the Secret is edited");
}

/// Waits until another key is the only one, published and tagged, without a journal. Returns its id.
pub(crate) async fn wait_settled(env: &TestEnv, other_than: &str) -> String {
    env.wait_published("x", other_than).await;
    env.wait_ready("x").await;
    env.wait_for_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let probe = async || {
        let published = env.published_key("x").await;
        let user = env.iam_opt("u").await?;
        let only = user.keys.len() == 1 && user.active_keys() == [published.as_str()];
        let tagged = user.tags.contains_key(&format!("awsdeploy.dev/key/{published}"));
        let closed = env.journal("x").await.is_none();
        // The status is written last.
        let status = env.user("x").await.status?;
        let reported = status.access_keys.len() == 1 && status.access_keys[0].id == published;
        (only && tagged && closed && reported && published != other_than).then_some(published)
    };
    let context = || format!("{}\n{}", env.aws.log().transcript(), env.log());
    eventually("one key, published and tagged, and no journal", probe, context).await
}
