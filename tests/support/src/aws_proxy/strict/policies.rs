//! Policies: what exists, what may be attached, how many and how large. The emulator checks syntax only.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Work, names};

/// Inline policies of a user, summed; white space does not count.
const INLINE_QUOTA: usize = 2048;
/// A managed policy; white space does not count.
const MANAGED_QUOTA: usize = 6144;

/// `AttachUserPolicy`.
pub(super) async fn attach(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.call.required("UserName")?;
    names::check_reference(user)?;
    let arn = work.call.required("PolicyArn")?;
    if arn.len() < 20 || !arn.starts_with("arn:") || !arn.contains(":policy/") {
        return Err(AwsError::invalid_input(format!("ARN {arn} is not valid.")));
    }
    let _lock = work.account().lock_user(work.account_ref(), user).await;
    let attached =
        xml::texts_in(&work.ask(&Call::iam("ListAttachedUserPolicies").with("UserName", user)).await?, "PolicyArn");
    match work.ask(&Call::iam("GetPolicy").with("PolicyArn", arn)).await {
        Ok(_) => {}
        Err(error) if error.code == "NoSuchEntity" => {
            return Err(AwsError::no_such_entity(format!("Policy {arn} does not exist or is not attachable.")));
        }
        Err(error) => return Err(error),
    }
    // Policies of service-linked roles are for those roles alone. The words for roles are known (aws/aws-cdk#6131),
    // those for users are assumed; the code is in the API reference.
    if arn.contains(":policy/aws-service-role/") {
        return Err(AwsError::new(400, "PolicyNotAttachable", "Cannot attach a Service Role Policy to a User."));
    }
    // Once more is no change; the emulator would count it twice.
    if attached.iter().any(|attached| attached == arn) {
        return Ok(work.success(""));
    }
    let quota = work.account().settings().attached_policies_quota;
    if attached.len() >= quota {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for PoliciesPerUser: {quota}")));
    }
    work.forward().await
}

/// The characters of a policy that count.
fn size(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

/// Tab, line feed, carriage return and U+0020 to U+00FF.
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
pub(super) async fn put_inline(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.call.required("UserName")?;
    names::check_reference(user)?;
    let name = work.call.required("PolicyName")?;
    names::check_policy(name)?;
    let document = work.call.required("PolicyDocument")?;
    check_characters(document)?;
    let _lock = work.account().lock_user(work.account_ref(), user).await;
    let others = inline_sizes(work, user, name).await?;
    if others + size(document) > INLINE_QUOTA {
        return Err(AwsError::limit_exceeded(format!(
            "Maximum policy size of {INLINE_QUOTA} bytes exceeded for user {user}"
        )));
    }
    work.forward().await
}

/// The size of a user's inline policies but the one that is about to be replaced.
async fn inline_sizes(work: &Work<'_>, user: &str, but: &str) -> Result<usize, AwsError> {
    let names = work.ask(&Call::iam("ListUserPolicies").with("UserName", user)).await?;
    let mut sum = 0;
    for name in xml::texts_in(&names, "member").iter().filter(|name| *name != but) {
        let call = Call::iam("GetUserPolicy").with("UserName", user).with("PolicyName", name);
        sum += size(&decode(&xml::text_in(&work.ask(&call).await?, "PolicyDocument").unwrap_or_default()));
    }
    Ok(sum)
}

/// A document as answers carry it.
pub(crate) fn decode(document: &str) -> String {
    percent_encoding::percent_decode_str(document).decode_utf8_lossy().into_owned()
}

/// `CreatePolicy` and `CreatePolicyVersion`.
pub(super) async fn create(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    if let Some(name) = work.call.param("PolicyName") {
        names::check_policy(name)?;
    }
    if let Some(path) = work.call.param("Path") {
        names::check_path(path)?;
    }
    let document = work.call.required("PolicyDocument")?;
    check_characters(document)?;
    if size(document) > MANAGED_QUOTA {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for PolicySize: {MANAGED_QUOTA}")));
    }
    work.forward().await
}

/// `DeletePolicy`: not while it is attached, nor while it is somebody's boundary.
pub(super) async fn delete(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let arn = work.call.required("PolicyArn")?;
    let entities = work.ask(&Call::iam("ListEntitiesForPolicy").with("PolicyArn", arn)).await?;
    let attached = Document::parse(&entities).is_ok_and(|document| {
        ["PolicyGroups", "PolicyUsers", "PolicyRoles"]
            .iter()
            .filter_map(|list| xml::find(&document, list))
            .any(|list| xml::members(list).next().is_some())
    });
    let bounds = work.account().boundaries(work.account_ref()).values().any(|boundary| boundary == arn);
    if attached || bounds {
        return Err(AwsError::delete_conflict("Cannot delete a policy attached to entities."));
    }
    work.forward().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_does_not_count() {
        assert_eq!(size("{ \"a\":\n\t\"b c\" }"), "{\"a\":\"bc\"}".len());
    }

    #[test]
    fn documents_are_latin_1() {
        assert!(check_characters("{\"Sid\": \"\u{e9}\"}\r\n\t").is_ok());
        for bad in ["\u{1f600}", "\u{0}", "\u{20ac}", "\u{7}"] {
            assert!(check_characters(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn documents_decode() {
        assert_eq!(decode("%7B%22a%22%3A1%7D"), "{\"a\":1}");
        assert_eq!(decode("{\"a\":1}"), "{\"a\":1}");
    }
}
