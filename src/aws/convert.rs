//! What AWS answers, in our words, and ours in AWS's.

use std::collections::BTreeMap;

use aws_sdk_iam::types::{AttachedPermissionsBoundary, Tag, User};
use aws_smithy_types::DateTime;
use jiff::Timestamp;

use super::{AwsError, AwsErrorKind};
use crate::domain::current_state::IamUser;

/// `NoSuchEntity` as `None`; every other error stays an error.
pub(super) fn optional<T>(answer: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == AwsErrorKind::NoSuchEntity => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the next page starts. A page may be shorter than asked for, even empty, and still not be the last.
pub(super) fn next(truncated: bool, marker: Option<&str>) -> Option<String> {
    marker.filter(|marker| truncated && !marker.is_empty()).map(str::to_owned)
}

/// Every entry of a list as a collection: asks for page after page, each a call of its own. `$entry` picks what is of use of one
/// of the `$entries`. A macro, since the answers of the SDK have no trait in common.
macro_rules! paginate {
    ($iam:expr, $action:literal, $request:expr, $entries:ident, $entry:expr) => {{
        let (mut picked, mut marker) = (Default::default(), None);
        loop {
            let page = $iam.call($action, $request.clone().set_marker(marker).send()).await?;
            Extend::extend(&mut picked, page.$entries().iter().filter_map($entry));
            marker = $crate::aws::convert::next(page.is_truncated(), page.marker());
            if marker.is_none() {
                break Ok(picked);
            }
        }
    }};
}
pub(super) use paginate;

/// A user as an answer about it alone shows it: without keys and grants.
pub(super) fn user_facts(user: &User) -> IamUser {
    IamUser {
        name: user.user_name().to_owned(),
        arn: user.arn().to_owned(),
        id: user.user_id().to_owned(),
        tags: to_map(user.tags()),
        keys: Vec::new(),
        boundary: boundary_arn(user.permissions_boundary()),
        grants: None,
        deletion_blockers: None,
        login_profile: None,
    }
}

/// Tags as a map.
pub(super) fn to_map(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

/// The ARN of a permissions boundary.
pub(super) fn boundary_arn(boundary: Option<&AttachedPermissionsBoundary>) -> Option<String> {
    boundary.and_then(AttachedPermissionsBoundary::permissions_boundary_arn).map(str::to_owned)
}

/// A map as tags.
pub(super) fn to_tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    // Key and value are always given, so building a tag cannot fail.
    tags.iter().filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok()).collect()
}

/// A time, in whole seconds as AWS tells it.
pub(super) fn timestamp(date: &DateTime) -> Timestamp {
    Timestamp::from_second(date.secs()).unwrap_or_default()
}
