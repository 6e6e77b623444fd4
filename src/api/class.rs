//! `AwsDeployUserClass`: what a cluster admin allows. Without a class no IAM user is created.

#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

mod namespaces;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::namespaces::{ClassNamespaces, LabelExpression, LabelOperator, NamespaceSelector};
pub use super::template::{DocumentPermission, PolicyTemplate, TemplateParameter};
use super::{duration::HumanDuration, format};

/// What the `AwsDeployUser`s of this class may have. Everything that is not listed is denied.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "awsdeploy.dev",
    version = "v1alpha1",
    kind = "AwsDeployUserClass",
    plural = "awsdeployuserclasses",
    shortname = "aduc",
    category = "awsdeploy",
    status = "AwsDeployUserClassStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "What a cluster admin allows AwsDeployUsers to have: the AWS account, namespaces, user names and policies. Without a class no IAM user is created. The class with the annotation awsdeploy.dev/is-default-class: \"true\" applies to resources without spec.className.",
    printcolumn(
        name = "Default",
        type_ = "string",
        json_path = r".metadata.annotations.awsdeploy\.dev/is-default-class"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Account", type_ = "string", json_path = ".status.account"),
    printcolumn(name = "Users", type_ = "integer", json_path = ".status.users"),
    printcolumn(
        name = "Boundary",
        type_ = "string",
        json_path = ".status.boundary",
        description = "Name of the permissions boundary of the users"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.users.path", priority = 1),
    printcolumn(name = "On-Revoked", type_ = "string", json_path = ".spec.onRevoked", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.account) == has(oldSelf.account)")
    .message("account is immutable: existing IAM users are not moved; create another class"))]
#[x_kube(validation = Rule::new("!has(self.policies) || !has(self.policies.documents) || self.policies.documents != 'Allow' || has(self.permissionsBoundary) || (has(self.acknowledgeAdminEquivalent) && self.acknowledgeAdminEquivalent)")
    .message("policies.documents: Allow lets resources grant themselves any permission; set permissionsBoundary, or acknowledgeAdminEquivalent: true"))]
pub struct AwsDeployUserClassSpec {
    /// AWS account of the IAM users. Default: the account of the operator's own credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<ClassAccount>,

    /// Namespaces that may use the class. Default: none.
    #[serde(default)]
    pub namespaces: ClassNamespaces,

    /// Path and names of the IAM users.
    #[serde(default)]
    pub users: ClassUsers,

    /// Policies that the IAM users may have.
    #[serde(default)]
    pub policies: ClassPolicies,

    /// ARN of the managed policy that is set as permissions boundary of every IAM user of the class, at most 640
    /// characters. It is set in the call that creates the user and restored when it drifts. Default: no boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 640),
        regex(pattern = format::POLICY_ARN)
    )]
    pub permissions_boundary: Option<String>,

    /// Names of IAM groups that the users may be members of, at most 100 of at most 128 characters. `*` matches any
    /// characters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128), regex(pattern = format::IAM_NAME_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,

    /// Whether the IAM users may have a password for the AWS console. Default: `Deny`.
    #[serde(default)]
    pub console: Permission,

    /// Whether resources with `spec.adoption: IfTagged` may adopt existing IAM users. Adoption also needs a tag that an AWS
    /// admin sets on the user and that names the resource. Default: `Deny`.
    #[serde(default)]
    pub adoption: Permission,

    /// Whether resources may restart workloads of their namespace when a new access key is published
    /// (`accessKey.restart`). Default: `Deny`.
    #[serde(default)]
    pub restart: Permission,

    /// Workloads that `restart: Allow` is limited to, at most 50 of at most 320 characters: kind and name, such as
    /// `Deployment/web-*`. `*` matches any characters. Default: every workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 320), regex(pattern = format::WORKLOAD_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub restart_targets: Vec<String>,

    /// Names and content of the Secrets that hold access keys and passwords.
    #[serde(default)]
    pub secrets: ClassSecrets,

    /// Limits and defaults of the rotation of access keys.
    #[serde(default)]
    pub rotation: ClassRotation,

    /// Tags of every IAM user of the class, at most 20. A key has at most 128 characters, a value at most 256. A resource
    /// cannot set these tags to other values. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20), schema_with = "super::user::tags")]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[\\\\p{L}\\\\p{Z}\\\\p{N}_.:/=+@-]{1,128}$'))")
        .message("tag keys have 1 to 128 characters: letters, digits, spaces and _ . : / = + @ -"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.lowerAscii().startsWith('aws:') && !k.lowerAscii().startsWith('awsdeploy.dev/'))")
        .message("tag keys may not start with aws: (reserved by AWS) or awsdeploy.dev/ (used by this operator)"))]
    pub tags: BTreeMap<String, String>,

    /// Keys of further tags that a resource may set (`spec.tags`), at most 50 of at most 128 characters. `*` matches any
    /// characters; the case of letters A to Z is ignored. IAM policies can grant permissions by tags of the user
    /// (`aws:PrincipalTag`): list only keys without a meaning for them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 128), regex(pattern = format::TAG_KEY_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tag_keys: Vec<String>,

    /// What happens to an IAM user that has something the class no longer allows, or whose namespace or class was removed.
    /// Default: `Freeze`.
    #[serde(default)]
    pub on_revoked: OnRevoked,

    /// What happens when AWS found an access key of the user in public and attached a quarantine policy
    /// (`AWSCompromisedKeyQuarantine...`). The operator never detaches that policy. Default: `Alert`.
    #[serde(default)]
    pub on_quarantine: OnQuarantine,

    /// Allows policies that make the holder of the key an administrator of the account: `AdministratorAccess`,
    /// `IAMFullAccess`, `PowerUserAccess`, `AWSOrganizationsFullAccess`, and without a permissions boundary also
    /// documents of the resource (`policies.documents: Allow`), whose content is not evaluated. Use a separate AWS account for
    /// such users. Default: false.
    #[serde(default)]
    pub acknowledge_admin_equivalent: bool,
}

/// AWS account of a class.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.roleArn) || self.roleArn.split(':')[4] == self.id")
    .message("account.roleArn must be a role of the account account.id"))]
#[x_kube(validation = Rule::new("!has(self.externalId) || has(self.roleArn)")
    .message("account.externalId needs account.roleArn"))]
pub struct ClassAccount {
    /// Account id, twelve digits. Immutable. The operator calls STS `GetCallerIdentity` and writes nothing to AWS unless it
    /// returns this account.
    #[schemars(length(max = 12), regex(pattern = format::ACCOUNT_ID))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("account.id is immutable: existing IAM users are not moved; create another class"))]
    pub id: String,

    /// ARN of the IAM role of this account that the operator assumes (`sts:AssumeRole`) for every call it makes for the
    /// class, at most 640 characters. `aws-deploy-user-operator iam-policy --class` prints the permissions and the trust
    /// policy of the role. The ARN may change to another role of the same account. Default: the operator's own
    /// credentials, which must belong to this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 640),
        regex(pattern = format::ROLE_ARN)
    )]
    pub role_arn: Option<String>,

    /// External id that the trust policy of the role requires (`sts:ExternalId`), 2 to 1224 characters. It is not secret;
    /// it prevents another class from using the operator to assume this role. Default: no external id is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224), regex(pattern = format::EXTERNAL_ID))]
    pub external_id: Option<String>,
}

/// Path and names of the IAM users of a class.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassUsers {
    /// IAM path of the users, at most 512 characters, beginning and ending with `/`. Immutable, because existing IAM users
    /// are not moved. The operator's own IAM policy is limited to this path. Default: `/awsdeploy/`.
    #[serde(default = "default_path")]
    #[schemars(length(max = 512), regex(pattern = format::PATH))]
    #[x_kube(validation = Rule::new("!self.matches('[*?${}]')")
        .message("users.path may not contain *, ?, $, { or }: in IAM policies they are wildcards and variables, and the operator's own policy is limited to this path"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("users.path is immutable: existing IAM users are not moved; create another class"))]
    pub path: String,

    /// Name of the IAM user of a resource without `spec.userName`, at most 128 characters. `{namespace}` and `{name}` are
    /// replaced by those of the resource, `{hash}` by eight hexadecimal digits derived from cluster id, namespace and name.
    /// Names of namespaces contain no `_` and no `.`: with one of them behind `{namespace}`, resources of two namespaces never
    /// have the same user name; with `-` they can. A change does not rename existing users. Default: `{namespace}_{name}`.
    #[serde(default = "default_template")]
    #[schemars(length(max = 128), regex(pattern = format::NAME_TEMPLATE))]
    #[x_kube(validation = Rule::new("self.contains('{name}') || self.contains('{hash}')")
        .message("nameTemplate needs {name} or {hash}: without them two resources would share one IAM user name"))]
    pub name_template: String,

    /// Regular expression (RE2) that must match the whole IAM user name, from the template or from `spec.userName`, 1 to 256
    /// characters. `{namespace}` is replaced by the namespace of the resource: with `{namespace}_.*` no resource can take a
    /// name of another namespace. Default: names from the template only, `spec.userName` is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("'x'.matches(self.replace('{namespace}', 'x')) || !'x'.matches(self.replace('{namespace}', 'x'))")
        .message("namePattern is not a regular expression (RE2)"))]
    pub name_pattern: Option<String>,

    /// Largest number of resources of the class in one namespace, 1 to 5000. Further resources wait until one is deleted.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5000))]
    pub max_per_namespace: Option<u32>,
}

impl Default for ClassUsers {
    fn default() -> Self {
        Self { path: default_path(), name_template: default_template(), name_pattern: None, max_per_namespace: None }
    }
}

fn default_path() -> String {
    "/awsdeploy/".to_owned()
}

fn default_template() -> String {
    "{namespace}_{name}".to_owned()
}

/// Names and content of the Secrets of a class. Other controllers act on names, labels, annotations and data of Secrets, and a
/// tenant may have no right to write Secrets itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassSecrets {
    /// Regular expression (RE2) that must match the whole name of every Secret of a resource, for the access key and for the
    /// password, 1 to 256 characters. Default: `.*`.
    #[serde(default = "default_pattern")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("'x'.matches(self) || !'x'.matches(self)").message("namePattern is not a regular expression (RE2)"))]
    pub name_pattern: String,

    /// Keys of labels that a resource may set on its Secret (`accessKey.secret.labels`), at most 50 of at most 317
    /// characters, in addition to `app.kubernetes.io/name`, `app.kubernetes.io/component` and `app.kubernetes.io/version`. `*`
    /// matches any characters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 317), regex(pattern = format::METADATA_KEY_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub label_keys: Vec<String>,

    /// Keys of annotations that a resource may set on its Secret (`accessKey.secret.annotations`), at most 50 of at most 317
    /// characters. `*` matches any characters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 317), regex(pattern = format::METADATA_KEY_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub annotation_keys: Vec<String>,

    /// Data keys that a resource may add to its Secret with a template (`accessKey.secret.template`), at most 50 of at most
    /// 253 characters. `*` matches any characters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 253), regex(pattern = format::DATA_KEY_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub template_keys: Vec<String>,
}

fn default_pattern() -> String {
    ".*".to_owned()
}

impl Default for ClassSecrets {
    fn default() -> Self {
        Self {
            name_pattern: default_pattern(),
            label_keys: Vec::new(),
            annotation_keys: Vec::new(),
            template_keys: Vec::new(),
        }
    }
}

/// Labels that a resource may set on its Secret without permission of the class. `app.kubernetes.io/part-of` and
/// `app.kubernetes.io/instance` are not among them, because Argo CD selects by them.
pub const SAFE_LABEL_KEYS: [&str; 3] =
    ["app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/version"];

/// Policies that the IAM users of a class may have.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassPolicies {
    /// Managed policies that may be attached, at most 100: names of AWS managed policies with their path, or ARNs, of at
    /// most 640 characters. In names, and in ARNs after `policy/`, `*` matches any characters. A name without an ARN is an
    /// AWS managed policy; `*` alone is every policy, but never one that the operator made for a document. Policies such as `AdministratorAccess` also need
    /// `acknowledgeAdminEquivalent`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(
            length(min = 1, max = 640),
            regex(pattern = format::POLICY_PATTERN)
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed: Vec<String>,

    /// Managed policies of a resource that declares no policies and no groups, at most 10: names or ARNs of at most 640
    /// characters. They must also be listed in `allowed`. Default: none.
    #[serde(default, rename = "default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 10),
        inner(
            length(min = 1, max = 640),
            regex(pattern = format::POLICY)
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub default: Vec<String>,

    /// Which policy documents resources may have: none (`Deny`), only those from `templates` (`TemplatesOnly`), or any
    /// document (`Allow`). A document can grant any permission and is not evaluated: `Allow` needs `permissionsBoundary` or
    /// `acknowledgeAdminEquivalent`. Default: `Deny`.
    #[serde(default)]
    pub documents: DocumentPermission,

    /// How many replaced versions of a document that is a managed policy are kept, 0 to 3, so that an AWS admin can make one of
    /// them the default again. IAM keeps five versions of a policy in all. Default: 1.
    #[serde(default = "default_keep_versions")]
    #[schemars(range(min = 0, max = 3))]
    pub keep_versions: u32,

    /// Templates of policy documents, at most 10. Resources use them in `spec.policies.documents`. A template may grant anything:
    /// it is written by the author of the class, and a resource sets only its parameters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub templates: Vec<PolicyTemplate>,
}

impl Default for ClassPolicies {
    fn default() -> Self {
        Self {
            allowed: Vec::new(),
            default: Vec::new(),
            documents: DocumentPermission::default(),
            keep_versions: default_keep_versions(),
            templates: Vec::new(),
        }
    }
}

fn default_keep_versions() -> u32 {
    1
}

/// Whether something is allowed.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// Not allowed.
    #[default]
    Deny,
    /// Allowed.
    Allow,
}

/// Limits and defaults of the rotation of access keys.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassRotation {
    /// Rotation of resources that declare none.
    #[serde(default)]
    pub default: RotationDefault,

    /// Shortest rotation interval of a resource. The operator's `--min-rotation-interval` applies as well. Default: that flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_every: Option<HumanDuration>,

    /// Longest rotation interval of a resource. `every: Never` exceeds every limit. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_every: Option<HumanDuration>,

    /// Longest `within` of a consumer in `accessKey.handover` of a resource. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_handover: Option<HumanDuration>,
}

/// Rotation of resources that declare none.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationDefault {
    /// Rotation interval. Default: `90d`, or the nearest value that `minEvery` and `maxEvery` allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,

    /// Time for which the previous access key stays Active. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<HumanDuration>,

    /// Longest time after the overlap for which the previous access key stays Active while AWS reports it as used. Applies to
    /// resources that declare neither interval nor overlap. Default: the key is retired when its overlap ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_while_used: Option<HumanDuration>,
}

/// What happens when an IAM user has something that its class no longer allows.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnRevoked {
    /// User and published access key are kept as they are: nothing more is granted and no new key is created.
    #[default]
    Freeze,
    /// All access keys of the operator are set Inactive, and console password, policies and groups are removed; user and
    /// Secret are kept. Access keys that others created are never changed, and allow nothing without policies.
    Deactivate,
    /// `Deactivate`, then user and Secrets are deleted. With an access key that others created the user is kept.
    Delete,
}

/// What happens when AWS quarantines an IAM user because one of its access keys was found in public.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnQuarantine {
    /// The quarantine is reported by condition, Event and metric; the keys are kept.
    #[default]
    Alert,
    /// A new access key replaces every key of the operator that existed when the quarantine was first observed, without
    /// overlap.
    Rotate,
    /// All access keys of the operator are set Inactive and kept until an AWS admin detaches the quarantine policy.
    Revoke,
}

/// Observed state of a class. Informational only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsDeployUserClassStatus {
    /// `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Id of the AWS account that the operator's credentials for this class belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,

    /// Name of the managed policy `spec.permissionsBoundary`. Absent without a boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,

    /// Namespace of the operator that writes this status: the first one that observed the class. Another operator takes over
    /// when the generation of the class has not been observed for a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_namespace: Option<String>,

    /// Number of resources of the class in the namespaces that this operator watches.
    #[serde(default)]
    pub users: i64,

    /// `Ready`: all others are True. `CredentialsValid`: AWS accepts the operator's credentials, or those of `spec.account.roleArn`. `AccountMatches`: they
    /// belong to the account `spec.account.id`. `BoundaryExists`: the permissions boundary exists, or none is set.
    /// `TemplatesValid`: every template of `spec.policies.templates` is valid, or there is none. `Stalled`, present only while
    /// it is True: waiting is useless, because only a change of the class makes it Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// Condition types of a class. `True` is the healthy status of all but `Stalled`, which is present only while it is True.
#[derive(strum::IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassCondition {
    /// Summary: all others are True.
    Ready,
    /// Only a change of the class makes it Ready.
    Stalled,
    /// AWS accepts the credentials that are used for the class.
    CredentialsValid,
    /// The credentials belong to the account of the class.
    AccountMatches,
    /// The permissions boundary exists, or none is set.
    BoundaryExists,
    /// Every template of policy documents is valid, or there is none.
    TemplatesValid,
}

impl ClassCondition {
    /// Name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
