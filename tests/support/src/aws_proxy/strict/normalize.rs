//! Normalizes ids, dates and documents in every response to the format of AWS.
//!
//! - `UserId` is `AIDA` and 17 upper-case characters; the emulator uses 20 lower-case characters.
//! - `PolicyId` is `ANPA` and 17 upper-case characters; the emulator uses `A` and 20 characters.
//! - Dates are whole seconds. The emulator sends microseconds, with which a comparison with the `Date` header could
//!   succeed here and fail on AWS.
//! - Policy documents are percent-encoded everywhere; the emulator does not encode them in `GetPolicyVersion`.
//! - A rule may skew the clock of AWS.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use roxmltree::Node;

use super::super::call::Call;
use super::super::response::AwsResponse;

/// Normalizes a response; errors are unchanged.
pub(super) fn normalize(response: AwsResponse, call: &Call, clock_skew: SignedDuration) -> AwsResponse {
    if !response.is_success() {
        return response;
    }
    response.edit_xml(|document, edits| {
        for element in document.descendants().filter(Node::is_element) {
            let Some(text) = element.text() else { continue };
            if let Some(text) = normalized(element.tag_name().name(), text, call, clock_skew) {
                edits.set_text(element, &text);
            }
        }
    })
}

fn normalized(element: &str, text: &str, call: &Call, clock_skew: SignedDuration) -> Option<String> {
    match element {
        "UserId" => user_id(text),
        "PolicyId" => policy_id(text),
        "Document" if call.action == "GetPolicyVersion" && text.trim_start().starts_with('{') => {
            Some(utf8_percent_encode(text, NON_ALPHANUMERIC).to_string())
        }
        "CreateDate" | "UpdateDate" | "UploadDate" | "LastUsedDate" | "PasswordLastUsed" | "EnableDate"
        | "Expiration" => whole_second(text, clock_skew),
        _ => None,
    }
}

/// The user id in the format of AWS.
pub(crate) fn shown_user_id(id: &str) -> String {
    user_id(id).unwrap_or_else(|| id.to_owned())
}

/// The policy id in the format of AWS.
pub(crate) fn shown_policy_id(id: &str) -> String {
    policy_id(id).unwrap_or_else(|| id.to_owned())
}

/// Converts a user id of the emulator, always to the same id; `None` if it has another format.
fn user_id(id: &str) -> Option<String> {
    let is_emulator_id = id.len() == 20 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !is_emulator_id {
        return None;
    }
    let mut out = "AIDA".to_owned();
    let _ = write!(out, "{}", id[..17].to_uppercase());
    Some(out)
}

/// Converts a policy id of the emulator, always to the same id; `None` if it has another format.
fn policy_id(id: &str) -> Option<String> {
    let rest = id.strip_prefix('A').filter(|rest| rest.len() == 20 && !id.starts_with("ANPA"))?;
    Some(format!("ANPA{}", &rest[..17]))
}

fn whole_second(date: &str, clock_skew: SignedDuration) -> Option<String> {
    let time = date.parse::<Timestamp>().ok()?.checked_add(clock_skew).ok()?;
    Timestamp::from_second(time.as_second()).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_proxy::call::Service;
    use crate::aws_proxy::xml;

    fn normalize_one(action: &str, element: &str, text: &str, skew: i64) -> String {
        let response = AwsResponse::success(Service::Iam, action, &xml::leaf(element, text));
        let normalized = normalize(response, &Call::iam(action), SignedDuration::from_secs(skew));
        xml::text_in(&normalized.body, element).unwrap()
    }

    #[test]
    fn user_ids_have_the_aws_format() {
        assert_eq!(normalize_one("GetUser", "UserId", "hrt1l661zro80sonjlo0", 0), "AIDAHRT1L661ZRO80SONJ");
        assert_eq!(normalize_one("GetCallerIdentity", "UserId", "AROAX:s", 0), "AROAX:s");
    }

    #[test]
    fn policy_ids_have_the_aws_format() {
        assert_eq!(normalize_one("GetPolicy", "PolicyId", "AR77VUPULTLNQBCU1FPAU", 0), "ANPAR77VUPULTLNQBCU1F");
        assert_eq!(normalize_one("GetPolicy", "PolicyId", "ANPAR77VUPULTLNQBCU1F", 0), "ANPAR77VUPULTLNQBCU1F");
    }

    #[test]
    fn dates_are_whole_seconds_on_the_skewed_clock() {
        let date = "2026-11-21T21:53:20.984234Z";
        assert_eq!(normalize_one("GetUser", "CreateDate", date, 0), "2026-11-21T21:53:20Z");
        assert_eq!(normalize_one("GetUser", "CreateDate", date, -600), "2026-11-21T21:43:20Z");
        assert_eq!(normalize_one("GetUser", "CreateDate", "never", 60), "never");
    }

    #[test]
    fn policy_documents_are_encoded_once() {
        let encoded = normalize_one("GetPolicyVersion", "Document", "{\"a\": 1}", 0);
        assert_eq!(encoded, "%7B%22a%22%3A%201%7D");
        assert_eq!(normalize_one("GetPolicyVersion", "Document", &encoded, 0), encoded);
    }

    #[test]
    fn errors_are_not_changed() {
        let error = AwsResponse::html(500);
        assert_eq!(normalize(error.clone(), &Call::iam("GetUser"), SignedDuration::ZERO), error);
    }
}
