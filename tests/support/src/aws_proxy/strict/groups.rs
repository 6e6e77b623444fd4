//! Groups: a user is in at most 10 groups, and a group with members or policies cannot be deleted.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Operation, names};

const MAX_GROUPS_PER_USER: usize = 10;

/// `AddUserToGroup`.
pub(super) async fn add_user(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    names::check_reference(user)?;
    let group = operation.call.required("GroupName")?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    let groups = operation.query(&Call::iam("ListGroupsForUser").with("UserName", user)).await?;
    let groups = xml::texts_in(&groups, "GroupName");
    if groups.len() >= MAX_GROUPS_PER_USER && !groups.iter().any(|name| name == group) {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for GroupsPerUser: {MAX_GROUPS_PER_USER}")));
    }
    operation.forward().await
}

/// `DeleteGroup`.
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let group = operation.call.required("GroupName")?;
    let about = |action: &str| Call::iam(action).with("GroupName", group);
    let members = operation.query(&about("GetGroup")).await?;
    let has_members = Document::parse(&members)
        .is_ok_and(|document| xml::find(&document, "Users").is_some_and(|users| xml::members(users).next().is_some()));
    if has_members {
        return Err(AwsError::delete_conflict("Cannot delete entity, must remove users from group first."));
    }
    if !xml::texts_in(&operation.query(&about("ListAttachedGroupPolicies")).await?, "PolicyArn").is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must detach all policies first."));
    }
    if !xml::texts_in(&operation.query(&about("ListGroupPolicies")).await?, "member").is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must delete policies first."));
    }
    operation.forward().await
}
