//! Permissions boundaries, which the emulator does not implement. The account state stores them, and this module adds
//! them to the responses in which AWS shows them: `CreateUser`, `GetUser` and `GetAccountAuthorizationDetails`, but not
//! `ListUsers`.

use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Operation, managed_policies, paging, policies, users};

/// `PutUserPermissionsBoundary`.
pub(super) async fn put(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    let arn = operation.call.required("PermissionsBoundary")?;
    operation.check_user_exists(user).await?;
    check_exists(operation, arn).await?;
    operation.account().change_user(operation.account_ref(), user, |user| user.boundary = Some(arn.to_owned()));
    Ok(operation.success(""))
}

/// `DeleteUserPermissionsBoundary`.
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    operation.check_user_exists(user).await?;
    match operation.account().change_user(operation.account_ref(), user, |user| user.boundary.take()) {
        Some(_) => Ok(operation.success("")),
        None => Err(AwsError::no_such_entity(format!("User {user} has no permissions boundary."))),
    }
}

/// Checks that the boundary is an existing managed policy.
pub(super) async fn check_exists(operation: &Operation<'_>, arn: &str) -> Result<(), AwsError> {
    policies::check_arn(arn)?;
    policies::check_exists(operation, arn, "Scope ARN:").await
}

/// `GetAccountAuthorizationDetails`, in pages, with boundaries and complete policies.
pub(super) async fn in_account_details(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let complete_policies = managed_policies::in_account_details(operation).await?;
    paging::list_after(operation, |response| inject_all(operation, complete_policies(response))).await
}

/// Adds the boundary to a response with a single user.
pub(super) fn inject(operation: &Operation<'_>, response: AwsResponse, element: &str) -> AwsResponse {
    if !response.is_success() {
        return response;
    }
    let Some(name) = xml::text_in(&response.body, "UserName") else { return response };
    let Some(arn) = operation.account().boundary(operation.account_ref(), &name) else { return response };
    edit(response, element, |_| Some(arn.clone()))
}

fn inject_all(operation: &Operation<'_>, response: AwsResponse) -> AwsResponse {
    let boundaries = operation.account().boundaries(operation.account_ref());
    if boundaries.is_empty() {
        return response;
    }
    edit(response, "member", |name| boundaries.get(name).cloned())
}

fn edit(response: AwsResponse, element: &str, boundary_of: impl Fn(&str) -> Option<String>) -> AwsResponse {
    response.edit_xml(|document, edits| {
        for (user, name) in users::user_elements(document, element) {
            if let Some(arn) = boundary_of(name) {
                let inner = xml::leaf("PermissionsBoundaryType", "Policy") + &xml::leaf("PermissionsBoundaryArn", &arn);
                edits.append(user, &xml::wrap("PermissionsBoundary", &inner));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;
    use crate::aws_proxy::call::Service;

    #[test]
    fn boundary_is_added_to_its_user_only() {
        let member = |name: &str| {
            format!(
                "<member>{}{}<Tags><member><Key>k</Key></member></Tags></member>",
                xml::leaf("UserName", name),
                xml::leaf("Arn", "a")
            )
        };
        let list = xml::wrap("UserDetailList", &(member("u") + &member("v")));
        let response = AwsResponse::success(Service::Iam, "GetAccountAuthorizationDetails", &list);
        let edited = edit(response, "member", |name| (name == "v").then(|| "arn:b".to_owned()));
        let document = Document::parse(&edited.body).unwrap();
        let boundaries: Vec<_> =
            document.descendants().filter(|node| node.tag_name().name() == "PermissionsBoundary").collect();
        assert_eq!(boundaries.len(), 1);
        assert_eq!(xml::child_text(boundaries[0], "PermissionsBoundaryArn"), Some("arn:b"));
        assert_eq!(xml::child_text(boundaries[0].parent().unwrap(), "UserName"), Some("v"));
    }
}
