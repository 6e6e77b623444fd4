//! Paging of lists.

use super::*;
use crate::aws_proxy::PageShape;

/// Reads all pages of a list and returns the texts of an element, page by page.
async fn pages(client: &Client, call: &Call, element: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = call.clone();
    loop {
        let body = client.ok(&next).await;
        pages.push(texts(&body, element));
        match text(&body, "IsTruncated").as_str() {
            "true" => next = call.clone().with("Marker", text(&body, "Marker")),
            _ => return pages,
        }
        assert!(pages.len() < 50, "the list does not end");
    }
}

#[tokio::test]
async fn paged_lists_are_complete() {
    let aws = aws().await;
    let manual_changes = aws.manual_changes();
    let operator = Client::operator(&aws);
    let tags: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
    operator.ok(&on("CreateUser", "u").with_tags(tags.iter().map(|tag| (tag.as_str(), "v")))).await;
    for n in 0..2 {
        manual_changes.create_key("u").await.unwrap();
        manual_changes.attach("u", [ADMIN, READ_ONLY][n]).await.unwrap();
        manual_changes.put_inline("u", &format!("p{n}"), DOCUMENT).await.unwrap();
        manual_changes.create_group(&format!("g{n}")).await.unwrap();
        manual_changes.add_to_group("u", &format!("g{n}")).await.unwrap();
        manual_changes.create_user(&format!("v{n}")).await.unwrap();
    }
    aws.account().configure(|settings| settings.page_size = 1);
    for (action, element, count) in [
        ("ListAccessKeys", "AccessKeyId", 2),
        ("ListAttachedUserPolicies", "PolicyArn", 2),
        ("ListUserPolicies", "member", 2),
        ("ListGroupsForUser", "GroupName", 2),
        ("ListUserTags", "Key", 7),
    ] {
        let pages = pages(&operator, &on(action, "u"), element).await;
        assert_eq!(pages.len(), count, "{action}: {pages:?}");
        let mut items: Vec<String> = pages.concat();
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), count, "{action}: {items:?}");
    }
    assert_eq!(pages(&operator, &Call::iam("ListUsers"), "UserName").await.concat(), ["u", "v0", "v1"]);
    let details =
        Call::iam("GetAccountAuthorizationDetails").with("Filter.member.1", "User").with("Filter.member.2", "Group");
    assert_eq!(pages(&operator, &details, "Arn").await.len(), 5);
}

#[tokio::test]
async fn page_shape_and_max_items_determine_page_sizes() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let tags: Vec<String> = (0..20).map(|n| format!("t{n:02}")).collect();
    operator.ok(&on("CreateUser", "u").with_tags(tags.iter().map(|tag| (tag.as_str(), "")))).await;
    let list = on("ListUserTags", "u");
    let lengths = async |call: &Call| {
        let pages = pages(&operator, call, "Key").await;
        assert_eq!(pages.concat(), tags);
        pages.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&list).await, [20]);
    assert_eq!(lengths(&list.clone().with("MaxItems", "8")).await, [8, 8, 4]);
    aws.account().configure(|settings| (settings.page_size, settings.page_shape) = (6, PageShape::Fewer));
    assert_eq!(lengths(&list).await, [6, 3, 6, 3, 2]);
    aws.account().configure(|settings| settings.page_shape = PageShape::WithEmpty);
    assert_eq!(lengths(&list.clone().with("MaxItems", "1000")).await, [6, 3, 0, 3, 6, 0, 2]);
    assert_eq!(operator.error_code(&list.clone().with("MaxItems", "0")).await, "ValidationError");
    assert_eq!(operator.error_code(&list.clone().with("Marker", "made-up")).await, "ValidationError");
}

#[tokio::test]
async fn marker_of_another_list_is_rejected() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    for user in ["u", "v"] {
        operator.ok(&on("CreateUser", user).with_tags([("a", ""), ("b", "")])).await;
    }
    let first = operator.ok(&on("ListUserTags", "u").with("MaxItems", "1")).await;
    let elsewhere = on("ListUserTags", "v").with("Marker", text(&first, "Marker"));
    assert_eq!(operator.error_code(&elsewhere).await, "ValidationError");
    let beyond = text(&first, "Marker").replace(".2.1", ".2.99");
    assert_eq!(operator.error_code(&on("ListUserTags", "u").with("Marker", beyond)).await, "ValidationError");
}

#[tokio::test]
async fn default_page_size_is_100() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let users: Vec<String> = (0..101).map(|n| format!("u{n:03}")).collect();
    for some in users.chunks(16) {
        let create = async |user: &String| operator.ok(&on("CreateUser", user)).await;
        futures::future::join_all(some.iter().map(create)).await;
    }
    let lengths = async |call: Call| {
        let pages = pages(&operator, &call, "UserName").await;
        pages.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(Call::iam("ListUsers")).await, [100, 1]);
    assert_eq!(lengths(Call::iam("ListUsers").with("MaxItems", "1000")).await, [101]);
    let details = Call::iam("GetAccountAuthorizationDetails").with("Filter.member.1", "User");
    assert_eq!(lengths(details).await, [100, 1]);
}
