//! `AwsDeployUser`: one IAM user for a tool that deploys to AWS, with policies and a rotating access key.

use std::{collections::BTreeMap, sync::LazyLock};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::template::InlinePolicy;
use super::{
    OBJECT_NAME,
    class::{OnQuarantine, OnRevoked},
    duration::HumanDuration,
    secret::SecretSpec,
};

/// What an IAM user for a deploy tool should be: its policies, its access key and the Secret
/// that holds the key.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "awsdeploy.dev",
    version = "v1alpha1",
    kind = "AwsDeployUser",
    plural = "awsdeployusers",
    shortname = "adu",
    category = "aws",
    category = "awsdeploy",
    namespaced,
    status = "AwsDeployUserStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "An IAM user for a tool that deploys to AWS: user, policies and an access key that is written into a Secret and rotated on a schedule.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "User", type_ = "string", json_path = ".status.user.name"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Key-Age", type_ = "date", json_path = ".status.lastRotationTime", description = "Time since the published access key was made"),
    printcolumn(name = "Next-Rotation", type_ = "string", json_path = ".status.nextRotationTime", description = "When the next rotation is due"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Key", type_ = "string", json_path = r#".status.accessKeys[?(@.state=="Published")].id"#, priority = 1),
    printcolumn(name = "Class", type_ = "string", json_path = ".status.class.name", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 200")
        .message("metadata.name may have at most 200 characters, because names of Secrets are derived from it"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.userName) == has(oldSelf.userName)")
    .message("userName is immutable: it cannot be added or removed later; delete the resource and create it again"))]
pub struct AwsDeployUserSpec {
    /// Name of the `AwsDeployUserClass` that allows this resource what it asks for. Default: the class that a cluster
    /// admin has made the default one when the resource was first allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub class_name: Option<String>,

    /// Name of the IAM user. Immutable. Default: as the class says, `<namespace>-<name>` of this resource unless it says
    /// otherwise. It has to fit the class. IAM compares
    /// names without regard to case, and they are unique in an AWS account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9+=,.@_-]+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("userName is immutable; delete the resource and create it again"))]
    pub user_name: Option<String>,

    /// What the user may do in AWS. The list is exclusive: policies attached by hand are detached,
    /// except AWS's own `AWSCompromisedKeyQuarantine` policies.
    #[serde(default)]
    pub policies: Policies,

    /// Groups that the user is in, at most 10. The groups must exist. The list is exclusive: the user is
    /// taken out of groups that it was put into by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9+=,.@_-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,

    /// Tags of the IAM user, at most 37. Tags that are not listed here are left alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 37), schema_with = "tags")]
    #[x_kube(validation = Rule::new("self.all(k, size(k) >= 1 && size(k) <= 128)").message("tag keys have 1 to 128 characters"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.lowerAscii().startsWith('aws:') && !k.lowerAscii().startsWith('awsdeploy.dev/'))")
        .message("tag keys may not start with aws: (reserved by AWS) or awsdeploy.dev/ (used by this operator)"))]
    pub tags: BTreeMap<String, String>,

    /// Programmatic access: the access key, its rotation and the Secret that holds it. Assumed, with its defaults, when
    /// neither `accessKey` nor `console` is given. `console` alone is a user without a key; `accessKey: {}` beside
    /// it gives both. Removing this sets the keys Inactive at once; after a while they are deleted with their Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKeySpec>,

    /// Access to the AWS console for a person: a password, in a Secret of its own. Removing this takes
    /// password and Secret away. For a person who needs no access key, give `console` and no `accessKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleSpec>,

    /// What happens to the IAM user when this resource is deleted. `Delete` removes the user with
    /// everything this operator made; access keys made by others make the deletion wait.
    /// `Retain` leaves user, keys and Secret as they are and removes only the operator's marks.
    /// `Force` is `Delete` and also removes keys made by others.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Whether an IAM user that exists already may be taken over. `Never` leaves it alone. `IfTagged` takes it over
    /// if its class permits adoption and an AWS admin has tagged the user for this very resource:
    /// `awsdeploy.dev/adoptable-by` = `<cluster id>/<namespace>/<name>`; the message of the condition names the command.
    /// Its policies and groups then become the declared ones; its access keys are left alone.
    #[serde(default)]
    pub adoption: Adoption,

    /// True sets all access keys of this user that the operator made Inactive at once and keeps
    /// them for forensics. Setting it back to false makes a new key.
    #[serde(default)]
    pub suspend: bool,
}

impl AwsDeployUserSpec {
    /// What is declared of the access key; `None` for a user who has access to the console and no key.
    #[must_use]
    pub fn effective_access_key(&self) -> Option<&AccessKeySpec> {
        static ASSUMED: LazyLock<AccessKeySpec> = LazyLock::new(AccessKeySpec::default);
        self.access_key.as_ref().or_else(|| self.console.is_none().then_some(&ASSUMED))
    }
}

/// What the user may do in AWS.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    /// Managed policies, at most 20: the name of an AWS managed policy (`AmazonEC2FullAccess`), with its path
    /// where it has one (`job-function/ViewOnlyAccess`), or a full ARN for a policy of your own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 640)))]
    #[x_kube(validation = Rule::new("self.all(p, p.matches('^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/)?([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,128}$'))")
        .message("a managed policy is a name such as AmazonEC2FullAccess, a path and a name such as job-function/ViewOnlyAccess, or an ARN such as arn:aws:iam::123456789012:policy/own"))]
    pub managed: Vec<String>,

    /// Inline policies, at most 10. All documents of a user together may have 2,048 characters,
    /// white space not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub inline: Vec<InlinePolicy>,
}

/// Tags: the schema can check values, keys are checked by rules and by the operator.
pub(super) fn tags(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 256, "pattern": r"^[\p{L}\p{Z}\p{N}_.:/=+@-]*$"},
    })
}

/// An object whose fields IAM checks, not we: its grammar grows without us.
pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Programmatic access.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeySpec {
    /// What the key is for. Stored where the AWS console shows it: as a tag of the user whose name is the key id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^[\p{L}\p{Z}\p{N}_.:/=+@-]*$"))]
    pub description: Option<String>,

    /// The use case, as the AWS console asks for it. The console gives advice on it and stores it nowhere;
    /// here it is kept in a tag of the user and in an annotation of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_case: Option<UseCase>,

    /// AWS Region written into the Secret as `AWS_REGION`, `AWS_DEFAULT_REGION` and into the `config` file.
    /// Absent: the Secret names no Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$"))]
    pub region: Option<String>,

    /// When the key is replaced by a new one.
    #[serde(default)]
    pub rotation: RotationSpec,

    /// The Secret that holds the key.
    #[serde(default)]
    pub secret: SecretSpec,

    /// Workloads of the same namespace, at most 10, whose pods are replaced when a new key is published, as by `kubectl
    /// rollout restart`: for pods that read the key only at their start, as environment variables are. Not at the
    /// first key, and for nothing but a new key. The old key stays Active until they are rolled out, at most a day
    /// longer than its overlap (the operator's `--restart-hold`) and never into the next rotation. The class has to allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".to_string(), "name".to_string()]))]
    pub restart: Vec<RestartTarget>,
}

/// A workload whose pods are replaced when a new key is published.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RestartTarget {
    /// Kind of the workload, of the API group `apps`.
    pub kind: WorkloadKind,
    /// Name of the workload, in the namespace of this resource.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// A kind of workload that replaces its pods one after the other when their template changes.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// `Deployment`.
    Deployment,
    /// `StatefulSet`.
    StatefulSet,
    /// `DaemonSet`.
    DaemonSet,
}

impl WorkloadKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

impl std::fmt::Display for RestartTarget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The use cases of the AWS console's "Create access key" page.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UseCase {
    /// Command Line Interface (CLI).
    CommandLineInterface,
    /// Local code.
    LocalCode,
    /// Application running on an AWS compute service.
    ApplicationOnAwsCompute,
    /// Third-party service.
    ThirdPartyService,
    /// Application running outside AWS.
    ApplicationOutsideAws,
    /// Other.
    Other,
}

impl UseCase {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommandLineInterface => "CommandLineInterface",
            Self::LocalCode => "LocalCode",
            Self::ApplicationOnAwsCompute => "ApplicationOnAwsCompute",
            Self::ThirdPartyService => "ThirdPartyService",
            Self::ApplicationOutsideAws => "ApplicationOutsideAws",
            Self::Other => "Other",
        }
    }
}

/// When the key is replaced. `every` and `schedule` exclude each other; without both it is `every: 90d`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.every) && has(self.schedule))").message("give either every or schedule, not both"))]
#[x_kube(validation = Rule::new("!has(self.timeZone) || has(self.schedule)").message("timeZone goes with schedule; every is an amount of time and needs none"))]
#[x_kube(validation = Rule::new("!(has(self.windows) && size(self.windows) > 0 && has(self.every) && self.every == 'Never')")
    .message("windows say when scheduled rotations may begin; with every: Never there are none, and a rotation on request begins at once"))]
pub struct RotationSpec {
    /// A new key this long after the last one was published: `30d`, `12h`, `90m`. `Never` rotates only on
    /// request (annotation `awsdeploy.dev/rotate`). Default: `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^(Never|([0-9]+(\.[0-9]+)?(w|d|h|m|s))+)$"))]
    pub every: Option<String>,

    /// Cron expression with five fields (minute, hour, day of month, month, day of week): `0 3 1 * *`.
    /// Missed times count as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128))]
    pub schedule: Option<String>,

    /// IANA time zone of `schedule`, such as `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// The old key stays Active at least this long after the new one was published, so that running
    /// consumers have time to pick up the new one. Must be shorter than the rotation interval. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<HumanDuration>,

    /// If AWS still sees the old key used when the overlap is over, it stays Active at most this much longer, until
    /// it was not used for more than a day (the operator's `--last-used-window`). A warning Event tells of it; after
    /// that the key retires whether it is used or not. AWS learns of uses late and by the quarter of an hour. `overlap`
    /// and this together must be shorter than the rotation interval. Absent: AWS is not asked, and the key retires
    /// when the overlap is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_while_used: Option<HumanDuration>,

    /// When rotations that are due by `every` or `schedule` may begin, at most 10 windows; absent: at any time.
    /// A rotation that comes due outside begins when the next window opens, spread over its first half so that many
    /// users do not begin together; missed windows count as one. First keys, keys that replace lost or dead ones, and
    /// rotations that somebody asks for do not wait. An old key retires when its overlap ends, inside a window or not.
    /// A window must open at least once per rotation interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub windows: Vec<RotationWindow>,
}

/// A time that comes again and again, in which scheduled rotations may begin.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationWindow {
    /// When the window opens: a cron expression with five fields, such as `0 2 * * 6` for Saturdays at two.
    #[schemars(length(min = 9, max = 128))]
    pub schedule: String,

    /// How long it stays open: `4h`, `90m`. May be longer than the time to its next opening.
    pub duration: HumanDuration,

    /// IANA time zone of `schedule`, such as `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// Access to the AWS console. The annotation `awsdeploy.dev/reset-password` on the resource asks for a new
/// password: any new value, once.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretName) == has(oldSelf.secretName)")
    .message("console.secretName is immutable: remove console first, then add it with the other name"))]
pub struct ConsoleSpec {
    /// The person has to choose a password of their own at the first sign-in. AWS's policy
    /// `IAMUserChangePassword` is attached for that, unless the account lets all users change theirs.
    /// Counts for the next password that is set.
    #[serde(default = "yes")]
    pub password_reset_required: bool,

    /// Name of the Secret with `username`, `password`, `consoleSignInUrl` and `credentials.csv`, in the
    /// namespace of this resource. Default: `<name of this resource>-console`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("console.secretName is immutable: remove console first, then add it with the other name"))]
    #[x_kube(validation = Rule::new("!self.endsWith('.awsdeploy-journal')")
        .message("names that end with .awsdeploy-journal are used by this operator"))]
    pub secret_name: Option<String>,
}

fn yes() -> bool {
    true
}

/// Whether an IAM user that exists may be taken over.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adoption {
    /// It is left alone.
    #[default]
    Never,
    /// Taken over with the consent of the cluster and of an AWS admin.
    IfTagged,
}

/// What happens in AWS when the resource is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// Remove the user and all that this operator made.
    #[default]
    Delete,
    /// Leave user, keys and Secret; remove the operator's marks.
    Retain,
    /// Like `Delete`, and access keys made by others go too.
    Force,
}

/// What the operator found and did. A report only: nothing is decided from it that would be unsafe if it were lost.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsDeployUserStatus {
    /// `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The class that allowed the resource last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassReference>,

    /// How far the revocation goes that is under way or done. Written before anything is taken from the user, so that
    /// it is brought to its end; absent while the resource is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<OnRevoked>,

    /// The IAM user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserStatus>,

    /// Access keys of the user, also those that are not ours. Ids only, never a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_keys: Vec<AccessKeyStatus>,

    /// Name of the Secret that holds the published key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// When the published key was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub last_rotation_time: Option<Timestamp>,

    /// When the next rotation begins: as it is due, or in the first window after that. Absent when keys are rotated on request only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub next_rotation_time: Option<Timestamp>,

    /// Failed passes since the last good one; decides how long to wait before the next.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_attempts: i32,

    /// When the last pass failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub last_failure_time: Option<Timestamp>,

    /// `Ready`, `Authorized`, `UserSynced`, `KeyPublished`, `RotationHealthy`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// The class that allowed a resource last.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassReference {
    /// Name of the class.
    pub name: String,
    /// `metadata.generation` of the class.
    pub generation: i64,
    /// What the class said of revocations: it holds when the class is gone.
    pub on_revoked: OnRevoked,
    /// What the class said of quarantines, likewise.
    #[serde(default)]
    pub on_quarantine: OnQuarantine,
    /// The account that the class led to. Used to take away what it has allowed when no class leads there any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountReference>,
}

/// How a class reached its AWS account.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountReference {
    /// Account id.
    pub id: String,
    /// ARN of the role there; absent: the operator's own credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The external id that the role asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// The IAM user.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserStatus {
    /// Name of the user.
    pub name: String,
    /// ARN of the user.
    pub arn: String,
    /// Unique id (`AIDA...`). It changes when a user is deleted and created again under the same name.
    pub id: String,
    /// Keys of the declared tags; a tag that is listed here and no longer declared is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tag_keys: Vec<String>,
}

/// One access key of the user.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeyStatus {
    /// Access key id.
    pub id: String,
    /// Where the key is in its life.
    pub state: AccessKeyState,
    /// When IAM made the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub created_at: Option<Timestamp>,
    /// When a newer key was published in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub superseded_at: Option<Timestamp>,
    /// When the key is set Inactive: its overlap ends, or at the latest if it is held because it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub retires_at: Option<Timestamp>,
    /// When the operator first saw the key Inactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub inactive_since: Option<Timestamp>,
    /// When AWS last saw the key used, as of the last time it was asked. AWS is asked about keys whose overlap is
    /// over, if `rotation.holdWhileUsed` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_time")]
    pub last_used_at: Option<Timestamp>,
}

/// Where an access key is in its life.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessKeyState {
    /// Made, not in the Secret yet.
    Staged,
    /// In the Secret.
    Published,
    /// Replaced by a newer key, still Active for its overlap.
    Superseded,
    /// Set Inactive, about to be deleted, or kept by `suspend`.
    Inactive,
    /// Not made by this operator; never touched.
    Foreign,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn optional_time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time", "nullable": true})
}
