//! Policies: existence, attachability, quotas and sizes. The emulator checks the syntax only.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Operation, names};

/// Total size of the inline policies of a user in characters, without white space.
const MAX_INLINE_POLICY_CHARS: usize = 2048;
/// Size of a managed policy in characters, without white space.
const MAX_MANAGED_POLICY_CHARS: usize = 6144;

/// `AttachUserPolicy`.
pub(super) async fn attach(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    names::check_reference(user)?;
    let arn = operation.call.required("PolicyArn")?;
    check_arn(arn)?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    let attached = xml::texts_in(
        &operation.query(&Call::iam("ListAttachedUserPolicies").with("UserName", user)).await?,
        "PolicyArn",
    );
    check_exists(operation, arn, "Policy").await?;
    // Policies of service-linked roles can be attached to those roles only. The code is in the API reference; the
    // message for users is assumed from the one for roles (aws/aws-cdk#6131).
    if arn.contains(":policy/aws-service-role/") {
        return Err(AwsError::new(400, "PolicyNotAttachable", "Cannot attach a Service Role Policy to a User."));
    }
    // Attaching again is a no-op; the emulator would count the attachment twice.
    if attached.iter().any(|attached| attached == arn) {
        return Ok(operation.success(""));
    }
    let quota = operation.account().settings().attached_policies_quota;
    if attached.len() >= quota {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for PoliciesPerUser: {quota}")));
    }
    operation.forward().await
}

/// Checks the format of the ARN of a managed policy.
pub(super) fn check_arn(arn: &str) -> Result<(), AwsError> {
    if arn.len() < 20 || !arn.starts_with("arn:") || !arn.contains(":policy/") {
        return Err(AwsError::invalid_input(format!("ARN {arn} is not valid.")));
    }
    Ok(())
}

/// Checks that a managed policy exists; `subject` is the beginning of the error message of AWS.
pub(super) async fn check_exists(operation: &Operation<'_>, arn: &str, subject: &str) -> Result<(), AwsError> {
    match operation.query(&Call::iam("GetPolicy").with("PolicyArn", arn)).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == "NoSuchEntity" => {
            Err(AwsError::no_such_entity(format!("{subject} {arn} does not exist or is not attachable.")))
        }
        Err(error) => Err(error),
    }
}

/// The size of a policy as counted for quotas: characters without white space.
fn size(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

/// Checks that the document consists of tab, line feed, carriage return and U+0020 to U+00FF.
fn check_characters(document: &str) -> Result<(), AwsError> {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{ff}');
    if document.chars().all(allowed) {
        return Ok(());
    }
    Err(AwsError::validation(
        "The specified value for policyDocument is invalid. It must contain only printable ASCII characters.",
    ))
}

/// `PutUserPolicy`.
pub(super) async fn put_inline(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    names::check_reference(user)?;
    let name = operation.call.required("PolicyName")?;
    names::check_policy(name)?;
    let document = operation.call.required("PolicyDocument")?;
    check_characters(document)?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    let others = other_inline_size(operation, user, name).await?;
    if others + size(document) > MAX_INLINE_POLICY_CHARS {
        return Err(AwsError::limit_exceeded(format!(
            "Maximum policy size of {MAX_INLINE_POLICY_CHARS} bytes exceeded for user {user}"
        )));
    }
    operation.forward().await
}

/// The total size of a user's inline policies, except the one to be replaced.
async fn other_inline_size(operation: &Operation<'_>, user: &str, replaced: &str) -> Result<usize, AwsError> {
    let names = operation.query(&Call::iam("ListUserPolicies").with("UserName", user)).await?;
    let mut sum = 0;
    for name in xml::texts_in(&names, "member").iter().filter(|name| *name != replaced) {
        let call = Call::iam("GetUserPolicy").with("UserName", user).with("PolicyName", name);
        sum += size(&decode(&xml::text_in(&operation.query(&call).await?, "PolicyDocument").unwrap_or_default()));
    }
    Ok(sum)
}

/// Decodes a percent-encoded document of a response.
pub(crate) fn decode(document: &str) -> String {
    percent_encoding::percent_decode_str(document).decode_utf8_lossy().into_owned()
}

/// `CreatePolicy` and `CreatePolicyVersion`.
pub(super) async fn create(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    if let Some(name) = operation.call.param("PolicyName") {
        names::check_policy(name)?;
    }
    if let Some(path) = operation.call.param("Path") {
        names::check_path(path)?;
    }
    let document = operation.call.required("PolicyDocument")?;
    check_characters(document)?;
    if size(document) > MAX_MANAGED_POLICY_CHARS {
        return Err(AwsError::limit_exceeded(format!(
            "Cannot exceed quota for PolicySize: {MAX_MANAGED_POLICY_CHARS}"
        )));
    }
    operation.forward().await
}

/// `DeletePolicy`, which fails while the policy is attached or used as a boundary.
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let arn = operation.call.required("PolicyArn")?;
    let entities = operation.query(&Call::iam("ListEntitiesForPolicy").with("PolicyArn", arn)).await?;
    let attached = Document::parse(&entities).is_ok_and(|document| {
        ["PolicyGroups", "PolicyUsers", "PolicyRoles"]
            .iter()
            .filter_map(|list| xml::find(&document, list))
            .any(|list| xml::members(list).next().is_some())
    });
    let is_boundary = operation.account().boundaries(operation.account_ref()).values().any(|boundary| boundary == arn);
    if attached || is_boundary {
        return Err(AwsError::delete_conflict("Cannot delete a policy attached to entities."));
    }
    operation.forward().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_ignores_white_space() {
        assert_eq!(size("{ \"a\":\n\t\"b c\" }"), "{\"a\":\"bc\"}".len());
    }

    #[test]
    fn documents_outside_latin_1_are_rejected() {
        assert!(check_characters("{\"Sid\": \"\u{e9}\"}\r\n\t").is_ok());
        for bad in ["\u{1f600}", "\u{0}", "\u{20ac}", "\u{7}"] {
            assert!(check_characters(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn documents_are_percent_decoded() {
        assert_eq!(decode("%7B%22a%22%3A1%7D"), "{\"a\":1}");
        assert_eq!(decode("{\"a\":1}"), "{\"a\":1}");
    }
}
