//! Policies of users: existence, attachability, quotas and sizes. The emulator checks the syntax only.

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
    let absent = || AwsError::no_such_entity(format!("{subject} {arn} does not exist or is not attachable."));
    if operation.account().is_policy_hidden(operation.account_ref(), arn) {
        return Err(absent());
    }
    match operation.query(&Call::iam("GetPolicy").with("PolicyArn", arn)).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == "NoSuchEntity" => Err(absent()),
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
    check_principal(document)?;
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

/// Checks the document of a managed policy, except for the syntax, which the emulator checks.
pub(super) fn check_document(document: &str) -> Result<(), AwsError> {
    check_characters(document)?;
    check_principal(document)?;
    if size(document) > MAX_MANAGED_POLICY_CHARS {
        return Err(AwsError::limit_exceeded(format!(
            "Cannot exceed quota for PolicySize: {MAX_MANAGED_POLICY_CHARS}"
        )));
    }
    Ok(())
}

/// Checks that no statement has a principal: the principal of an identity-based policy is the identity.
fn check_principal(document: &str) -> Result<(), AwsError> {
    let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    let statements =
        document["Statement"].as_array().map_or_else(|| vec![&document["Statement"]], |list| list.iter().collect());
    let has_principal = |statement: &&serde_json::Value| {
        statement
            .as_object()
            .is_some_and(|fields| fields.contains_key("Principal") || fields.contains_key("NotPrincipal"))
    };
    if statements.iter().any(has_principal) {
        return Err(AwsError::new(400, "MalformedPolicyDocument", "Policy document should not specify a principal."));
    }
    Ok(())
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
