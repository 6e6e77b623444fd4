//! `AwsDeployUser`: one IAM user for a tool that deploys to AWS, with policies and a rotating access key.

mod status;

use std::{collections::BTreeMap, sync::LazyLock};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::template::{DeclaredDocument, DocumentPlacement};
use super::{duration::HumanDuration, format, secret::SecretSpec};
pub use status::{
    AccessKeyState, AccessKeyStatus, AccountReference, AwsDeployUserStatus, ClassReference, KeyRepairs, PolicyKind,
    PolicyStatus, UserStatus,
};

/// Desired state of an IAM user for a deploy tool: policies, access key and the Secret that holds the key.
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
    doc = "An IAM user for a tool that deploys to AWS: the user, its policies, and an access key that is written to a Secret and rotated on a schedule.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "User", type_ = "string", json_path = ".status.user.name"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Key-Age", type_ = "date", json_path = ".status.lastRotationTime", description = "Time since the current access key was published"),
    printcolumn(name = "Next-Rotation", type_ = "string", json_path = ".status.nextRotationTime", description = "When the next rotation begins"),
    printcolumn(name = "Previous-Key-Until", type_ = "string", json_path = r#".status.accessKeys[?(@.state=="Superseded")].retiresAt"#, description = "When the previous access key is set Inactive"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Key", type_ = "string", json_path = r#".status.accessKeys[?(@.state=="Published")].id"#, priority = 1),
    printcolumn(name = "Class", type_ = "string", json_path = ".status.class.name", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 200")
        .message("metadata.name may have at most 200 characters, because names of Secrets are derived from it"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.userName) == has(oldSelf.userName)")
    .message("userName is immutable and cannot be added or removed: delete the resource and create it again"))]
// Across both versions of the spec: `accessKey` and `secret` may be added and removed, which must not rename the Secret. A
// resource with `console` and without `accessKey` has no key and no Secret.
#[x_kube(validation = Rule::new("(has(self.console) && !has(self.accessKey)) || (has(oldSelf.console) && !has(oldSelf.accessKey)) || \
    (has(self.accessKey) && has(self.accessKey.secret) && has(self.accessKey.secret.name) ? self.accessKey.secret.name : '') == \
    (has(oldSelf.accessKey) && has(oldSelf.accessKey.secret) && has(oldSelf.accessKey.secret.name) ? oldSelf.accessKey.secret.name : '')")
    .message("accessKey.secret.name is immutable and cannot be added or removed: delete the resource and create it again"))]
pub struct AwsDeployUserSpec {
    /// Name of the `AwsDeployUserClass` that authorizes this resource, at most 253 characters. Default: the default class at
    /// the time when the resource was first authorized (`status.class.name`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = format::OBJECT_NAME))]
    pub class_name: Option<String>,

    /// Name of the IAM user, 1 to 64 characters. Immutable. The class must allow it (`users.namePattern`). Names are unique in
    /// an AWS account, ignoring case. Default: the class's `users.nameTemplate`, which defaults to `{namespace}_{name}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = format::IAM_NAME))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("userName is immutable: delete the resource and create it again"))]
    pub user_name: Option<String>,

    /// Policies of the IAM user. The lists are exclusive: policies that others attach are detached, except
    /// `AWSCompromisedKeyQuarantine...`, which AWS attaches itself. Default: the class's `policies.default` if `groups` is
    /// empty too.
    #[serde(default)]
    pub policies: Policies,

    /// Names of IAM groups of the user, at most 10 of at most 128 characters. The groups must exist. The list is exclusive:
    /// the user is removed from other groups. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 128), regex(pattern = format::IAM_NAME)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,

    /// Tags of the IAM user, at most 36. A key has 1 to 128 characters, a value at most 256. The class must allow each key
    /// (`tagKeys`). Tags of others on the user are not changed. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 36), schema_with = "tags")]
    #[x_kube(validation = Rule::new("self.all(k, size(k) >= 1 && size(k) <= 128)").message("tag keys have 1 to 128 characters"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.lowerAscii().startsWith('aws:') && !k.lowerAscii().startsWith('awsdeploy.dev/'))")
        .message("tag keys may not start with aws: (reserved by AWS) or awsdeploy.dev/ (used by this operator)"))]
    pub tags: BTreeMap<String, String>,

    /// Programmatic access: the access key, its rotation and its Secret. Default: an access key with all defaults, or none if
    /// `console` is set; `accessKey: {}` together with `console` gives both. When the field is removed, the keys are set
    /// Inactive at once and deleted with their Secret after the operator's `--deletion-delay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKeySpec>,

    /// Console access for a person: a password in a separate Secret. When the field is removed, the password and its Secret
    /// are deleted. Set `console` without `accessKey` for a person who needs no access key. Default: no console access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleSpec>,

    /// What happens to the IAM user when this resource is deleted. `Delete` deletes the user and everything the operator
    /// created for it; access keys that others created block the deletion. `Retain` keeps user, keys and Secret and removes
    /// only the ownership tags of the operator. `Force` is `Delete` and also deletes access keys that others created.
    /// Default: `Delete`.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Whether an existing IAM user of this name is adopted. `Never` does not change it. `IfTagged` adopts it if the class
    /// allows adoption and an AWS admin has set the tag `awsdeploy.dev/adoptable-by` of the user to
    /// `<cluster id>/<namespace>/<name>`; the condition message contains the command. Policies and groups of an adopted user
    /// are replaced by the declared ones; its access keys are not changed. Default: `Never`.
    #[serde(default)]
    pub adoption: Adoption,

    /// Whether the credentials of the user work. `Revoked` sets all access keys that the operator created for the user Inactive
    /// at once and keeps them for forensics, and removes the console password. `Active` creates new ones after that. To stop
    /// rotations only, set the annotation `awsdeploy.dev/paused: "true"`. Default: `Active`.
    #[serde(default)]
    pub credentials: Credentials,
}

impl AwsDeployUserSpec {
    /// The access key to create: the declared one or its default; `None` for a user with console access only.
    #[must_use]
    pub fn effective_access_key(&self) -> Option<&AccessKeySpec> {
        static DEFAULT: LazyLock<AccessKeySpec> = LazyLock::new(AccessKeySpec::default);
        self.access_key.as_ref().or_else(|| self.console.is_none().then_some(&DEFAULT))
    }

    /// Whether the author has revoked the credentials of the user.
    #[must_use]
    pub fn credentials_revoked(&self) -> bool {
        self.credentials == Credentials::Revoked
    }
}

/// Policies of an IAM user.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    /// Managed policies, at most 20 of at most 640 characters: the name of an AWS managed policy (`AmazonEC2FullAccess`),
    /// with its path if it has one (`job-function/ViewOnlyAccess`), or the ARN of a customer managed policy. IAM allows 10
    /// per user unless the quota is raised (`--max-attached-policies`); documents that are managed policies count too. A policy
    /// that the operator made for a document of any resource cannot be named. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 640)))]
    #[x_kube(validation = Rule::new("self.all(p, p.matches('^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/)?([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,128}$'))")
        .message("a managed policy is a name such as AmazonEC2FullAccess, a path and a name such as job-function/ViewOnlyAccess, or an ARN such as arn:aws:iam::123456789012:policy/own"))]
    pub managed: Vec<String>,

    /// Policy documents, at most 10. Each is an inline policy or a managed policy that belongs to the resource (`as`). All
    /// inline ones of a user together have at most 2,048 characters, a managed one at most 6,144, not counting white space.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub documents: Vec<DeclaredDocument>,
}

/// Schema of tags. A schema cannot check keys: CEL rules and the operator do.
pub(super) fn tags(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 256, "pattern": format::TAG_VALUE},
    })
}

/// Schema of a policy document: any object, because IAM checks the document and extends its grammar.
pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Access key of an IAM user.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeySpec {
    /// Description of the key, at most 256 characters. Stored where the AWS console displays it: in a tag of the user whose
    /// key is the access key id. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = format::TAG_VALUE))]
    pub description: Option<String>,

    /// Use case, as on the AWS console's "Create access key" page. Stored in the tag `awsdeploy.dev/use-case` of the user and
    /// in an annotation of the Secret. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_case: Option<UseCase>,

    /// AWS Region, at most 32 characters. Written to the Secret as `AWS_REGION` and `AWS_DEFAULT_REGION` and to the `config`
    /// file. Default: the Secret contains no Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = format::REGION))]
    pub region: Option<String>,

    /// When the key is rotated.
    #[serde(default)]
    pub rotation: RotationSpec,

    /// Name and content of the Secret that holds the key.
    #[serde(default)]
    pub secret: SecretSpec,

    /// Workloads of the same namespace, at most 10, that are restarted when a new key is published, as by `kubectl rollout
    /// restart`. For pods that read the key only at start, for example from environment variables. The first key causes no
    /// restart. The previous key stays Active until the rollouts are complete, at most `--restart-hold` (default a day)
    /// longer than `overlap`, and not beyond the next rotation. The class must allow restarts. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".to_string(), "name".to_string()]))]
    pub restart: Vec<RestartTarget>,

    /// Consumers outside the cluster, at most 8, that confirm each new key: the annotation `handover.awsdeploy.dev/<name>` of this
    /// resource has the id of the key that the consumer uses. The previous key stays Active until all have confirmed the new one,
    /// for each at most `within` longer than `overlap`, and not beyond the next rotation. Every holder of the right to write this
    /// resource can confirm. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub handover: Vec<HandoverConsumer>,
}

/// Consumer outside the cluster that confirms each new key.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandoverConsumer {
    /// Name of the consumer, a DNS label: lower-case letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = format::LABEL))]
    pub name: String,
    /// Longest time after `rotation.overlap` for which the previous key stays Active until the consumer has confirmed the new one,
    /// such as `7d` or `12h`, at most `3650d`. `overlap` plus this value must be shorter than the rotation interval. The class may
    /// set a maximum (`rotation.maxHandover`).
    pub within: HumanDuration,
}

/// Workload that is restarted when a new key is published.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RestartTarget {
    /// Kind of the workload, in the API group `apps`.
    pub kind: WorkloadKind,
    /// Name of the workload in the namespace of this resource, at most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = format::OBJECT_NAME))]
    pub name: String,
}

/// Kind of a workload that rolls out a changed pod template.
#[derive(
    JsonSchema,
    strum::EnumString,
    strum::IntoStaticStr,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
)]
pub enum WorkloadKind {
    /// `Deployment`.
    Deployment,
    /// `StatefulSet`.
    StatefulSet,
    /// `DaemonSet`.
    DaemonSet,
}

impl WorkloadKind {
    /// Name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl std::fmt::Display for RestartTarget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.kind.as_str(), self.name)
    }
}

/// Use cases of the AWS console's "Create access key" page.
#[derive(JsonSchema, strum::IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// When the access key is rotated. `every` and `schedule` exclude each other; the default is `every: 90d`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.every) && has(self.schedule))").message("set either every or schedule, not both"))]
#[x_kube(validation = Rule::new("!has(self.timeZone) || has(self.schedule)").message("timeZone needs schedule; every is a duration and has no time zone"))]
#[x_kube(validation = Rule::new("!(has(self.windows) && size(self.windows) > 0 && has(self.every) && self.every == 'Never')")
    .message("windows apply to scheduled rotations only, and every: Never schedules none; remove windows or set another interval"))]
pub struct RotationSpec {
    /// Time between the publication of two keys, such as `30d`, `12h` or `90m`, at most `3650d`. `Never` rotates only on
    /// request (annotation `awsdeploy.dev/rotate`). Default: the class's `rotation.default.every`, else `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = format::INTERVAL))]
    pub every: Option<String>,

    /// Cron expression with five fields (minute, hour, day of month, month, day of week), such as `0 3 1 * *`, 9 to 128
    /// characters. Several missed times cause one rotation. Default: none, `every` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128))]
    pub schedule: Option<String>,

    /// IANA time zone of `schedule`, such as `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// Time for which the previous key stays Active after the new one was published, so that running consumers can pick up
    /// the new one. Must be shorter than the rotation interval. Default: the class's `rotation.default.overlap`, else `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<HumanDuration>,

    /// Longest time after `overlap` for which the previous key stays Active while AWS reports it as used within the
    /// operator's `--last-used-window` (default 26 hours). A warning Event is published meanwhile; afterwards the key is
    /// retired even if it is used. AWS reports uses late and in steps of 15 minutes. `overlap` plus this value must be shorter
    /// than the rotation interval. Default: the key is retired when `overlap` ends, without a call to AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_while_used: Option<HumanDuration>,

    /// Windows in which rotations that are due by `every` or `schedule` may begin, at most 10. A rotation that becomes due
    /// outside of the windows begins in the first half of the next one, spread so that many users do not rotate at once;
    /// several missed windows cause one rotation. First keys, keys that replace lost or invalid ones, and rotations on request
    /// do not wait for a window, nor does the retirement of the previous key. A window must open at least once per rotation
    /// interval. Default: rotations may begin at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub windows: Vec<RotationWindow>,
}

/// Recurring window in which scheduled rotations may begin.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationWindow {
    /// Cron expression with five fields for the start of the window, such as `0 2 * * 6` for Saturdays at 02:00, 9 to 128
    /// characters.
    #[schemars(length(min = 9, max = 128))]
    pub schedule: String,

    /// Length of the window, such as `4h` or `90m`, at most `3650d`. It may be longer than the time until the next start.
    pub duration: HumanDuration,

    /// IANA time zone of `schedule`, such as `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// Access to the AWS console. Each new value of the annotation `awsdeploy.dev/reset-password` on the resource sets a new
/// password once.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretName) == has(oldSelf.secretName)")
    .message("console.secretName is immutable: remove console, then add it again with the other name"))]
pub struct ConsoleSpec {
    /// Requires a new password at the first sign-in. The AWS managed policy `IAMUserChangePassword` is attached for it, unless
    /// the account allows all users to change their passwords. A change applies to the next password. Default: true.
    #[serde(default = "default_true")]
    pub password_reset_required: bool,

    /// Name of the Secret with the keys `username`, `password`, `consoleSignInUrl` and `credentials.csv`, in the namespace of
    /// this resource, at most 253 characters. Immutable. Default: `<name of this resource>-console`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = format::OBJECT_NAME))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("console.secretName is immutable: remove console, then add it again with the other name"))]
    pub secret_name: Option<String>,
}

fn default_true() -> bool {
    true
}

/// Whether an existing IAM user is adopted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adoption {
    /// An existing user is not changed.
    #[default]
    Never,
    /// An existing user is adopted if the class allows it and an AWS admin has tagged the user.
    IfTagged,
}

/// Whether the credentials of a user work.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// The user has the declared access key and password.
    #[default]
    Active,
    /// Access keys are Inactive, and there is no password.
    Revoked,
}

/// What happens in AWS when the resource is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// Delete the user and everything the operator created for it.
    #[default]
    Delete,
    /// Keep user, keys and Secret; remove the operator's ownership tags.
    Retain,
    /// `Delete`, including access keys that others created.
    Force,
}
