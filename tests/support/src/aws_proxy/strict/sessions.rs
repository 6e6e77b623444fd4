//! STS actions that issue credentials: the sessions are registered for the signature check.

use super::super::account::NewSession;
use super::super::caller::AccountRef;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::Operation;

/// An STS action that issues credentials.
pub(super) async fn issue_credentials(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let response = operation.forward().await?;
    if !response.is_success() {
        return Ok(response);
    }
    let text = |name: &str| xml::text_in(&response.body, name);
    if let (Some(key_id), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) {
        let arn = text("Arn").unwrap_or_else(|| operation.account().caller_arn(operation.caller));
        operation.account().record_session(NewSession {
            account_ref: account_ref_of(&arn, operation.account_ref()),
            key_id,
            secret,
            token: text("SessionToken"),
            id: text("AssumedRoleId").unwrap_or_default(),
            expires: text("Expiration").and_then(|time| time.parse().ok()),
            arn,
        });
    }
    Ok(response)
}

/// The account in an ARN, or `otherwise`.
fn account_ref_of(arn: &str, otherwise: &AccountRef) -> AccountRef {
    let account = arn.split(':').nth(4).filter(|account| !account.is_empty());
    AccountRef { partition: otherwise.partition, account: account.unwrap_or(&otherwise.account).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_belongs_to_the_account_of_its_role() {
        let home = AccountRef::aws("1");
        assert_eq!(
            account_ref_of("arn:aws:sts::444455556666:assumed-role/x/s", &home),
            AccountRef::aws("444455556666")
        );
        assert_eq!(account_ref_of("", &home), home);
    }
}
