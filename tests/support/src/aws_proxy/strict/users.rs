//! Creation, read and rename of users: names are unique ignoring case, and `CreateUser` sets tags and boundary.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Operation, boundary, names, tags};

/// `CreateUser`, which is atomic.
pub(super) async fn create(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let name = operation.call.required("UserName")?;
    names::check_new_user(name)?;
    if let Some(path) = operation.call.param("Path") {
        names::check_path(path)?;
    }
    tags::check_request(&operation.call.tags())?;
    let boundary = operation.call.param("PermissionsBoundary");
    if let Some(arn) = boundary {
        boundary::check_exists(operation, arn).await?;
    }

    let _lock = operation.account().lock_user(operation.account_ref(), name).await;
    import_names(operation).await?;
    // IAM preserves the case of a name but compares names ignoring case. The message contains the requested name, not
    // the existing one.
    if find_user_of_name(operation, name).await?.is_some() {
        return Err(AwsError::entity_already_exists(format!("User with name {name} already exists.")));
    }
    let quota = operation.account().settings().users_quota;
    if operation.account().count_users(operation.account_ref()) >= quota {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for UsersPerAccount: {quota}")));
    }
    let response = operation.forward_as(&operation.call.clone().without("PermissionsBoundary")).await?;
    if response.is_success() {
        operation.account().record_user(operation.account_ref(), name, boundary.map(str::to_owned));
    }
    Ok(boundary::inject(operation, response, "User"))
}

/// `GetUser`.
pub(super) async fn get(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    let response = operation.forward_as(&operation.call.clone().with("UserName", user)).await?;
    Ok(boundary::inject(operation, response, "User"))
}

/// `UpdateUser`; keeps tags and keys on a rename, which the emulator loses.
pub(super) async fn update(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let name = operation.call.required("UserName")?;
    names::check_reference(name)?;
    if let Some(path) = operation.call.param("NewPath") {
        names::check_path(path)?;
    }
    let new_name = operation.call.param("NewUserName").unwrap_or(name);
    names::check_new_user(new_name)?;
    import_names(operation).await?;
    let existing = find_user_of_name(operation, new_name).await?;
    if existing.is_some_and(|existing| existing != name) {
        return Err(AwsError::entity_already_exists(format!("User with name {new_name} already exists.")));
    }
    let tags = operation.query(&Call::iam("ListUserTags").with("UserName", name)).await?;
    let response = operation.forward().await?;
    if response.is_success() {
        // The emulator stores tags by ARN, which has changed.
        let tags = tags::read(&tags);
        if !tags.is_empty() {
            operation.query(&Call::iam("TagUser").with("UserName", new_name).with_tags(tags)).await?;
        }
        operation.account().rename_user(operation.account_ref(), name, new_name);
    }
    Ok(response)
}

/// The existing user with this name ignoring case.
async fn find_user_of_name(operation: &Operation<'_>, name: &str) -> Result<Option<String>, AwsError> {
    let Some(existing) = operation.account().find_user_ignoring_case(operation.account_ref(), name) else {
        return Ok(None);
    };
    match operation.check_user_exists(&existing).await {
        Ok(()) => Ok(Some(existing)),
        // The user was deleted in the emulator without the proxy.
        Err(error) if error.code == "NoSuchEntity" => {
            operation.account().remove_user(operation.account_ref(), &existing);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Imports the names of users that exist in the emulator. Once per account: the proxy sees all later changes.
pub(super) async fn import_names(operation: &Operation<'_>) -> Result<(), AwsError> {
    if operation.account().has_imported_names(operation.account_ref()) {
        return Ok(());
    }
    // No user has the empty name, so this lock serializes the import.
    let _lock = operation.account().lock_user(operation.account_ref(), "").await;
    if operation.account().has_imported_names(operation.account_ref()) {
        return Ok(());
    }
    let users = operation.query(&Call::iam("ListUsers")).await?;
    operation.account().import_names(operation.account_ref(), xml::texts_in(&users, "UserName"));
    Ok(())
}

/// The user elements of a response, with their names: elements with a `UserName` and an `Arn`.
pub(super) fn user_elements<'a, 'i>(
    document: &'a Document<'i>,
    name: &'a str,
) -> impl Iterator<Item = (roxmltree::Node<'a, 'i>, &'a str)> {
    document
        .descendants()
        .filter(move |node| node.is_element() && node.tag_name().name() == name)
        .filter_map(|node| Some((node, xml::child_text(node, "UserName")?)))
        .filter(|(node, _)| xml::child(*node, "Arn").is_some())
}
