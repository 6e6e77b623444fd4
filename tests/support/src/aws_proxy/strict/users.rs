//! Making, reading and renaming users: names are unique ignoring case, tags and boundary come with the creation.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Work, boundary, names, tags};

/// `CreateUser`: all or nothing.
pub(super) async fn create(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let name = work.call.required("UserName")?;
    names::check_new_user(name)?;
    if let Some(path) = work.call.param("Path") {
        names::check_path(path)?;
    }
    tags::check_request(&work.call.tags())?;
    let boundary = work.call.param("PermissionsBoundary");
    if let Some(arn) = boundary {
        boundary::check_exists(work, arn).await?;
    }

    let _lock = work.account().lock_user(work.account_ref(), name).await;
    learn_names(work).await?;
    // IAM keeps the case of a name and ignores it when it looks for its like. The name in the message is the one asked
    // for, so it does not say that the case differs.
    if namesake(work, name).await?.is_some() {
        return Err(AwsError::entity_already_exists(format!("User with name {name} already exists.")));
    }
    let quota = work.account().settings().users_quota;
    if work.account().user_count(work.account_ref()) >= quota {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for UsersPerAccount: {quota}")));
    }
    let answer = work.forward_as(&work.call.clone().without("PermissionsBoundary")).await?;
    if answer.is_success() {
        work.account().user_made(work.account_ref(), name, boundary.map(str::to_owned));
    }
    Ok(boundary::inject(work, answer, "User"))
}

/// `GetUser`, with the boundary.
pub(super) async fn get(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    let answer = work.forward_as(&work.call.clone().with("UserName", user)).await?;
    Ok(boundary::inject(work, answer, "User"))
}

/// `UpdateUser`: renames keep tags and keys, which the emulator loses.
pub(super) async fn update(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let name = work.call.required("UserName")?;
    names::check_reference(name)?;
    if let Some(path) = work.call.param("NewPath") {
        names::check_path(path)?;
    }
    let new_name = work.call.param("NewUserName").unwrap_or(name);
    names::check_new_user(new_name)?;
    learn_names(work).await?;
    let taken = namesake(work, new_name).await?;
    if taken.is_some_and(|taken| taken != name) {
        return Err(AwsError::entity_already_exists(format!("User with name {new_name} already exists.")));
    }
    let tags = work.ask(&Call::iam("ListUserTags").with("UserName", name)).await?;
    let answer = work.forward().await?;
    if answer.is_success() {
        // The emulator files tags under the ARN, which has just changed.
        let tags = tags::read(&tags);
        if !tags.is_empty() {
            work.ask(&Call::iam("TagUser").with("UserName", new_name).with_tags(tags)).await?;
        }
        work.account().user_renamed(work.account_ref(), name, new_name);
    }
    Ok(answer)
}

/// The user that has this name, whatever the case.
async fn namesake(work: &Work<'_>, name: &str) -> Result<Option<String>, AwsError> {
    let Some(taken) = work.account().same_name_ignoring_case(work.account_ref(), name) else { return Ok(None) };
    match work.user_exists(&taken).await {
        Ok(()) => Ok(Some(taken)),
        // Deleted in the emulator behind our back.
        Err(error) if error.code == "NoSuchEntity" => {
            work.account().user_gone(work.account_ref(), &taken);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Takes in the users that were in the emulator before us. Once per account: afterwards every change passes here.
pub(super) async fn learn_names(work: &Work<'_>) -> Result<(), AwsError> {
    if work.account().knows_names(work.account_ref()) {
        return Ok(());
    }
    // Nobody has the empty name, so this is the lock of the list.
    let _lock = work.account().lock_user(work.account_ref(), "").await;
    if work.account().knows_names(work.account_ref()) {
        return Ok(());
    }
    let users = work.ask(&Call::iam("ListUsers")).await?;
    work.account().learn_names(work.account_ref(), xml::texts_in(&users, "UserName"));
    Ok(())
}

/// The elements of a user in an answer: everything that has a `UserName` and an `Arn`.
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
