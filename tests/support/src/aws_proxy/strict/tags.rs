//! Tags of users and managed policies: at most 50, keys of up to 128 and values of up to 256 characters of a fixed set,
//! the reserved prefix `aws:`, and keys compared ignoring case. The emulator checks none of it for users, and neither
//! the number nor the reserved prefix for policies.
//!
//! The errors for lengths, characters and duplicates are those of the emulator for roles; the errors for the reserved
//! prefix and for the 51st tag over several calls are assumed from other quotas of IAM.

use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::{Operation, names};

const MAX_TAGS: usize = 50;

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]`.
fn is_tag_char(c: char) -> bool {
    // \p{Z} is the space separators; control characters such as tab and line feed are not in it.
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}

fn check_text(text: &str, field: &str, max: usize) -> Result<(), AwsError> {
    if text.chars().count() > max {
        return Err(AwsError::constraint(text, field, &format!("have length less than or equal to {max}")));
    }
    if !text.chars().all(is_tag_char) {
        let pattern = "satisfy regular expression pattern: [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+";
        return Err(AwsError::constraint(text, field, pattern));
    }
    Ok(())
}

fn check_key(key: &str, field: &str) -> Result<(), AwsError> {
    if key.is_empty() {
        return Err(AwsError::constraint(key, field, "have length greater than or equal to 1"));
    }
    check_text(key, field, 128)?;
    if key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
        return Err(AwsError::invalid_input("Tag keys beginning with aws: are reserved for system use."));
    }
    Ok(())
}

/// Checks the tags of one request, without the existing tags of the entity.
pub(super) fn check_request(tags: &[(&str, &str)]) -> Result<(), AwsError> {
    if tags.len() > MAX_TAGS {
        return Err(AwsError::constraint(
            &format!("{} tags", tags.len()),
            "tags",
            &format!("have length less than or equal to {MAX_TAGS}"),
        ));
    }
    let mut seen = std::collections::HashSet::new();
    for (index, (key, value)) in tags.iter().enumerate() {
        let index = index + 1;
        check_key(key, &format!("tags.{index}.member.key"))?;
        check_text(value, &format!("tags.{index}.member.value"), 256)?;
        if !seen.insert(key.to_lowercase()) {
            return Err(AwsError::invalid_input(
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ));
        }
    }
    Ok(())
}

/// The tags in a response of `ListUserTags`, `ListPolicyTags` or `GetPolicy`.
pub(crate) fn read(response: &str) -> Vec<(String, String)> {
    let Ok(document) = Document::parse(response) else { return Vec::new() };
    let Some(tags) = xml::find(&document, "Tags") else { return Vec::new() };
    xml::members(tags)
        .filter_map(|tag| {
            let value = xml::child_text(tag, "Value").unwrap_or_default();
            Some((xml::child_text(tag, "Key")?.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The keys of `existing` that are replaced by `new` keys with another case, and the resulting number of tags.
fn merge<'e>(existing: &'e [(String, String)], new: &[(&str, &str)]) -> (Vec<&'e str>, usize) {
    let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    let collides = |key: &str| new.iter().any(|(other, _)| same(key, other));
    let kept = existing.iter().filter(|(key, _)| !collides(key)).count();
    let replaced = existing
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| collides(key) && !new.iter().any(|(other, _)| other == key))
        .collect();
    (replaced, kept + new.len())
}

/// The entity of a call that changes tags.
pub(super) struct Subject<'a> {
    list: &'static str,
    untag: &'static str,
    param: &'static str,
    value: &'a str,
    quota: &'static str,
}

impl<'a> Subject<'a> {
    fn user(name: &'a str) -> Self {
        Self { list: "ListUserTags", untag: "UntagUser", param: "UserName", value: name, quota: "TagsPerUser" }
    }

    /// A managed policy.
    pub(super) fn policy(arn: &'a str) -> Self {
        Self { list: "ListPolicyTags", untag: "UntagPolicy", param: "PolicyArn", value: arn, quota: "TagsPerPolicy" }
    }

    async fn existing(&self, operation: &Operation<'_>) -> Result<Vec<(String, String)>, AwsError> {
        let call = Call::iam(self.list).with(self.param, self.value);
        Ok(read(&operation.query(&call).await?))
    }

    fn untag(&self, keys: &[&str]) -> Call {
        keys.iter().enumerate().fold(Call::iam(self.untag).with(self.param, self.value), |call, (index, key)| {
            call.with(format!("TagKeys.member.{}", index + 1), *key)
        })
    }
}

/// `TagUser`.
pub(super) async fn tag_user(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    names::check_reference(user)?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    tag(operation, &Subject::user(user)).await
}

/// Sets tags. The caller holds the lock of the entity.
pub(super) async fn tag(operation: &Operation<'_>, subject: &Subject<'_>) -> Result<AwsResponse, AwsError> {
    let new = operation.call.tags();
    if new.is_empty() {
        operation.call.required("Tags")?;
    }
    check_request(&new)?;
    let existing = subject.existing(operation).await?;
    let (replaced, count) = merge(&existing, &new);
    if count > MAX_TAGS {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for {}: {MAX_TAGS}", subject.quota)));
    }
    if !replaced.is_empty() {
        operation.query(&subject.untag(&replaced)).await?;
    }
    operation.forward().await
}

/// `UntagUser`.
pub(super) async fn untag_user(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    names::check_reference(user)?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    untag(operation, &Subject::user(user)).await
}

/// Removes tags; keys are matched ignoring case, and missing keys are ignored. The caller holds the lock of the entity.
pub(super) async fn untag(operation: &Operation<'_>, subject: &Subject<'_>) -> Result<AwsResponse, AwsError> {
    let keys = operation.call.list("TagKeys");
    if keys.is_empty() {
        operation.call.required("TagKeys")?;
    }
    if keys.len() > MAX_TAGS {
        return Err(AwsError::constraint(&keys.len().to_string(), "tagKeys", "have length less than or equal to 50"));
    }
    let existing = subject.existing(operation).await?;
    let expected: Vec<String> = keys.iter().map(|key| key.to_lowercase()).collect();
    let found: Vec<&str> =
        existing.iter().map(|(key, _)| key.as_str()).filter(|key| expected.contains(&key.to_lowercase())).collect();
    if found.is_empty() {
        return Ok(operation.success(""));
    }
    operation.forward_as(&subject.untag(&found)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(tags: &[(&str, &str)]) -> Result<(), String> {
        check_request(tags).map_err(|error| error.code)
    }

    #[test]
    fn tag_keys_and_values_are_validated() {
        let long_key = "k".repeat(129);
        let long_value = "v".repeat(257);
        for good in [
            ("awsdeploy.dev/uid", "x"),
            ("\u{dc}ber @home", ""),
            ("k", "a b_.:/=+-@"),
            (&long_key[..128], &long_value[..256]),
        ] {
            assert_eq!(code(&[good]), Ok(()), "{good:?}");
        }
        for bad in
            [("", "x"), (&long_key, "x"), ("k", &long_value), ("k!", ""), ("k", "a,b"), ("k\n", ""), ("k", "\u{1f600}")]
        {
            assert_eq!(code(&[bad]), Err("ValidationError".to_owned()), "{bad:?}");
        }
        for reserved in ["aws:x", "AWS:x", "Aws:"] {
            assert_eq!(code(&[(reserved, "")]), Err("InvalidInput".to_owned()), "{reserved}");
        }
        assert_eq!(code(&[("awsdeploy.dev/x", "")]), Ok(()), "the reserved prefix includes the colon");
    }

    #[test]
    fn request_has_at_most_50_tags_without_duplicates() {
        let keys: Vec<String> = (0..51).map(|n| format!("k{n}")).collect();
        let tags: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
        assert_eq!(code(&tags[..50]), Ok(()));
        assert_eq!(code(&tags), Err("ValidationError".to_owned()));
        assert_eq!(code(&[("Owner", "a"), ("owner", "b")]), Err("InvalidInput".to_owned()));
    }

    #[test]
    fn tag_keys_merge_ignoring_case() {
        let existing = [("Owner".to_owned(), "a".to_owned()), ("team".to_owned(), "b".to_owned())];
        assert_eq!(merge(&existing, &[("owner", "c")]), (vec!["Owner"], 2));
        assert_eq!(merge(&existing, &[("Owner", "c")]), (vec![], 2));
        assert_eq!(merge(&existing, &[("cost", "c"), ("TEAM", "d")]), (vec!["team"], 3));
    }
}
