//! IAM users.

use std::collections::BTreeMap;

use aws_sdk_iam::types::User;

use super::{
    IamClient,
    convert::{iam_user, map_to_tags, next_marker, optional},
};
use crate::{
    aws::AwsError,
    domain::current_state::{Grants, IamUser, UserRef},
};

const LIST_PAGE_SIZE: i32 = 1000;

const GET_USER: &str = "GetUser";
const LIST_USERS: &str = "ListUsers";
const CREATE_USER: &str = "CreateUser";

/// The user of a response. The SDK fills in what a response lacks: an empty one has a user without a name, which would count as
/// one of another owner.
fn complete_user(operation: &'static str, user: Option<User>) -> Result<User, AwsError> {
    let user = user.filter(|user| !user.user_name().is_empty() && !user.user_id().is_empty() && !user.arn().is_empty());
    user.ok_or_else(|| AwsError::incomplete(operation, "user"))
}

impl IamClient {
    /// Reads the user with its tags, without keys and grants. `None` only when IAM responds `NoSuchEntity`.
    pub async fn get_user(&self, name: &str) -> Result<Option<IamUser>, AwsError> {
        let answer = self.call(GET_USER, self.iam.get_user().user_name(name).send()).await;
        let Some(answer) = optional(answer)? else { return Ok(None) };
        complete_user(GET_USER, answer.user).map(|user| Some(iam_user(&user)))
    }

    /// Finds the user of this name in any case: `CreateUser` rejects the name and does not return the existing user. After the
    /// exact name, one call per page of users of the account; for messages only.
    pub async fn find_user_ignoring_case(&self, name: &str) -> Result<Option<IamUser>, AwsError> {
        if let Some(user) = self.get_user(name).await? {
            return Ok(Some(user));
        }
        let mut marker = None;
        loop {
            let request = self.iam.list_users().set_marker(marker).max_items(LIST_PAGE_SIZE);
            let page = self.call(LIST_USERS, request.send()).await?;
            if let Some(user) = page.users().iter().find(|user| user.user_name().eq_ignore_ascii_case(name)) {
                // Lists have no tags.
                return self.get_user(user.user_name()).await;
            }
            marker = next_marker(LIST_USERS, page.is_truncated(), page.marker())?;
            if marker.is_none() {
                return Ok(None);
            }
        }
    }

    /// Creates the user with path, boundary and tags in one call, so that a lost response leaves a user with ownership
    /// tags. Not idempotent: `EntityAlreadyExists` when there is one.
    pub async fn create_user(
        &self,
        name: &str,
        path: &str,
        boundary: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<IamUser, AwsError> {
        let request = self.iam.create_user().user_name(name).path(path).set_tags(Some(map_to_tags(tags)));
        let request = request.set_permissions_boundary(boundary.map(str::to_owned));
        let answer = self.call(CREATE_USER, request.send()).await?;
        let mut user = iam_user(&complete_user(CREATE_USER, answer.user)?);
        // The response may lack the tags, which this very call has set.
        user.tags.clone_from(tags);
        user.boundary = boundary.map(str::to_owned);
        user.grants = Some(Grants::default());
        Ok(user)
    }

    /// Deletes the user; false when there is none. `DeleteConflict` while it has keys, policies, groups or deletion blockers.
    pub async fn delete_user(&self, user: &UserRef) -> Result<bool, AwsError> {
        let answer = self.call("DeleteUser", self.iam.delete_user().user_name(user.name()).send()).await;
        optional(answer).map(|deleted| deleted.is_some())
    }
}
