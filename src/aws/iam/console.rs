//! Console access of a user: password, password policy and alias of the account.

use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

use super::{IamClient, convert::optional};
use crate::{
    aws::AwsError,
    domain::{console::PasswordPolicy, current_state::UserRef},
};

const GET_PASSWORD_POLICY: &str = "GetAccountPasswordPolicy";

/// How long a password policy is used before it is read again: an AWS admin may change it.
const PASSWORD_POLICY_TTL: Duration = Duration::from_mins(10);

#[derive(Clone, Copy, Debug)]
pub(super) struct CachedPolicy {
    policy: PasswordPolicy,
    read_at: Instant,
}

impl CachedPolicy {
    fn is_valid(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.read_at) < PASSWORD_POLICY_TTL
    }
}

impl IamClient {
    /// The password policy of the account, at most [`PASSWORD_POLICY_TTL`] old; AWS's default policy when the account has none.
    pub async fn get_password_policy(&self) -> Result<PasswordPolicy, AwsError> {
        let read = async || {
            let read_at = Instant::now();
            Ok(CachedPolicy { policy: self.read_password_policy().await?, read_at })
        };
        let is_valid = |cached: &CachedPolicy| cached.is_valid(Instant::now());
        self.password_policy.get(is_valid, read).await.map(|cached| cached.policy)
    }

    async fn read_password_policy(&self) -> Result<PasswordPolicy, AwsError> {
        let answer = self.call(GET_PASSWORD_POLICY, self.iam.get_account_password_policy().send()).await;
        let Some(answer) = optional(answer)? else { return Ok(PasswordPolicy::default()) };
        let policy = answer.password_policy.ok_or_else(|| AwsError::incomplete(GET_PASSWORD_POLICY, "policy"))?;
        Ok(PasswordPolicy {
            min_length: policy.minimum_password_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
            users_may_change: policy.allow_users_to_change_password(),
        })
    }

    /// Reads the alias of the account, of which there is at most one.
    pub async fn get_account_alias(&self) -> Result<Option<String>, AwsError> {
        let answer = self.call("ListAccountAliases", self.iam.list_account_aliases().send()).await?;
        Ok(answer.account_aliases().first().cloned())
    }

    /// Whether the user has a console password.
    pub async fn has_login_profile(&self, user: &str) -> Result<bool, AwsError> {
        let answer = self.call("GetLoginProfile", self.iam.get_login_profile().user_name(user).send()).await;
        Ok(optional(answer)?.is_some())
    }

    /// Sets the first password. Not idempotent: `EntityAlreadyExists` when the user has one.
    pub async fn create_login_profile(
        &self,
        user: &UserRef,
        password: &SecretString,
        reset: bool,
    ) -> Result<(), AwsError> {
        let request = self.iam.create_login_profile().user_name(user.name()).password(password.expose_secret());
        self.call("CreateLoginProfile", request.password_reset_required(reset).send()).await.map(drop)
    }

    /// Changes the password. `NoSuchEntity` when the user has none.
    pub async fn update_login_profile(
        &self,
        user: &UserRef,
        password: &SecretString,
        reset: bool,
    ) -> Result<(), AwsError> {
        let request = self.iam.update_login_profile().user_name(user.name()).password(password.expose_secret());
        self.call("UpdateLoginProfile", request.password_reset_required(reset).send()).await.map(drop)
    }

    /// Deletes the password. A user that has none is no error.
    pub async fn delete_login_profile(&self, user: &UserRef) -> Result<(), AwsError> {
        let request = self.iam.delete_login_profile().user_name(user.name());
        optional(self.call("DeleteLoginProfile", request.send()).await).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_policy_is_read_again_after_ten_minutes() {
        let read_at = Instant::now();
        let cached = CachedPolicy { policy: PasswordPolicy::default(), read_at };
        assert!(cached.is_valid(read_at + Duration::from_secs(599)));
        assert!(!cached.is_valid(read_at + PASSWORD_POLICY_TTL));
    }
}
