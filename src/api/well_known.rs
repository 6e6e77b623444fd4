//! Well-known names: finalizer, labels and annotations in Kubernetes, tags in IAM. They identify what the operator owns.

/// Finalizer of an `AwsDeployUser` while something of it may exist in AWS.
pub const FINALIZER: &str = "awsdeploy.dev/iam-user";

/// Prefix of the IAM tags of the operator. Users may not declare tags with it.
pub const TAG_PREFIX: &str = "awsdeploy.dev/";
/// IAM tag: id of the cluster that owns the user.
pub const TAG_CLUSTER: &str = "awsdeploy.dev/cluster";
/// IAM tag: namespace of the owning `AwsDeployUser`.
pub const TAG_NAMESPACE: &str = "awsdeploy.dev/namespace";
/// IAM tag: name of the owning `AwsDeployUser`.
pub const TAG_NAME: &str = "awsdeploy.dev/name";
/// IAM tag: UID of the owning `AwsDeployUser`.
pub const TAG_UID: &str = "awsdeploy.dev/uid";
/// IAM tag: declared `accessKey.useCase`. IAM has no field for it.
pub const TAG_USE_CASE: &str = "awsdeploy.dev/use-case";
/// IAM tag: name of the Secret with the console password of the user.
pub const TAG_CONSOLE: &str = "awsdeploy.dev/console";
/// IAM tag that only an AWS admin sets: the resource that may adopt the user.
pub const TAG_ADOPTABLE_BY: &str = "awsdeploy.dev/adoptable-by";
/// IAM tag: when the quarantine of the user was first observed, RFC 3339. Keys created until then are replaced.
pub const TAG_QUARANTINED_AT: &str = "awsdeploy.dev/quarantined-at";
/// IAM tag: how long a superseded key stays Active at most, as a class last allowed it: the overlap with its longest extension,
/// ISO 8601 (`PT24H`). The spec of a resource that no class allows, or that is invalid, prolongs nothing.
pub const TAG_OVERLAP: &str = "awsdeploy.dev/overlap";
/// Prefix of the IAM tags of the access keys that the operator created and published, one tag per key: in which time it was the
/// newest one.
pub const TAG_KEY_PREFIX: &str = "awsdeploy.dev/key/";

/// Annotation of the resource: each new value requests one rotation.
pub const ANNOTATION_ROTATE: &str = "awsdeploy.dev/rotate";

/// Annotation of the resource: each new value ends a back-off and reconciles the resource now.
pub const ANNOTATION_RETRY: &str = "awsdeploy.dev/retry";

/// Annotation of the resource: `"true"` stops all that creates, changes or rotates; access is still taken away.
pub const ANNOTATION_PAUSED: &str = "awsdeploy.dev/paused";

/// Prefix of an annotation of the resource. The name of a consumer of `accessKey.handover` follows; the value is the id of the
/// access key that the consumer confirms to use.
pub const ANNOTATION_HANDOVER_PREFIX: &str = "handover.awsdeploy.dev/";

/// Annotation of a class: `"true"` makes it the default class.
pub const ANNOTATION_DEFAULT_CLASS: &str = "awsdeploy.dev/is-default-class";

/// Annotation of the resource: each new value requests one new console password.
pub const ANNOTATION_RESET_PASSWORD: &str = "awsdeploy.dev/reset-password";

/// Annotation of the console Secret: `pending` until AWS has accepted the password, then `applied`.
pub const ANNOTATION_PASSWORD_STATE: &str = "awsdeploy.dev/password";
/// Annotation of the console Secret: the last reset request that was carried out.
pub const ANNOTATION_RESET_HONOURED: &str = "awsdeploy.dev/reset-honoured";

/// Annotation of the published Secret: id of its access key.
pub const ANNOTATION_KEY_ID: &str = "awsdeploy.dev/access-key-id";
/// Annotation of the published Secret: when its key was published, RFC 3339.
pub const ANNOTATION_PUBLISHED_AT: &str = "awsdeploy.dev/published-at";
/// Annotation of the published Secret: the last rotate request that was carried out.
pub const ANNOTATION_ROTATE_HONOURED: &str = "awsdeploy.dev/rotate-honoured";
/// Annotation of the published Secret: keyed MAC over its key and the annotations about it, `v1:<id of the MAC key>:<hex>`.
pub const ANNOTATION_MAC: &str = "awsdeploy.dev/mac";
/// Annotation of the console Secret: SHA-256 over user name and password, which detects manual edits.
pub const ANNOTATION_CHECKSUM: &str = "awsdeploy.dev/checksum";
/// Annotation of the published Secret: the abandoned attempt whose late publication this write has fenced off.
pub const ANNOTATION_FENCE: &str = "awsdeploy.dev/fence";
/// Annotation of the published Secret: declared `accessKey.useCase`.
pub const ANNOTATION_USE_CASE: &str = "awsdeploy.dev/use-case";
/// Annotation of the published Secret: declared `accessKey.description`.
pub const ANNOTATION_DESCRIPTION: &str = "awsdeploy.dev/description";

/// Annotation of the published Secret: progress of the workload restarts for its key, as JSON.
pub const ANNOTATION_RESTARTS: &str = "awsdeploy.dev/restarts";

/// Prefix of an annotation of the pod template of a workload. The name of the resource follows; the value is the id of the
/// access key that the workload was restarted for.
pub const POD_TEMPLATE_KEY_PREFIX: &str = "key.awsdeploy.dev/";

/// Prefix of labels and annotations that `accessKey.secret` may not set.
pub const RESERVED_PREFIX: &str = "awsdeploy.dev/";

/// Recommended label of Kubernetes for the tool that manages an object.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of the operator's Secrets in tenant namespaces: name of the `AwsDeployUser`.
pub const LABEL_USER: &str = "awsdeploy.dev/user";
/// Label of the operator's Secrets: `published`, `console` or `journal`.
pub const LABEL_ROLE: &str = "awsdeploy.dev/role";

/// Value of [`LABEL_ROLE`] of a journal.
pub const ROLE_JOURNAL: &str = "journal";

/// Prefix of the name of a journal Secret in the operator's namespace. The UID of the `AwsDeployUser` follows.
pub const JOURNAL_PREFIX: &str = "awsdeploy-journal-";
/// Annotation of a journal: namespace of the `AwsDeployUser`.
pub const ANNOTATION_RESOURCE_NAMESPACE: &str = "awsdeploy.dev/resource-namespace";
/// Annotation of a journal: name of the `AwsDeployUser`.
pub const ANNOTATION_RESOURCE_NAME: &str = "awsdeploy.dev/resource-name";
/// Annotation of all Secrets of the operator: UID of the `AwsDeployUser`. Identifies a Secret that has no owner reference.
pub const ANNOTATION_RESOURCE_UID: &str = "awsdeploy.dev/resource-uid";
/// Annotation of a journal: id of the AWS account of the IAM user.
pub const ANNOTATION_ACCOUNT: &str = "awsdeploy.dev/account";
/// Annotation of a journal: name of the IAM user.
pub const ANNOTATION_USER_NAME: &str = "awsdeploy.dev/iam-user";
/// Annotation of a journal: when its attempt began, RFC 3339.
pub const ANNOTATION_STARTED_AT: &str = "awsdeploy.dev/started-at";

/// Name of the Secret in the operator's namespace with the keys that sign published Secrets.
pub const INTEGRITY_KEY_SECRET: &str = "awsdeploy-integrity-key";

/// Annotation of the published Secret: labels, annotations and data keys that the operator set, as JSON. An entry that is
/// no longer declared is removed; everything else in the Secret belongs to others and is kept.
pub const ANNOTATION_OWNED: &str = "awsdeploy.dev/owned";
