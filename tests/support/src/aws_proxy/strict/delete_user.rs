//! `DeleteUser` fails while anything hangs on the user. The emulator only looks at policies.
//!
//! The list is the one of the API reference (password, access keys, inline and attached policies, groups, MFA devices,
//! SSH keys, signing certificates, service-specific credentials); the messages are those that AWS has been seen to
//! send (rebuy-de/aws-nuke#281, cloud-custodian#1663, mozilla-services/userplex#17, ucopacme/aws-orgs#69). Which of
//! them comes for SSH keys, certificates and service-specific credentials was not found and is assumed, as is the
//! order in which AWS looks.

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Work, users};

/// What blocks, how it is found, and what AWS says.
struct Blocker {
    action: &'static str,
    /// An element that is there once for each thing found.
    element: &'static str,
    message: &'static str,
}

const BLOCKERS: [Blocker; 8] = [
    Blocker {
        action: "GetLoginProfile",
        element: "LoginProfile",
        message: "Cannot delete entity, must delete login profile first.",
    },
    Blocker {
        action: "ListAccessKeys",
        element: "AccessKeyId",
        message: "Cannot delete entity, must delete access keys first.",
    },
    Blocker {
        action: "ListMFADevices",
        element: "SerialNumber",
        message: "Cannot delete entity, must delete MFA device first.",
    },
    Blocker {
        action: "ListSigningCertificates",
        element: "CertificateId",
        message: "Cannot delete entity, must delete signing certificates first.",
    },
    Blocker {
        action: "ListSSHPublicKeys",
        element: "SSHPublicKeyId",
        message: "Cannot delete entity, must remove referenced objects first.",
    },
    Blocker {
        action: "ListUserPolicies",
        element: "member",
        message: "Cannot delete entity, must delete policies first.",
    },
    Blocker {
        action: "ListAttachedUserPolicies",
        element: "PolicyArn",
        message: "Cannot delete entity, must detach all policies first.",
    },
    Blocker {
        action: "ListGroupsForUser",
        element: "GroupName",
        message: "Cannot delete entity, must remove users from group first.",
    },
];

/// `DeleteUser`.
pub(super) async fn delete(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    let _lock = work.account().lock_user(work.account_ref(), user).await;
    work.user_exists(user).await?;
    // A list of names that is taken while a name goes would keep it for ever.
    users::learn_names(work).await?;
    let checks = BLOCKERS.iter().map(|blocker| blocks(work, user, blocker));
    futures::future::try_join_all(checks).await?;
    if !work.account().keys_beyond_quota(work.account_ref(), user).is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must delete access keys first."));
    }
    if !work.account().user(work.account_ref(), user).service_credentials.is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must remove referenced objects first."));
    }
    let answer = work.forward_as(&work.call.clone().with("UserName", user)).await?;
    if answer.is_success() {
        work.account().user_gone(work.account_ref(), user);
    }
    Ok(answer)
}

async fn blocks(work: &Work<'_>, user: &str, blocker: &Blocker) -> Result<(), AwsError> {
    match work.ask(&Call::iam(blocker.action).with("UserName", user)).await {
        Ok(found) if xml::texts_in(&found, blocker.element).is_empty() => Ok(()),
        Ok(_) => Err(AwsError::delete_conflict(blocker.message)),
        // No login profile.
        Err(error) if error.code == "NoSuchEntity" => Ok(()),
        Err(error) => Err(error),
    }
}
