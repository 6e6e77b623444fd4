//! `GetAccessKeyLastUsed` from what the signature check has seen: late, and by the quarter of an hour, as AWS tracks
//! it. The emulator reports every request at once, also those that AWS would have refused.

use super::super::caller::Identity;
use super::super::key::KeyState;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Work, names};

/// `GetAccessKeyLastUsed`.
pub(super) fn get(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let id = work.call.required("AccessKeyId")?;
    names::check_access_key_id(id)?;
    let key =
        work.account().key(id).filter(|key| key.account_ref == *work.account_ref() && key.state() != KeyState::Deleted);
    let Some(Identity::User(owner)) = key.map(|key| key.owner) else {
        // AWS does not say that a key is unknown: it might be another account's.
        return Err(AwsError::access_denied(
            &work.account().caller_arn(work.caller),
            "iam:GetAccessKeyLastUsed",
            &format!("access key {id}"),
        ));
    };
    let used = match work.account().last_used(id) {
        Some(used) => {
            xml::leaf("LastUsedDate", &used.at.to_string())
                + &xml::leaf("ServiceName", &used.service)
                + &xml::leaf("Region", &used.region)
        }
        // Without a date: a key that was never used has none.
        None => xml::leaf("ServiceName", "N/A") + &xml::leaf("Region", "N/A"),
    };
    Ok(work.success(&(xml::leaf("UserName", &owner) + &xml::wrap("AccessKeyLastUsed", &used))))
}
