//! `AssumeRole` and its kin: the credentials they hand out are remembered, as those of `CreateAccessKey` are.

use super::super::account::NewSession;
use super::super::caller::AccountRef;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::Work;

/// Any action of STS that hands out credentials.
pub(super) async fn hand_out(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let answer = work.forward().await?;
    if !answer.is_success() {
        return Ok(answer);
    }
    let text = |name: &str| xml::text_in(&answer.body, name);
    if let (Some(key_id), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) {
        let arn = text("Arn").unwrap_or_else(|| work.account().caller_arn(work.caller));
        work.account().session_made(NewSession {
            account_ref: account_ref_of(&arn, work.account_ref()),
            key_id,
            secret,
            token: text("SessionToken"),
            id: text("AssumedRoleId").unwrap_or_default(),
            expires: text("Expiration").and_then(|time| time.parse().ok()),
            arn,
        });
    }
    Ok(answer)
}

/// The account an ARN belongs to.
fn account_ref_of(arn: &str, otherwise: &AccountRef) -> AccountRef {
    let account = arn.split(':').nth(4).filter(|account| !account.is_empty());
    AccountRef { partition: otherwise.partition, account: account.unwrap_or(&otherwise.account).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_lives_in_the_account_of_its_role() {
        let home = AccountRef::aws("1");
        assert_eq!(
            account_ref_of("arn:aws:sts::444455556666:assumed-role/x/s", &home),
            AccountRef::aws("444455556666")
        );
        assert_eq!(account_ref_of("", &home), home);
    }
}
