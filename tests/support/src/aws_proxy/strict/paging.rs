//! Paging of lists. The emulator returns all items at once; AWS returns up to `MaxItems` (100 by default, at most
//! 1,000) or fewer, and a marker for the next page.
//!
//! Later pages are read from the list as it was on the first page, as an eventually consistent service may do.

use std::sync::Arc;

use roxmltree::Document;

use super::super::account::Listing;
use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse, random_hex};
use super::super::settings::PageShape;
use super::super::xml;
use super::{Operation, managed_policies};

const MAX_ITEMS: usize = 1000;

/// The paged actions with the lists in their responses, in the order in which AWS fills them.
const PAGED: [(&str, &[&str]); 14] = [
    ("ListUsers", &["Users"]),
    ("ListAccessKeys", &["AccessKeyMetadata"]),
    ("ListAttachedUserPolicies", &["AttachedPolicies"]),
    ("ListUserPolicies", &["PolicyNames"]),
    ("ListUserTags", &["Tags"]),
    ("ListPolicies", &["Policies"]),
    ("ListPolicyVersions", &["Versions"]),
    ("ListPolicyTags", &["Tags"]),
    ("ListEntitiesForPolicy", &["PolicyGroups", "PolicyUsers", "PolicyRoles"]),
    ("ListGroupsForUser", &["Groups"]),
    ("ListMFADevices", &["MFADevices"]),
    ("ListSSHPublicKeys", &["SSHPublicKeys"]),
    ("ListSigningCertificates", &["Certificates"]),
    ("GetAccountAuthorizationDetails", &["UserDetailList", "GroupDetailList", "RoleDetailList", "Policies"]),
];

fn lists_of(action: &str) -> Option<&'static [&'static str]> {
    PAGED.iter().find(|(paged, _)| *paged == action).map(|(_, lists)| *lists)
}

/// Whether the action is paged.
pub(super) fn is_paged(action: &str) -> bool {
    lists_of(action).is_some()
}

/// Returns a page of a list.
pub(super) async fn list(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    list_after(operation, |response| response).await
}

/// Returns a page of a list; `change` modifies the complete list before it is paged.
pub(super) async fn list_after(
    operation: &Operation<'_>,
    change: impl FnOnce(AwsResponse) -> AwsResponse,
) -> Result<AwsResponse, AwsError> {
    let max_items = max_items(operation.call)?;
    let mut call = operation.call.clone().without("MaxItems").without("Marker");
    let names_no_user = ["ListUsers", "GetAccountAuthorizationDetails", "ListEntitiesForPolicy"];
    if !names_no_user.contains(&call.action.as_str())
        && !call.action.starts_with("ListPolic")
        && call.user_name().is_none()
        && let Some(user) = operation.caller.user()
    {
        call = call.with("UserName", user);
    }
    let request_key =
        format!("{}/{} {}", operation.account_ref().partition, operation.account_ref().account, call.body());
    let lists = lists_of(&call.action).unwrap_or_default();

    let (token, page, start, listing) = if let Some(marker) = operation.call.param("Marker") {
        let found = read_marker(marker).and_then(|(token, page, start)| {
            let listing = operation.account().listing(token)?;
            let fits = listing.request_key == request_key && start <= listing.items.len();
            fits.then(|| (token.to_owned(), page, start, listing))
        });
        found.ok_or_else(|| AwsError::validation(format!("Invalid Marker: {marker}")))?
    } else {
        if call.action.starts_with("ListPolic") {
            call = call.with("MaxItems", managed_policies::ALL_ITEMS);
        }
        let response = operation.forward_as(&call).await?;
        if !response.is_success() {
            return Ok(response);
        }
        let response = change(response);
        let Some(items) = items(&response.body, lists) else { return Ok(response) };
        (random_hex(24), 1, 0, Arc::new(Listing { request_key, items }))
    };

    let settings = operation.account().settings();
    let size = page_length(max_items.min(settings.page_size).max(1), page, settings.page_shape);
    let end = (start + size).min(listing.items.len());
    let mut result = String::new();
    for list in lists {
        let members: String =
            listing.items[start..end].iter().filter(|(of, _)| of == list).map(|(_, xml)| xml.as_str()).collect();
        result.push_str(&xml::wrap(list, &members));
    }
    let truncated = end < listing.items.len();
    result.push_str(&xml::leaf("IsTruncated", if truncated { "true" } else { "false" }));
    if truncated {
        result.push_str(&xml::leaf("Marker", &format!("{token}.{}.{end}", page + 1)));
        if page == 1 {
            operation.account().store_listing(token, listing);
        }
    }
    Ok(operation.success(&result))
}

fn max_items(call: &Call) -> Result<usize, AwsError> {
    let Some(requested) = call.param("MaxItems") else { return Ok(100) };
    match requested.parse() {
        Ok(items) if (1..=MAX_ITEMS).contains(&items) => Ok(items),
        _ => Err(AwsError::constraint(requested, "maxItems", "have value between 1 and 1000")),
    }
}

/// Parses a marker, `token.page.start`, which is opaque to clients.
fn read_marker(marker: &str) -> Option<(&str, usize, usize)> {
    let mut parts = marker.split('.');
    let read = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(read)
}

/// The number of items on a page; pages are counted from 1.
fn page_length(full: usize, page: usize, shape: PageShape) -> usize {
    match shape {
        PageShape::WithEmpty if page.is_multiple_of(3) => 0,
        PageShape::Fewer | PageShape::WithEmpty if page.is_multiple_of(2) => full.div_ceil(2),
        _ => full,
    }
}

/// The members of the lists in a response, each with the name of its list. The XML text is unchanged and can become
/// part of another response of the same action.
fn items(body: &str, lists: &[&str]) -> Option<Vec<(String, String)>> {
    let document = Document::parse(body).ok()?;
    let result = document.root_element().first_element_child()?;
    let mut items = Vec::new();
    for list in lists {
        if let Some(list_element) = xml::child(result, list) {
            items
                .extend(xml::members(list_element).map(|member| ((*list).to_owned(), body[member.range()].to_owned())));
        }
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_items_is_between_1_and_1000() {
        let parsed = |n: &str| max_items(&Call::iam("ListUsers").with("MaxItems", n)).map_err(|error| error.code);
        assert_eq!(max_items(&Call::iam("ListUsers")), Ok(100));
        assert_eq!(parsed("1"), Ok(1));
        assert_eq!(parsed("1000"), Ok(1000));
        for bad in ["0", "1001", "-1", "many", ""] {
            assert_eq!(parsed(bad), Err("ValidationError".to_owned()), "{bad}");
        }
    }

    #[test]
    fn malformed_markers_are_rejected() {
        assert_eq!(read_marker("abc.2.100"), Some(("abc", 2, 100)));
        for bad in ["", "abc", "abc.2", "abc.x.1", "abc.1.2.3"] {
            assert_eq!(read_marker(bad), None, "{bad}");
        }
    }

    #[test]
    fn page_shape_determines_the_page_length() {
        let lengths = |shape| (1..=6).map(|page| page_length(10, page, shape)).collect::<Vec<_>>();
        assert_eq!(lengths(PageShape::Full), [10; 6]);
        assert_eq!(lengths(PageShape::Fewer), [10, 5, 10, 5, 10, 5]);
        assert_eq!(lengths(PageShape::WithEmpty), [10, 5, 0, 5, 10, 0]);
        assert_eq!(page_length(1, 2, PageShape::Fewer), 1, "a page size of 1 is never halved to 0");
    }

    #[test]
    fn members_keep_their_list_and_nested_lists() {
        let body = "<R><RResult><UserDetailList><member><Tags><member>t</member></Tags></member></UserDetailList>\
                    <Policies/></RResult></R>";
        let items = items(body, &["UserDetailList", "Policies"]).unwrap();
        assert_eq!(
            items,
            [("UserDetailList".to_owned(), "<member><Tags><member>t</member></Tags></member>".to_owned())]
        );
    }
}
