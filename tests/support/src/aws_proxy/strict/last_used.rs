//! `GetAccessKeyLastUsed`, from the uses that the signature check recorded, with the delay and granularity of AWS. The
//! emulator reports every request at once, including those that AWS would reject.

use super::super::caller::Identity;
use super::super::key::KeyState;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Operation, names};

/// `GetAccessKeyLastUsed`.
pub(super) fn get(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let id = operation.call.required("AccessKeyId")?;
    names::check_access_key_id(id)?;
    let key = operation
        .account()
        .key(id)
        .filter(|key| key.account_ref == *operation.account_ref() && key.state() != KeyState::Deleted);
    let Some(Identity::User(owner)) = key.map(|key| key.owner) else {
        // AWS does not reveal that a key is unknown: it may belong to another account.
        return Err(AwsError::access_denied(
            &operation.account().caller_arn(operation.caller),
            "iam:GetAccessKeyLastUsed",
            &format!("access key {id}"),
        ));
    };
    let used = match operation.account().last_used(id) {
        Some(used) => {
            xml::leaf("LastUsedDate", &used.at.to_string())
                + &xml::leaf("ServiceName", &used.service)
                + &xml::leaf("Region", &used.region)
        }
        // The response for an unused key has no date.
        None => xml::leaf("ServiceName", "N/A") + &xml::leaf("Region", "N/A"),
    };
    Ok(operation.success(&(xml::leaf("UserName", &owner) + &xml::wrap("AccessKeyLastUsed", &used))))
}
