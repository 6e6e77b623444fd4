//! `GetCallerIdentity`, answered from the result of the signature check. The emulator maps every unknown key to
//! `user/moto`, so that a deleted key would seem valid.

use super::super::call::Call;
use super::super::caller::Identity;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::Operation;

/// `GetCallerIdentity`.
pub(super) async fn get_caller_identity(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let (id, arn) = match &operation.caller.identity {
        Identity::User(name) => {
            let user = match operation.query(&Call::iam("GetUser").with("UserName", name)).await {
                Ok(user) => user,
                // The user was deleted in the emulator without the proxy, and with it its keys.
                Err(error) if error.code == "NoSuchEntity" => return Err(AwsError::invalid_client_token()),
                Err(error) => return Err(error),
            };
            (xml::text_in(&user, "UserId").unwrap_or_default(), xml::text_in(&user, "Arn").unwrap_or_default())
        }
        Identity::Session { arn, id } => (id.clone(), arn.clone()),
        Identity::Trusted | Identity::Anonymous | Identity::Administrator => {
            ("AROAOPERATOROPERATOR0:operator".to_owned(), operation.account().caller_arn(operation.caller))
        }
    };
    Ok(operation.success(
        &(xml::leaf("UserId", &id) + &xml::leaf("Account", &operation.account_ref().account) + &xml::leaf("Arn", &arn)),
    ))
}
