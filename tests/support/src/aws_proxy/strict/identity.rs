//! `GetCallerIdentity`, answered from the signature check. The emulator takes any key it does not know for
//! `user/moto`, so that a dead key would look alive.

use super::super::call::Call;
use super::super::caller::Identity;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::Work;

/// `GetCallerIdentity`: needs no permission and works even under an explicit deny.
pub(super) async fn get_caller_identity(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let (id, arn) = match &work.caller.identity {
        Identity::User(name) => {
            let user = match work.ask(&Call::iam("GetUser").with("UserName", name)).await {
                Ok(user) => user,
                // Deleted behind our back, keys and all.
                Err(error) if error.code == "NoSuchEntity" => return Err(AwsError::invalid_client_token()),
                Err(error) => return Err(error),
            };
            (xml::text_in(&user, "UserId").unwrap_or_default(), xml::text_in(&user, "Arn").unwrap_or_default())
        }
        Identity::Session { arn, id } => (id.clone(), arn.clone()),
        Identity::Trusted | Identity::Anonymous | Identity::Administrator => {
            ("AROAOPERATOROPERATOR0:operator".to_owned(), work.account().caller_arn(work.caller))
        }
    };
    Ok(work.success(
        &(xml::leaf("UserId", &id) + &xml::leaf("Account", &work.account_ref().account) + &xml::leaf("Arn", &arn)),
    ))
}
