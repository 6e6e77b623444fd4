//! `DeleteUser` fails while the user has deletion blockers. The emulator checks policies only.
//!
//! The blockers are those of the API reference (password, access keys, inline and attached policies, groups, MFA
//! devices, SSH keys, signing certificates, service-specific credentials). The messages are those observed on AWS
//! (rebuy-de/aws-nuke#281, cloud-custodian#1663, mozilla-services/userplex#17, ucopacme/aws-orgs#69). The message for
//! SSH keys, certificates and service-specific credentials, and the order of the checks, are assumptions.

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Operation, users};

/// A deletion blocker: the call that lists it, and the error message of AWS.
struct Blocker {
    action: &'static str,
    /// The element that occurs once per listed item.
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
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    operation.check_user_exists(user).await?;
    // Import names first: an import during the deletion would keep the name in the index.
    users::import_names(operation).await?;
    let checks = BLOCKERS.iter().map(|blocker| blocks(operation, user, blocker));
    futures::future::try_join_all(checks).await?;
    if !operation.account().keys_beyond_quota(operation.account_ref(), user).is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must delete access keys first."));
    }
    if !operation.account().user(operation.account_ref(), user).service_credentials.is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must remove referenced objects first."));
    }
    let response = operation.forward_as(&operation.call.clone().with("UserName", user)).await?;
    if response.is_success() {
        operation.account().remove_user(operation.account_ref(), user);
    }
    Ok(response)
}

async fn blocks(operation: &Operation<'_>, user: &str, blocker: &Blocker) -> Result<(), AwsError> {
    match operation.query(&Call::iam(blocker.action).with("UserName", user)).await {
        Ok(found) if xml::texts_in(&found, blocker.element).is_empty() => Ok(()),
        Ok(_) => Err(AwsError::delete_conflict(blocker.message)),
        // The user has no login profile.
        Err(error) if error.code == "NoSuchEntity" => Ok(()),
        Err(error) => Err(error),
    }
}
