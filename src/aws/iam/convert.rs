//! Conversions between SDK types and domain types.

use std::collections::BTreeMap;

use aws_sdk_iam::types::{AttachedPermissionsBoundary, Tag, User};
use aws_smithy_types::DateTime;
use jiff::Timestamp;

use crate::{
    aws::{AwsError, AwsErrorKind},
    domain::current_state::IamUser,
};

/// `NoSuchEntity` as `None`; every other error stays an error.
pub(super) fn optional<T>(result: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == AwsErrorKind::NoSuchEntity => Ok(None),
        Err(error) => Err(error),
    }
}

/// Marker of the next page; `None` after the last one. A page may be shorter than its limit, even empty, and still not be the
/// last.
///
/// # Errors
/// There are more pages and no marker of them: what was read is not the whole list.
pub(super) fn next_marker(
    operation: &'static str,
    truncated: bool,
    marker: Option<&str>,
) -> Result<Option<String>, AwsError> {
    match marker.filter(|marker| !marker.is_empty()) {
        Some(marker) if truncated => Ok(Some(marker.to_owned())),
        None if truncated => Err(AwsError::incomplete(operation, "marker, although it is truncated")),
        _ => Ok(None),
    }
}

/// Reads all pages of a list, one call each, and collects what `$convert` returns for each entry of `$entries`. A macro,
/// since the list outputs of the SDK share no trait.
macro_rules! paginate {
    ($client:expr, $operation:literal, $request:expr, $entries:ident, $convert:expr) => {{
        let (mut converted, mut marker) = (Default::default(), None);
        loop {
            let page = $client.call($operation, $request.clone().set_marker(marker).send()).await?;
            Extend::extend(&mut converted, page.$entries().iter().filter_map($convert));
            marker = $crate::aws::iam::convert::next_marker($operation, page.is_truncated(), page.marker())?;
            if marker.is_none() {
                break Ok(converted);
            }
        }
    }};
}
pub(super) use paginate;

/// A user as an operation on this user alone returns it: without keys and grants.
pub(super) fn iam_user(user: &User) -> IamUser {
    IamUser {
        name: user.user_name().to_owned(),
        arn: user.arn().to_owned(),
        id: user.user_id().to_owned(),
        tags: tags_to_map(user.tags()),
        keys: Vec::new(),
        boundary: boundary_arn(user.permissions_boundary()),
        grants: None,
        deletion_blockers: None,
        login_profile: None,
    }
}

pub(super) fn tags_to_map(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

pub(super) fn map_to_tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    // Building a tag fails only without a key or a value.
    tags.iter().filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok()).collect()
}

pub(super) fn boundary_arn(boundary: Option<&AttachedPermissionsBoundary>) -> Option<String> {
    boundary.and_then(AttachedPermissionsBoundary::permissions_boundary_arn).map(str::to_owned)
}

/// Whole seconds, as IAM returns them.
pub(super) fn timestamp(date: &DateTime) -> Timestamp {
    Timestamp::from_second(date.secs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_page_without_a_marker_is_no_whole_list() {
        let next = |truncated, marker| next_marker("ListUsers", truncated, marker).map_err(|error| error.kind);
        assert_eq!(next(true, Some("m")), Ok(Some("m".to_owned())));
        assert_eq!(next(false, Some("m")), Ok(None));
        assert_eq!(next(false, None), Ok(None));
        for missing in [None, Some("")] {
            assert_eq!(next(true, missing), Err(AwsErrorKind::Service));
        }
    }
}
