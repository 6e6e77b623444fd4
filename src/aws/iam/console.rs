//! Console access of a user: password, password policy and alias of the account.

use secrecy::{ExposeSecret, SecretString};

use super::{IamClient, convert::optional};
use crate::{
    aws::AwsError,
    domain::{console::PasswordPolicy, current_state::UserRef},
};

impl IamClient {
    /// Reads the password policy of the account once; AWS's default policy when the account has none.
    pub async fn get_password_policy(&self) -> Result<&PasswordPolicy, AwsError> {
        self.password_policy
            .get_or_try_init(|| async {
                let answer = self.call("GetAccountPasswordPolicy", self.iam.get_account_password_policy().send()).await;
                Ok(optional(answer)?.and_then(|answer| answer.password_policy).map_or_else(
                    PasswordPolicy::default,
                    |policy| PasswordPolicy {
                        min_length: policy
                            .minimum_password_length()
                            .and_then(|length| usize::try_from(length).ok())
                            .unwrap_or(0),
                        users_may_change: policy.allow_users_to_change_password(),
                    },
                ))
            })
            .await
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
