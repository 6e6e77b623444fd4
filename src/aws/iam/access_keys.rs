//! Access keys of a user.

use aws_config::retry::RetryConfig;
use aws_sdk_iam::types::{AccessKeyMetadata, StatusType};
use jiff::Timestamp;

use super::{
    IamClient,
    convert::{optional, paginate, timestamp},
};
use crate::{
    aws::AwsError,
    domain::{
        current_state::{AccessKey, LastUse, UserRef},
        owner::is_access_key_id,
        secret::KeyMaterial,
    },
};

const CREATE_ACCESS_KEY: &str = "CreateAccessKey";

impl IamClient {
    /// Lists the access keys of the user. `NoSuchEntity` when there is no such user.
    pub async fn list_access_keys(&self, user: &str) -> Result<Vec<AccessKey>, AwsError> {
        let request = self.iam.list_access_keys().user_name(user);
        paginate!(self, "ListAccessKeys", request, access_key_metadata, access_key)
    }

    /// Reads when and for what a key was last used. No time if never, before AWS began to record it, or if the key does not exist.
    pub async fn get_last_used(&self, key_id: &str) -> Result<LastUse, AwsError> {
        let request = self.iam.get_access_key_last_used().access_key_id(key_id);
        let answer = self.call("GetAccessKeyLastUsed", request.send()).await;
        let used = optional(answer)?.and_then(|answer| answer.access_key_last_used);
        let used_at = used.as_ref().and_then(|used| used.last_used_date).map(|date| timestamp(&date));
        let service = used.filter(|_| used_at.is_some()).map(|used| match used.region.as_str() {
            // Of services without regions.
            "" | "N/A" => used.service_name,
            region => format!("{} in {region}", used.service_name),
        });
        Ok(LastUse { used_at, service, asked_at: self.clock().now() })
    }

    /// Creates an access key and returns it with its creation time. **Not idempotent**: IAM returns the secret once and
    /// takes no client token, so a retry would leave a second key whose secret is lost. This is the only attempt: the SDK's
    /// retries are disabled.
    ///
    /// # Errors
    /// Unless [`AwsErrorKind::is_definite`], a key may have been created.
    pub async fn create_access_key(&self, user: &UserRef) -> Result<(KeyMaterial, Timestamp), AwsError> {
        let once = aws_sdk_iam::config::Builder::new().retry_config(RetryConfig::disabled());
        let request = self.iam.create_access_key().user_name(user.name()).customize().config_override(once);
        let answer = self.call(CREATE_ACCESS_KEY, request.send()).await?;
        let key = answer
            .access_key
            .filter(|key| is_access_key_id(key.access_key_id()))
            .ok_or_else(|| AwsError::incomplete(CREATE_ACCESS_KEY, "access key with a valid id"))?;
        let created_at = key.create_date().map_or_else(|| self.clock().now(), timestamp);
        let aws_sdk_iam::types::AccessKey { access_key_id, secret_access_key, .. } = key;
        Ok((KeyMaterial { id: access_key_id, secret: secret_access_key.into() }, created_at))
    }

    /// Sets a key Inactive. `NoSuchEntity` when it does not exist, or is not visible yet.
    pub async fn deactivate_access_key(&self, user: &UserRef, id: &str) -> Result<(), AwsError> {
        let request =
            self.iam.update_access_key().user_name(user.name()).access_key_id(id).status(StatusType::Inactive);
        self.call("UpdateAccessKey", request.send()).await.map(drop)
    }

    /// Deletes a key; false when IAM does not know it, or not yet.
    pub async fn delete_access_key(&self, user: &UserRef, id: &str) -> Result<bool, AwsError> {
        let request = self.iam.delete_access_key().user_name(user.name()).access_key_id(id);
        Ok(optional(self.call("DeleteAccessKey", request.send()).await)?.is_some())
    }
}

/// `None` for an entry without an id.
fn access_key(key: &AccessKeyMetadata) -> Option<AccessKey> {
    Some(AccessKey {
        id: key.access_key_id()?.to_owned(),
        active: may_work(key.status()),
        created_at: key.create_date().map(timestamp).unwrap_or_default(),
    })
}

/// Whether a key of this status may work. One that this version does not know counts: a revocation sets such a key Inactive, and
/// whether a new key works is asked of STS.
fn may_work(status: Option<&StatusType>) -> bool {
    !matches!(status, Some(StatusType::Inactive | StatusType::Expired))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_unknown_status_may_work_and_expired_one_does_not() {
        for (status, works) in [("Active", true), ("Inactive", false), ("Expired", false), ("Limited", true)] {
            assert_eq!(may_work(Some(&StatusType::from(status))), works, "{status}");
        }
        assert!(may_work(None));
    }
}
