//! The marks by which we recognise what is ours: labels and annotations in
//! Kubernetes, tags in IAM, the finalizer. One list, so that no mark is spelled twice.

/// Finalizer on an `AwsDeployUser` while there may be something of it in AWS.
pub const FINALIZER: &str = "awsdeploy.dev/iam-user";

/// Prefix of all our IAM tags; users may not declare tags below it.
pub const TAG_PREFIX: &str = "awsdeploy.dev/";
/// IAM tag: id of the cluster that owns the user.
pub const TAG_CLUSTER: &str = "awsdeploy.dev/cluster";
/// IAM tag: namespace of the owning `AwsDeployUser`.
pub const TAG_NAMESPACE: &str = "awsdeploy.dev/namespace";
/// IAM tag: name of the owning `AwsDeployUser`.
pub const TAG_NAME: &str = "awsdeploy.dev/name";
/// IAM tag: UID of the owning `AwsDeployUser`.
pub const TAG_UID: &str = "awsdeploy.dev/uid";
/// IAM tag: `accessKey.useCase` as declared. The console shows the use case as advice and stores it nowhere.
pub const TAG_USE_CASE: &str = "awsdeploy.dev/use-case";
/// IAM tag: the user has console access; the value is the name of the Secret.
pub const TAG_CONSOLE: &str = "awsdeploy.dev/console";
/// IAM tag, set by an AWS admin and never by us: the resource that may take the user over.
pub const TAG_ADOPTABLE_BY: &str = "awsdeploy.dev/adoptable-by";
/// IAM tag: when the user's quarantine by AWS was first seen, RFC 3339. Keys made until then are replaced for it.
pub const TAG_QUARANTINED_AT: &str = "awsdeploy.dev/quarantined-at";
/// IAM tag prefix: one tag per access key that this operator made and published.
pub const TAG_KEY_PREFIX: &str = "awsdeploy.dev/key/";

/// Annotation on the resource: any new value asks for a rotation.
pub const ANNOTATION_ROTATE: &str = "awsdeploy.dev/rotate";

/// Annotation on a class: `"true"` makes it the class of resources that name none.
pub const ANNOTATION_DEFAULT_CLASS: &str = "awsdeploy.dev/is-default-class";

/// Annotation on the resource: name of its IAM user, written with the finalizer when a class has chosen it. Another
/// template must not make a second user.
pub const ANNOTATION_USER_NAME: &str = "awsdeploy.dev/user-name";

/// Annotation on the resource: id of the AWS account of its IAM user, written with the finalizer. The user has to be
/// found there even if its making was cut off and its class is gone.
pub const ANNOTATION_ACCOUNT: &str = "awsdeploy.dev/account";

/// Annotation on the resource: any new value asks for a new console password.
pub const ANNOTATION_RESET_PASSWORD: &str = "awsdeploy.dev/reset-password";

/// Annotation on the console Secret: `pending` until AWS has taken the password, then `applied`.
pub const ANNOTATION_PASSWORD_STATE: &str = "awsdeploy.dev/password";
/// Annotation on the console Secret: the reset request that its password honours.
pub const ANNOTATION_RESET_HONOURED: &str = "awsdeploy.dev/reset-honoured";

/// Annotation on the published Secret: id of the key it holds.
pub const ANNOTATION_KEY_ID: &str = "awsdeploy.dev/access-key-id";
/// Annotation on the published Secret: when this key was published, RFC 3339.
pub const ANNOTATION_PUBLISHED_AT: &str = "awsdeploy.dev/published-at";
/// Annotation on the published Secret: the rotate request that this key honours.
pub const ANNOTATION_ROTATE_HONOURED: &str = "awsdeploy.dev/rotate-honoured";
/// Annotation on the published Secret: SHA-256 over id and secret, tells an edit by hand from our own write.
pub const ANNOTATION_CHECKSUM: &str = "awsdeploy.dev/checksum";
/// Annotation on the published Secret: the abandoned attempt whose late publication this write has fenced off.
pub const ANNOTATION_FENCE: &str = "awsdeploy.dev/fence";
/// Annotation on the published Secret: names of earlier target Secrets that still wait for their key to retire.
pub const ANNOTATION_PREVIOUS_SECRETS: &str = "awsdeploy.dev/previous-secrets";
/// Annotation on the published Secret: `accessKey.useCase` as declared.
pub const ANNOTATION_USE_CASE: &str = "awsdeploy.dev/use-case";
/// Annotation on the published Secret: `accessKey.description` as declared.
pub const ANNOTATION_DESCRIPTION: &str = "awsdeploy.dev/description";

/// Annotation on the published Secret: how far the restarts of workloads are that its key asks for, as JSON.
pub const ANNOTATION_RESTARTS: &str = "awsdeploy.dev/restarts";

/// Prefix of an annotation on the pod template of a workload; the name of the resource follows, and the value is the id
/// of the key that the workload was restarted for.
pub const POD_TEMPLATE_KEY_PREFIX: &str = "key.awsdeploy.dev/";

/// Prefix of labels and annotations that people may not set through `accessKey.secret`.
pub const RESERVED_PREFIX: &str = "awsdeploy.dev/";

/// Label on our Secrets, the Kubernetes convention.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label on our Secrets: name of the `AwsDeployUser`.
pub const LABEL_USER: &str = "awsdeploy.dev/user";
/// Label on our Secrets: `published` or `journal`.
pub const LABEL_ROLE: &str = "awsdeploy.dev/role";

/// Suffix of the journal Secret's name.
pub const JOURNAL_SUFFIX: &str = ".awsdeploy-journal";

/// Annotation on the published Secret: labels, annotations and data keys that we set, as JSON. What
/// is listed here and no longer declared is removed; everything else belongs to others and stays.
pub const ANNOTATION_OWNED: &str = "awsdeploy.dev/owned";
