//! What happens while something goes wrong.

use std::time::Duration;

use awsdeploy::api::ConditionType;
use awsdeploy_testkit::{auditor::Auditor, aws_proxy::Call};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::test_env::{TestEnv, eventually};

/// How long a run may take to be well again; back-offs of half a minute are part of it.
pub(crate) const RECOVERY: Duration = Duration::from_mins(1);

/// The Deployment that is restarted.
const WORKLOAD: &str = "web";

/// Every form whose parts must be of one key, so that the auditor can compare them.
const FORMATS: [&str; 4] = ["Environment", "CredentialsFile", "Csv", "ProcessJson"];

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Creation,
    Adoption,
    Rotation,
    Restart,
    DeletedSecret,
    EditedSecret,
    LostFile,
    DeadKey,
    PolicyChange,
    Suspension,
    Deletion,
    Retention,
}

impl Operation {
    pub(crate) const ALL: [Self; 12] = [
        Self::Creation,
        Self::Adoption,
        Self::Rotation,
        Self::Restart,
        Self::DeletedSecret,
        Self::EditedSecret,
        Self::LostFile,
        Self::DeadKey,
        Self::PolicyChange,
        Self::Suspension,
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
            Self::LostFile => "lost-file",
            Self::DeadKey => "dead-key",
            Self::PolicyChange => "policy-change",
            Self::Suspension => "suspension",
            Self::Deletion => "deletion",
            Self::Retention => "retention",
        }
    }

    pub(crate) fn is_short(self) -> bool {
        matches!(self, Self::Creation | Self::Rotation)
    }

    /// Whether a pod may use the key all through it.
    pub(crate) fn has_a_working_key_throughout(self) -> bool {
        matches!(
            self,
            Self::Rotation
                | Self::Restart
                | Self::DeletedSecret
                | Self::LostFile
                | Self::PolicyChange
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

    /// Brings the world to where it begins. The id of the key published then.
    pub(crate) async fn prepare(self, env: &TestEnv) -> String {
        if self == Self::Creation {
            return String::new();
        }
        if self == Self::Adoption {
            return create_unmanaged_user(env).await;
        }
        if self == Self::Restart {
            env.grant_restarts().await;
            deploy(env).await;
        }
        env.apply("x", self.spec()).await;
        settled(env, "").await
    }

    /// What a person does.
    pub(crate) async fn begin(self, env: &TestEnv, key: &str, auditor: &Auditor) {
        match self {
            Self::Creation => drop(env.apply("x", self.spec()).await),
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
                edit(env, json!({"stringData": {"AWS_SECRET_ACCESS_KEY": "edited by hand"}})).await;
            }
            Self::LostFile => edit(env, json!({"data": {"config": null}})).await,
            Self::DeadKey => {
                auditor.expect_key_failure(key);
                env.aws.manual_changes().delete_key("u", key).await.expect("a person deletes the key");
            }
            Self::PolicyChange => {
                let mut spec = self.spec();
                spec["policies"] = json!({
                    "managed": ["ReadOnlyAccess"],
                    "inline": [{"name": "state", "document": {"Version": "2012-10-17", "Statement": [
                        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::state/*"}]}}],
                });
                spec["tags"] = json!({"stage": "test"});
                env.apply("x", spec).await;
            }
            Self::Suspension => {
                let mut spec = self.spec();
                spec["suspend"] = json!(true);
                env.apply("x", spec).await;
            }
            Self::Deletion | Self::Retention => env.delete("x").await,
        }
    }

    /// Waits until it is done and all is well.
    pub(crate) async fn end(self, env: &TestEnv, key: &str) {
        match self {
            Self::Creation => drop(settled(env, "").await),
            Self::Adoption => adopted(env, key).await,
            Self::Restart => restarted(env, key).await,
            Self::Rotation | Self::DeletedSecret | Self::EditedSecret | Self::DeadKey => {
                drop(settled(env, key).await);
            }
            Self::LostFile => {
                let probe = async || env.secret("x").await?.contains_key("config").then_some(());
                eventually("the file is back", probe, || env.log()).await;
                assert_eq!(settled(env, "").await, key, "a lost file costs no key");
            }
            Self::PolicyChange => {
                assert_eq!(settled(env, "").await, key, "a policy costs no key");
                let wanted = |user: &awsdeploy_testkit::aws_proxy::UserSnapshot| {
                    user.attached.len() == 1
                        && user.attached.iter().all(|arn| arn.ends_with("/ReadOnlyAccess"))
                        && user.inline.contains_key("state")
                        && user.tags.contains_key("stage")
                        && !user.tags.contains_key("team")
                };
                env.until_iam("u", "as declared", wanted).await;
            }
            Self::Suspension => {
                env.until_iam("u", "without an Active key", |user| user.active_keys().is_empty()).await;
                let told = Some(awsdeploy::api::Reason::Suspended);
                env.until_condition("x", ConditionType::KeyPublished, "False", told).await;
            }
            Self::Deletion => {
                env.gone("x").await;
                assert!(env.iam_opt("u").await.is_none(), "the IAM user is gone");
                for secret in ["x", "x.awsdeploy-journal"] {
                    let probe = async || env.secret(secret).await.is_none().then_some(());
                    eventually("no Secret is left", probe, || env.log()).await;
                }
            }
            Self::Retention => {
                env.gone("x").await;
                let user = env.iam("u").await;
                let marks: Vec<_> = user.tags.keys().filter(|tag| tag.starts_with("awsdeploy.dev/")).collect();
                assert!(marks.is_empty(), "no mark of ours is left: {marks:?}");
                assert_eq!(user.active_keys(), [key], "the key is left as it was");
                assert_eq!(env.published("x").await, key, "the Secret is left as it was");
            }
        }
    }

    /// Whether the resource is still there at the end, so that its quiet can be listened to.
    pub(crate) fn leaves_a_resource(self) -> bool {
        !matches!(self, Self::Deletion | Self::Retention)
    }
}

/// A user with a policy and a key of its own, and the word of an AWS admin that `x` may have it. The id of the key.
async fn create_unmanaged_user(env: &TestEnv) -> String {
    let manual_changes = env.aws.manual_changes();
    let consent = format!("faults/{}/x", env.namespace);
    let create = Call::iam("CreateUser").with("UserName", "u").with("Path", "/awsdeploy/");
    let create = create.with_tags([("awsdeploy.dev/adoptable-by", consent.as_str())]);
    manual_changes.call(&create).await.expect("somebody's user");
    manual_changes.attach("u", "arn:aws:iam::aws:policy/ReadOnlyAccess").await.expect("a policy");
    manual_changes.create_key("u").await.expect("a key").id
}

/// Waits until the user is ours, with a key of ours beside the one that it had.
async fn adopted(env: &TestEnv, theirs: &str) {
    env.ready("x").await;
    let probe = async || {
        let published = env.secret("x").await?.get("AWS_ACCESS_KEY_ID")?.clone();
        let user = env.iam_opt("u").await?;
        let keys = user.keys.len() == 2 && user.active_keys().contains(&theirs) && user.key(&published).is_some();
        let tagged = user.tags.contains_key(&format!("awsdeploy.dev/key/{published}"));
        let used_up = !user.tags.contains_key("awsdeploy.dev/adoptable-by");
        let policy = user.attached.len() == 1 && user.attached.iter().all(|arn| arn.ends_with("/AmazonEC2FullAccess"));
        let closed = env.secret("x.awsdeploy-journal").await.is_none();
        let told = env.user("x").await.status?.access_keys.len() == 2;
        (keys && tagged && used_up && policy && closed && told).then_some(())
    };
    let context = || format!("{}\n{}", env.aws.log().transcript(), env.log());
    eventually("the user is taken over, its own key as it was", probe, context).await;
}

/// A workload that is rolled out as soon as its controller has seen it: there is nobody to run pods.
async fn deploy(env: &TestEnv) {
    let (labels, pod) = (json!({"app": WORKLOAD}), json!({"containers": [{"name": "c", "image": "uploader"}]}));
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": WORKLOAD},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }));
    let deployment = deployment.expect("a Deployment");
    deployments(env).create(&kube::api::PostParams::default(), &deployment).await.expect("the Deployment is made");
}

fn deployments(env: &TestEnv) -> kube::Api<Deployment> {
    kube::Api::namespaced(env.client.clone(), &env.namespace)
}

/// Waits until all is well with another key than this one, and the workload was restarted for it, once.
async fn restarted(env: &TestEnv, other_than: &str) {
    let key = settled(env, other_than).await;
    let probe = async || {
        let secret = env.secrets().get("x").await.ok()?;
        (!secret.annotations().contains_key("awsdeploy.dev/restarts")).then_some(())
    };
    eventually("no restart is owed", probe, || env.log()).await;
    let deployment = deployments(env).get(WORKLOAD).await.expect("the Deployment is there");
    let template = deployment.spec.and_then(|spec| spec.template.metadata).and_then(|metadata| metadata.annotations);
    assert_eq!(template.unwrap_or_default().get("key.awsdeploy.dev/x"), Some(&key), "restarted for the new key");
    assert_eq!(deployment.metadata.generation, Some(2), "and once");
}

async fn edit(env: &TestEnv, patch: Value) {
    let params = kube::api::PatchParams::default();
    env.secrets().patch("x", &params, &kube::api::Patch::Merge(&patch)).await.expect("the Secret is edited");
}

/// Waits until all is well with another key than this one, and tells which.
pub(crate) async fn settled(env: &TestEnv, other_than: &str) -> String {
    env.until_published("x", other_than).await;
    env.ready("x").await;
    env.until_condition("x", ConditionType::RotationHealthy, "True", None).await;
    let probe = async || {
        let published = env.published("x").await;
        let user = env.iam_opt("u").await?;
        let only = user.keys.len() == 1 && user.active_keys() == [published.as_str()];
        let tagged = user.tags.contains_key(&format!("awsdeploy.dev/key/{published}"));
        let closed = env.secret("x.awsdeploy-journal").await.is_none();
        // The status is the last thing that is written.
        let status = env.user("x").await.status?;
        let told = status.access_keys.len() == 1 && status.access_keys[0].id == published;
        (only && tagged && closed && told && published != other_than).then_some(published)
    };
    let context = || format!("{}\n{}", env.aws.log().transcript(), env.log());
    eventually("one key, published and tagged, and no journal", probe, context).await
}
