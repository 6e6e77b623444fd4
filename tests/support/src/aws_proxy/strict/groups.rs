//! Groups: a user is in at most ten, and a group with members or policies stays.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Work, names};

const QUOTA: usize = 10;

/// `AddUserToGroup`.
pub(super) async fn add_user(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.call.required("UserName")?;
    names::check_reference(user)?;
    let group = work.call.required("GroupName")?;
    let _lock = work.account().lock_user(work.account_ref(), user).await;
    let groups = work.ask(&Call::iam("ListGroupsForUser").with("UserName", user)).await?;
    let groups = xml::texts_in(&groups, "GroupName");
    if groups.len() >= QUOTA && !groups.iter().any(|name| name == group) {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for GroupsPerUser: {QUOTA}")));
    }
    work.forward().await
}

/// `DeleteGroup`.
pub(super) async fn delete(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let group = work.call.required("GroupName")?;
    let ask = |action: &str| Call::iam(action).with("GroupName", group);
    let members = work.ask(&ask("GetGroup")).await?;
    let has_members = Document::parse(&members)
        .is_ok_and(|document| xml::find(&document, "Users").is_some_and(|users| xml::members(users).next().is_some()));
    if has_members {
        return Err(AwsError::delete_conflict("Cannot delete entity, must remove users from group first."));
    }
    if !xml::texts_in(&work.ask(&ask("ListAttachedGroupPolicies")).await?, "PolicyArn").is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must detach all policies first."));
    }
    if !xml::texts_in(&work.ask(&ask("ListGroupPolicies")).await?, "member").is_empty() {
        return Err(AwsError::delete_conflict("Cannot delete entity, must delete policies first."));
    }
    work.forward().await
}
