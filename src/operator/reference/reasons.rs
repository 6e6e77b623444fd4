//! The reference of reasons: what each means, who can fix it, and how.

use std::fmt::Write as _;

use strum::VariantArray;

use super::{cell, generated};
use crate::api::{ConditionType, Reason};

pub(super) fn markdown() -> String {
    let source = generated("src/api/condition.rs and src/operator/reference/reasons.rs");
    let conditions: Vec<String> = ConditionType::VARIANTS.iter().map(|name| format!("`{name}`")).collect();
    let mut text = format!(
        "# Reasons\n\n{source}\n\nEvery reason of the conditions {} and of Events; also the values of the label `reason` of \
         metrics. The message\nbeside a reason names the resource, limit or action.\n\n\
         | reason | meaning | who can fix it | how |\n|---|---|---|---|\n",
        conditions.join(", ")
    );
    for reason in Reason::VARIANTS {
        let (who, how) = remedy(*reason);
        let _ = writeln!(text, "| `{reason}` | {} | {who} | {how} |", cell(reason.describe()));
    }
    text
}

const NOTHING: (&str, &str) = ("-", "Nothing to do.");
const AUTHOR: &str = "author";
const CLUSTER_ADMIN: &str = "cluster admin";
const AWS_ADMIN: &str = "AWS admin";
const TRANSIENT: &str = "passes by itself";

/// Who can fix it, and how. Author is the author of the resource.
#[allow(clippy::too_many_lines, reason = "a table: one arm a reason")]
fn remedy(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::Reconciled
        | Reason::Allowed
        | Reason::Published
        | Reason::Scheduled
        | Reason::Overlap
        | Reason::Restarting
        | Reason::UserCreated
        | Reason::UserAdopted
        | Reason::UserDeleted
        | Reason::UserRetained
        | Reason::PasswordSet
        | Reason::Restarted
        | Reason::KeyDeleted
        | Reason::OrphanDeleted => NOTHING,
        Reason::ManualOnly => ("-", "Nothing to do. Annotate the resource with `awsdeploy.dev/rotate` to rotate."),
        Reason::NotRequested => ("-", "Nothing to do. `accessKey: {}` creates a key."),
        Reason::StillUsed => ("consumer of the previous key", "Read the new key from the Secret."),
        Reason::AwaitingHandover => {
            ("owner of the consumer", "Give it the new key, then [confirm it](../handover.md#confirmation).")
        }
        Reason::RotationPending => (TRANSIENT, "Nothing to do; or the author sets a shorter `overlap`."),
        Reason::Pending => (TRANSIENT, "Wait. After minutes: check whether there is a leader."),
        Reason::Verifying => (TRANSIENT, "Wait. AWS takes seconds, at most `settings.verifyTimeout`."),
        Reason::Recovering => (TRANSIENT, "Wait for `settings.recoveryDelay`; no key is lost."),
        Reason::Deleting => (TRANSIENT, "Wait. If it hangs, the message names the cause."),
        Reason::CredentialsRevoked => (AUTHOR, "`spec.credentials: Active` creates a new key."),
        Reason::Paused => (AUTHOR, "Remove the annotation `awsdeploy.dev/paused`."),
        Reason::Quarantined => {
            (AWS_ADMIN, "See [AwsDeployUserQuarantined](../operations.md#awsdeployuserquarantined).")
        }
        Reason::NotAllowed => {
            ("author or cluster admin", "Request what the message says is allowed, or change the class.")
        }
        Reason::Frozen | Reason::Revoked => (CLUSTER_ADMIN, "Allow it again, or have the resource deleted."),
        Reason::WrongAccount => {
            (CLUSTER_ADMIN, "Set `account.roleArn` of the class, or give the operator credentials of that account.")
        }
        Reason::ServedElsewhere => (
            CLUSTER_ADMIN,
            "Stop one of the two operators. To move the resource, see [move the operator to another \
             namespace](../operations.md#move-the-operator-to-another-namespace).",
        ),
        Reason::InvalidSpec => (AUTHOR, "Change the field that the message names."),
        Reason::NotOwned => (
            AUTHOR,
            "Use another `userName` in a new resource, or [adopt](../adoption.md) the user. If it is the same user after a \
             restore, [transfer it](../operations.md#back-up-and-restore).",
        ),
        Reason::SecretConflict => {
            (AUTHOR, "Delete the other Secret, or create the resource again with another `accessKey.secret.name`.")
        }
        Reason::KeyQuotaExceeded => (
            "owner of the foreign key",
            "Delete the key. See [AwsDeployRotationBlocked](../operations.md#awsdeployrotationblocked).",
        ),
        Reason::ForeignKeys => {
            ("owner of the foreign keys, or author", "Delete the keys, or set `deletionPolicy: Force`.")
        }
        Reason::PolicyNotFound => (AUTHOR, "Name a policy that exists, with its path."),
        Reason::PolicyInUse => {
            (AWS_ADMIN, "Detach the policy where the message says; the operator deletes it at the next resync.")
        }
        Reason::GroupNotFound => ("author or AWS admin", "Name another group, or create it."),
        Reason::BoundaryNotFound => {
            ("AWS admin or cluster admin", "Create the policy, or change `permissionsBoundary` of the class.")
        }
        Reason::MalformedPolicy => (AUTHOR, "Fix the document; the message quotes AWS."),
        Reason::LimitExceeded => {
            ("author or AWS admin", "Request less, or have the quota raised. The operator retries every half hour.")
        }
        Reason::AccessDenied => (
            AWS_ADMIN,
            "Allow the action that the message names: [the operator's own IAM policy](../iam-policy.md). A service control \
             policy can deny it too.",
        ),
        Reason::AssumeRoleDenied => (
            AWS_ADMIN,
            "Check the role's trust policy, its external id, and `sts:AssumeRole` of the operator: \
             [AWS accounts](../accounts.md).",
        ),
        Reason::OperatorCredentials => (
            AWS_ADMIN,
            "Check the role of the ServiceAccount, its trust policy, the Pod Identity association: \
             [credentials](../iam-policy.md#the-operators-own-credentials).",
        ),
        Reason::SecretAccessDenied => {
            (CLUSTER_ADMIN, "Add the namespace to `secretAccess.namespaces`; the message has the command.")
        }
        Reason::AdmissionDenied => (
            "author or cluster admin",
            "The message names the policy, webhook or quota: declare what it asks for in `accessKey.secret`, or exempt the Secret.",
        ),
        Reason::RestartFailed => (
            "author or cluster admin",
            "Correct `accessKey.restart`, or add the namespace to `restartAccess.namespaces`; the message has the command.",
        ),
        Reason::RolloutStuck => {
            ("owner of the workload", "See [AwsDeployRolloutStuck](../operations.md#awsdeployrolloutstuck).")
        }
        Reason::HandoverOverdue => {
            ("owner of the consumer", "See [AwsDeployHandoverOverdue](../operations.md#awsdeployhandoveroverdue).")
        }
        Reason::PreviousKeyEnding | Reason::PreviousKeyEndingSoon => {
            ("owner of the consumer", "See [AwsDeployPreviousKeyEnding](../operations.md#awsdeploypreviouskeyending).")
        }
        Reason::ClockSkew => (CLUSTER_ADMIN, "Fix the clock of the operator's node."),
        Reason::UnknownJournal => {
            (CLUSTER_ADMIN, "Install the newer version of the operator again; it completes the rotation.")
        }
        Reason::NoRandomness => (CLUSTER_ADMIN, "The node has no `/dev/urandom`; use another node."),
        Reason::InvalidRequest => ("developer of the operator", "Report it with the message."),
        Reason::Throttled => (TRANSIENT, "If it lasts, see [AwsDeployThrottled](../operations.md#awsdeploythrottled)."),
        Reason::AwsUnavailable => {
            (TRANSIENT, "If it lasts, check egress of the cluster, the proxy, `networkPolicy.ports`, `aws.region`.")
        }
        Reason::KubernetesUnavailable => (TRANSIENT, "If it lasts, check the API server."),
        Reason::Conflict => (TRANSIENT, "Nothing to do."),
        Reason::KeyNotAccepted => {
            (TRANSIENT, "If it repeats, see [AwsDeployKeyNotAccepted](../operations.md#awsdeploykeynotaccepted).")
        }
        Reason::UserRecreated => (AWS_ADMIN, "Find out who deleted the user: its keys were deleted with it."),
        Reason::UserAdoptable => {
            ("author or AWS admin", "Withdraw the consent now if it is the wrong user ([adoption](../adoption.md)).")
        }
        Reason::UserChanged => ("-", "Nothing to do. As a warning: someone had changed the user in AWS."),
        Reason::PolicyWarning => (
            "author or AWS admin",
            "Correct the document, or delete the versions: [policy documents](../policies.md#warnings). The list of \
                 services ages.",
        ),
        Reason::KeyDeactivated => {
            ("-", "Nothing to do; or [the key is still needed](../operations.md#a-previous-key-is-still-needed).")
        }
        Reason::SecretRepaired => ("-", "Nothing to do. If it repeats: another client writes the Secret too."),
    }
}
