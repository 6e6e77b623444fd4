//! Permissions boundaries, which the emulator drops on `CreateUser` and does not implement otherwise. They are kept in
//! the account state and put into the answers that AWS shows them in: `CreateUser`, `GetUser` and
//! `GetAccountAuthorizationDetails`; `ListUsers` never has them.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml::{self, Edits};
use super::{Work, paging, users};

/// `PutUserPermissionsBoundary`.
pub(super) async fn put(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.call.required("UserName")?;
    let arn = work.call.required("PermissionsBoundary")?;
    work.user_exists(user).await?;
    check_exists(work, arn).await?;
    work.account().change_user(work.account_ref(), user, |user| user.boundary = Some(arn.to_owned()));
    Ok(work.success(""))
}

/// `DeleteUserPermissionsBoundary`.
pub(super) async fn delete(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.call.required("UserName")?;
    work.user_exists(user).await?;
    match work.account().change_user(work.account_ref(), user, |user| user.boundary.take()) {
        Some(_) => Ok(work.success("")),
        None => Err(AwsError::no_such_entity(format!("User {user} has no permissions boundary."))),
    }
}

/// A boundary must be a managed policy that exists.
pub(super) async fn check_exists(work: &Work<'_>, arn: &str) -> Result<(), AwsError> {
    if arn.len() < 20 || !arn.starts_with("arn:") || !arn.contains(":policy/") {
        return Err(AwsError::invalid_input(format!("ARN {arn} is not valid.")));
    }
    match work.ask(&Call::iam("GetPolicy").with("PolicyArn", arn)).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == "NoSuchEntity" => {
            Err(AwsError::no_such_entity(format!("Scope ARN: {arn} does not exist or is not attachable.")))
        }
        Err(error) => Err(error),
    }
}

/// `GetAccountAuthorizationDetails`, with boundaries and in pages.
pub(super) async fn in_account_details(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    paging::list_after(work, |answer| inject_all(work, answer)).await
}

/// Puts the boundary into the one user of an answer.
pub(super) fn inject(work: &Work<'_>, answer: AwsResponse, element: &str) -> AwsResponse {
    if !answer.is_success() {
        return answer;
    }
    let Some(name) = xml::text_in(&answer.body, "UserName") else { return answer };
    let Some(arn) = work.account().boundary(work.account_ref(), &name) else { return answer };
    edit(answer, element, |_| Some(arn.clone()))
}

fn inject_all(work: &Work<'_>, answer: AwsResponse) -> AwsResponse {
    let boundaries = work.account().boundaries(work.account_ref());
    if boundaries.is_empty() {
        return answer;
    }
    edit(answer, "member", |name| boundaries.get(name).cloned())
}

fn edit(mut answer: AwsResponse, element: &str, boundary_of: impl Fn(&str) -> Option<String>) -> AwsResponse {
    let edited = Document::parse(&answer.body).ok().map(|document| {
        let mut edits = Edits::of(&answer.body);
        for (user, name) in users::user_elements(&document, element) {
            if let Some(arn) = boundary_of(name) {
                let inner = xml::leaf("PermissionsBoundaryType", "Policy") + &xml::leaf("PermissionsBoundaryArn", &arn);
                edits.append(user, &xml::wrap("PermissionsBoundary", &inner));
            }
        }
        edits.finish()
    });
    if let Some(edited) = edited {
        answer.body = edited;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_proxy::call::Service;

    #[test]
    fn the_boundary_stands_in_the_user_it_belongs_to() {
        let member = |name: &str| {
            format!(
                "<member>{}{}<Tags><member><Key>k</Key></member></Tags></member>",
                xml::leaf("UserName", name),
                xml::leaf("Arn", "a")
            )
        };
        let list = xml::wrap("UserDetailList", &(member("u") + &member("v")));
        let answer = AwsResponse::success(Service::Iam, "GetAccountAuthorizationDetails", &list);
        let edited = edit(answer, "member", |name| (name == "v").then(|| "arn:b".to_owned()));
        let document = Document::parse(&edited.body).unwrap();
        let boundaries: Vec<_> =
            document.descendants().filter(|node| node.tag_name().name() == "PermissionsBoundary").collect();
        assert_eq!(boundaries.len(), 1);
        assert_eq!(xml::child_text(boundaries[0], "PermissionsBoundaryArn"), Some("arn:b"));
        assert_eq!(xml::child_text(boundaries[0].parent().unwrap(), "UserName"), Some("v"));
    }
}
