//! `AwsDeployUserClass`: what a cluster admin allows. Without a class nobody gets an IAM user.

#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::HumanDuration;
pub use super::template::{InlinePermission, PolicyTemplate, TemplateParameter};

/// What is allowed to the `AwsDeployUser`s that name this class. Everything that is not mentioned is denied.
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
    doc = "What a cluster admin allows to AwsDeployUsers: where, under which names, with which policies. No class, no user. The class with the annotation awsdeploy.dev/is-default-class: \"true\" is for resources that name none.",
    printcolumn(
        name = "Default",
        type_ = "string",
        json_path = r".metadata.annotations.awsdeploy\.dev/is-default-class"
    ),
    printcolumn(name = "Account", type_ = "string", json_path = ".status.account"),
    printcolumn(name = "Users", type_ = "integer", json_path = ".status.users"),
    printcolumn(
        name = "Credentials",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="CredentialsValid")].status"#
    ),
    printcolumn(
        name = "Account-Matches",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="AccountMatches")].status"#
    ),
    printcolumn(
        name = "Boundary",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="BoundaryExists")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.users.path", priority = 1),
    printcolumn(name = "On-Revoked", type_ = "string", json_path = ".spec.onRevoked", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.account) == has(oldSelf.account)")
    .message("account is immutable: users that exist are not moved; make another class"))]
pub struct AwsDeployUserClassSpec {
    /// The AWS account that the users live in. Absent: the one of the operator's own credentials, whichever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<ClassAccount>,

    /// The namespaces that the class serves. Absent or empty: none.
    #[serde(default)]
    pub namespaces: ClassNamespaces,

    /// Where the IAM users are, and how they are called.
    #[serde(default)]
    pub users: ClassUsers,

    /// Policies that users may have.
    #[serde(default)]
    pub policies: ClassPolicies,

    /// ARN of the managed policy that limits every user of the class, whatever it is granted. Set in the call that
    /// makes a user and put back when it is changed. Absent: no limit but the policies themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 640),
        regex(
            pattern = r"^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,128}$"
        )
    )]
    pub permissions_boundary: Option<String>,

    /// Groups that users may be in, at most 100: names, or patterns in which `*` stands for anything. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9+=,.@_*-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,

    /// Whether users may have access to the AWS console.
    #[serde(default)]
    pub console: Permission,

    /// Whether IAM users that exist may be taken over, by resources that ask for it (`spec.adoption`). It takes the consent
    /// of an AWS admin too: a tag on the user that names the resource.
    #[serde(default)]
    pub adoption: Permission,

    /// Whether resources may have workloads of their namespace restarted when a new key is published
    /// (`accessKey.restart`).
    #[serde(default)]
    pub restart: Permission,

    /// How often access keys are replaced.
    #[serde(default)]
    pub rotation: ClassRotation,

    /// Tags that every user of the class carries, at most 20. A resource cannot set them to something else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20), schema_with = "super::user::tags")]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[\\\\p{L}\\\\p{Z}\\\\p{N}_.:/=+@-]{1,128}$'))")
        .message("tag keys have 1 to 128 characters: letters, digits, spaces and _ . : / = + @ -"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.lowerAscii().startsWith('aws:') && !k.lowerAscii().startsWith('awsdeploy.dev/'))")
        .message("tag keys may not start with aws: (reserved by AWS) or awsdeploy.dev/ (used by this operator)"))]
    pub tags: BTreeMap<String, String>,

    /// What happens to a user that has what the class no longer allows, or whose namespace or class is gone.
    #[serde(default)]
    pub on_revoked: OnRevoked,

    /// What follows when AWS has found an access key of a user in public and attached its quarantine policy
    /// (`AWSCompromisedKeyQuarantine`...), which is never detached.
    #[serde(default)]
    pub on_quarantine: OnQuarantine,

    /// Must be true for policies that make whoever has the key an administrator of the account: `AdministratorAccess`,
    /// `IAMFullAccess`, `PowerUserAccess` and their like, and inline policies with the same power. Such users belong
    /// into an account of their own.
    #[serde(default)]
    pub acknowledge_admin_equivalent: bool,
}

/// The account of a class.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.roleArn) || self.roleArn.split(':')[4] == self.id")
    .message("account.roleArn must be a role of the account account.id"))]
#[x_kube(validation = Rule::new("!has(self.externalId) || has(self.roleArn)")
    .message("account.externalId is for account.roleArn, which is missing"))]
pub struct ClassAccount {
    /// Account id, twelve digits. Immutable. Nothing is written to AWS before its own answer says that this is the account.
    #[schemars(regex(pattern = r"^[0-9]{12}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("account.id is immutable: users that exist are not moved; make another class"))]
    pub id: String,

    /// ARN of the IAM role in that account that the operator takes (`sts:AssumeRole`) for everything it does for the class.
    /// Its trust policy has to allow the operator to; `aws-deploy-user-operator iam-policy --class` prints all that is
    /// needed. Can be changed to another role of the account. Absent: the operator's own credentials, which must be of that
    /// account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 640),
        regex(pattern = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,64}$")
    )]
    pub role_arn: Option<String>,

    /// The external id that the trust policy of the role asks for (`sts:ExternalId`), 2 to 1224 characters. It is no
    /// secret, but keeps others who may also ask the operator for roles from getting into this one. Absent: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224), regex(pattern = r"^[A-Za-z0-9_+=,.@:/-]+$"))]
    pub external_id: Option<String>,
}

/// The namespaces that a class serves: those that are named, and those whose labels fit.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassNamespaces {
    /// Names of namespaces, at most 500. `*` is every namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 500),
        inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,

    /// Labels of namespaces. Whoever may label a namespace can bring it under the class: prefer names, or labels that
    /// only admins set. An empty selector fits nothing.
    #[serde(default, skip_serializing_if = "NamespaceSelector::is_empty")]
    pub selector: NamespaceSelector,
}

/// Labels that a namespace must have: all of them, and all expressions.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels with their values, at most 20.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub match_labels: BTreeMap<String, String>,

    /// Further conditions, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub match_expressions: Vec<LabelExpression>,
}

impl NamespaceSelector {
    /// Whether it says nothing. Such a selector fits nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

/// A condition on one label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct LabelExpression {
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,

    /// `In` and `NotIn` compare with `values`, `Exists` and `DoesNotExist` look for the label itself. A namespace without
    /// the label fits `NotIn`.
    pub operator: LabelOperator,

    /// Values, at most 20, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is looked at.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    /// It is there with one of the values.
    In,
    /// It is not there, or with another value.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// Where the IAM users of a class are, and how they are called.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassUsers {
    /// Path of the IAM users. Immutable, because users that exist are not moved. It is the fence of the operator's own
    /// IAM policy.
    #[serde(default = "default_path")]
    #[schemars(length(max = 512), regex(pattern = r"^/([\x21-\x2e\x30-\x7e]+/)*$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("users.path is immutable: users that exist are not moved; make another class"))]
    pub path: String,

    /// Name of the IAM user of a resource that sets no `userName`: `{namespace}` and `{name}` are those of the resource,
    /// `{hash}` is eight hexadecimal digits of cluster, namespace and name. Users that exist keep their names.
    #[serde(default = "default_template")]
    #[schemars(length(max = 128), regex(pattern = r"^([A-Za-z0-9+=,.@_-]|\{namespace\}|\{name\}|\{hash\})+$"))]
    #[x_kube(validation = Rule::new("self.contains('{name}') || self.contains('{hash}')")
        .message("nameTemplate needs {name} or {hash}, or two resources would claim one user"))]
    pub name_template: String,

    /// Regular expression (RE2) that a user's name must fit as a whole, from the template or from `userName`. Default: any name.
    #[serde(default = "default_pattern")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("'x'.matches(self) || !'x'.matches(self)").message("namePattern is no regular expression (RE2)"))]
    pub name_pattern: String,

    /// How many resources of the class a namespace may have. Those that come later wait for one to go. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5000))]
    pub max_per_namespace: Option<u32>,
}

impl Default for ClassUsers {
    fn default() -> Self {
        Self {
            path: default_path(),
            name_template: default_template(),
            name_pattern: default_pattern(),
            max_per_namespace: None,
        }
    }
}

fn default_path() -> String {
    "/awsdeploy/".to_owned()
}

fn default_template() -> String {
    "{namespace}-{name}".to_owned()
}

fn default_pattern() -> String {
    ".*".to_owned()
}

/// Policies that users of a class may have.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassPolicies {
    /// Managed policies, at most 100: names of AWS managed policies with their path, or ARNs. In the part after
    /// `policy/`, and in names, `*` stands for anything; a name alone is a policy of AWS, but for `*` alone, which is every
    /// policy. A pattern that covers policies like `AdministratorAccess` allows
    /// them only with `acknowledgeAdminEquivalent`. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(
            length(min = 1, max = 640),
            regex(pattern = r"^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/)?[A-Za-z0-9+=,.@_/*-]+$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed: Vec<String>,

    /// Managed policies, at most 10, of a resource that declares no policies and no groups: names or ARNs, as in
    /// `spec.policies.managed` there. They must be allowed too. Absent: such a user has none.
    #[serde(default, rename = "default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 10),
        inner(
            length(min = 1, max = 640),
            regex(
                pattern = r"^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/)?([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,128}$"
            )
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub default: Vec<String>,

    /// Which inline policies resources may have: none (`Deny`), those that `templates` make (`TemplatesOnly`), or any
    /// (`Allow`). Documents of their own can say anything: allow them only with a permissions boundary, or to people who may
    /// do everything in the account anyway.
    #[serde(default)]
    pub inline: InlinePermission,

    /// Templates of inline policies, at most 10, that resources fill in (`spec.policies.inline` there). What comes of them is
    /// weighed like any other document. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub templates: Vec<PolicyTemplate>,
}

/// Yes or no.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// No.
    #[default]
    Deny,
    /// Yes.
    Allow,
}

/// How often access keys of a class are replaced.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassRotation {
    /// What holds for resources that say nothing of their own.
    #[serde(default)]
    pub default: RotationDefault,

    /// Smallest rotation interval of a resource. Absent: the operator's `--min-rotation-interval`, which holds in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_every: Option<HumanDuration>,

    /// Largest rotation interval of a resource; `Never` exceeds every limit. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_every: Option<HumanDuration>,
}

/// Rotation of resources that say nothing of their own.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationDefault {
    /// Interval. Absent: `90d`, or the nearest that `minEvery` and `maxEvery` allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,

    /// How long an old key stays Active. Absent: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<HumanDuration>,
}

/// What happens when a user has what its class no longer allows.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnRevoked {
    /// User and published key stay as they are: nothing more is granted, no new key is made.
    #[default]
    Freeze,
    /// All keys that the operator made are set Inactive and a console password is removed; the user stays.
    Deactivate,
    /// `Deactivate`, then policies, user and Secrets are removed. Keys that others made are never touched: they keep the
    /// user, without any policy.
    Delete,
}

/// What follows when AWS has found an access key of the user in public and quarantines the user for it.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnQuarantine {
    /// It is told by condition, Event and metric; nothing is done.
    #[default]
    Alert,
    /// A new key replaces every key of the operator that existed when it was seen, without overlap.
    Rotate,
    /// All keys of the operator are Inactive and kept until a person has detached the policy.
    Suspend,
}

/// What the operator found. A report only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsDeployUserClassStatus {
    /// `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Id of the AWS account that the operator reaches for this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,

    /// How many resources belong to the class, in the namespaces that the operator looks after.
    #[serde(default)]
    pub users: i64,

    /// `CredentialsValid`: AWS accepts the operator, in the role of the class if it has one. `AccountMatches`: the account is the one of `spec.account.id`.
    /// `BoundaryExists`: the permissions boundary exists; true without one. `TemplatesValid`: every template of `policies`
    /// can be used; true without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// The conditions of a class. All are positive: `True` is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassCondition {
    /// AWS accepts the operator.
    CredentialsValid,
    /// The account is the one that the class asks for.
    AccountMatches,
    /// The permissions boundary exists, or there is none.
    BoundaryExists,
    /// Every template of inline policies can be used, or there is none.
    TemplatesValid,
}

impl ClassCondition {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CredentialsValid => "CredentialsValid",
            Self::AccountMatches => "AccountMatches",
            Self::BoundaryExists => "BoundaryExists",
            Self::TemplatesValid => "TemplatesValid",
        }
    }
}
