//! Customer managed policies: names, versions, quotas, lists and deletion.

use super::*;
use crate::aws_proxy::Rule;

const OTHER: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}]}"#;

fn create(name: &str) -> Call {
    Call::iam("CreatePolicy").with("PolicyName", name).with("Path", "/p/").with("PolicyDocument", DOCUMENT)
}

fn about(action: &str, arn: &str) -> Call {
    Call::iam(action).with("PolicyArn", arn)
}

fn version(document: &str, default: bool, arn: &str) -> Call {
    about("CreatePolicyVersion", arn).with("PolicyDocument", document).with("SetAsDefault", default.to_string())
}

fn conflict(message: &str) -> (u16, String, String) {
    (409, "DeleteConflict".to_owned(), message.to_owned())
}

async fn created(operator: &Client, name: &str) -> String {
    text(&operator.ok(&create(name)).await, "Arn")
}

#[tokio::test]
async fn policy_names_are_unique_ignoring_case_and_path() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let arn = created(&operator, "Deploy+a").await;
    assert!(arn.ends_with(":policy/p/Deploy+a"), "{arn}");
    for call in [create("Deploy+a"), create("deploy+A"), create("DEPLOY+a").with("Path", "/q/")] {
        let (status, code, message) = operator.expect_error(&call).await;
        assert_eq!((status, code.as_str()), (409, "EntityAlreadyExists"));
        let name = call.param("PolicyName").unwrap();
        assert_eq!(message, format!("A policy called {name} already exists. Duplicate names are not allowed."));
    }
    let (one, other) = (create("same"), create("SAME"));
    let race = futures::future::join(operator.call(&one), operator.call(&other)).await;
    assert_eq!([race.0, race.1].iter().filter(|result| result.is_ok()).count(), 1, "concurrent creations are atomic");
}

#[tokio::test]
async fn invalid_policies_are_rejected() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let principal = DOCUMENT.replace(r#""Resource""#, r#""Principal":"*","Resource""#);
    for (call, code) in [
        (create("a b"), "ValidationError"),
        (create(&"x".repeat(129)), "ValidationError"),
        (create("a").with("Path", "p/"), "ValidationError"),
        (create("a").with("Path", "/p!/"), "ValidationError"),
        (create("a").with_tags([("aws:x", "")]), "InvalidInput"),
        (create("a").with("PolicyDocument", "{}"), "MalformedPolicyDocument"),
        (create("a").with("PolicyDocument", &principal), "MalformedPolicyDocument"),
        (create("a").without("PolicyDocument"), "ValidationError"),
    ] {
        assert_eq!(operator.error_code(&call).await, code, "{call:?}");
    }
    let inline = on("PutUserPolicy", "u").with("PolicyName", "p").with("PolicyDocument", principal);
    operator.ok(&on("CreateUser", "u")).await;
    assert_eq!(operator.expect_error(&inline).await.2, "Policy document should not specify a principal.");
    let arn = created(&operator, "a").await;
    assert_eq!(operator.error_code(&version("{}", true, &arn)).await, "MalformedPolicyDocument");
    assert_eq!(aws.inspector().policies("/").await.unwrap().len(), 1);
}

#[tokio::test]
async fn policy_quota_of_the_account_is_enforced() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    assert_eq!(aws.account().settings().policies_quota, 1500);
    aws.account().configure(|settings| settings.policies_quota = 1);
    let arn = created(&operator, "a").await;
    let (status, code, message) = operator.expect_error(&create("b")).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    assert_eq!(message, "Cannot exceed quota for PoliciesPerAccount: 1");
    operator.ok(&about("DeletePolicy", &arn)).await;
    created(&operator, "b").await;
}

#[tokio::test]
async fn policy_has_at_most_five_versions_and_one_default() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let arn = created(&operator, "a").await;
    let made = operator.ok(&version(OTHER, true, &arn)).await;
    assert_eq!((text(&made, "VersionId"), text(&made, "IsDefaultVersion")), ("v2".to_owned(), "true".to_owned()));
    assert!(texts(&made, "Document").is_empty(), "{made}");
    for _ in 3..=5 {
        operator.ok(&version(DOCUMENT, false, &arn)).await;
    }
    let (status, code, _) = operator.expect_error(&version(DOCUMENT, true, &arn)).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    let listed = operator.ok(&about("ListPolicyVersions", &arn)).await;
    assert_eq!(texts(&listed, "VersionId"), ["v5", "v4", "v3", "v2", "v1"], "newest first");
    assert!(texts(&listed, "Document").is_empty(), "{listed}");
    let on_version = |action: &str, id: &str| about(action, &arn).with("VersionId", id);
    // The emulator has no default version afterwards.
    operator.ok(&on_version("SetDefaultPolicyVersion", "v2")).await;
    let listed = operator.ok(&about("ListPolicyVersions", &arn)).await;
    assert_eq!(texts(&listed, "IsDefaultVersion"), ["false", "false", "false", "true", "false"]);

    let delete = |id: &str| on_version("DeletePolicyVersion", id);
    assert_eq!(operator.expect_error(&delete("v2")).await, conflict("Cannot delete the default version of a policy."));
    operator.ok(&delete("v1")).await;
    for action in ["DeletePolicyVersion", "SetDefaultPolicyVersion", "GetPolicyVersion"] {
        assert_eq!(operator.error_code(&on_version(action, "v1")).await, "NoSuchEntity", "{action}");
        assert_eq!(operator.error_code(&on_version(action, "1")).await, "ValidationError", "{action}");
    }
    let made = operator.ok(&version(OTHER, false, &arn)).await;
    assert_eq!(text(&made, "VersionId"), "v6", "ids are not reused");
    let document = operator.ok(&on_version("GetPolicyVersion", "v6")).await;
    assert!(text(&document, "Document").starts_with("%7B%22Version"), "{document}");
    let snapshot = aws.inspector().policy(&arn).await.unwrap().unwrap();
    assert_eq!((snapshot.default_version.as_str(), snapshot.versions.len()), ("v2", 5));
    assert_eq!(snapshot.document().unwrap()["Statement"][0]["Action"], "s3:PutObject");
}

#[tokio::test]
async fn policy_in_use_or_with_versions_cannot_be_deleted() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let arn = created(&operator, "a").await;
    let delete = about("DeletePolicy", &arn);
    operator.ok(&version(OTHER, true, &arn)).await;
    assert_eq!(
        operator.expect_error(&delete).await,
        conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. \
             The default version is deleted with the policy."
        )
    );
    operator.ok(&about("DeletePolicyVersion", &arn).with("VersionId", "v1")).await;

    let in_use = conflict("Cannot delete a policy attached to entities.");
    operator.ok(&on("CreateUser", "u")).await;
    operator.ok(&on("AttachUserPolicy", "u").with("PolicyArn", &arn)).await;
    assert_eq!(operator.expect_error(&delete).await, in_use);
    operator.ok(&on("DetachUserPolicy", "u").with("PolicyArn", &arn)).await;
    operator.ok(&on("PutUserPermissionsBoundary", "u").with("PermissionsBoundary", &arn)).await;
    assert_eq!(operator.expect_error(&delete).await, in_use);
    operator.ok(&on("DeleteUserPermissionsBoundary", "u")).await;

    operator.ok(&delete).await;
    for action in ["DeletePolicy", "GetPolicy", "ListPolicyVersions", "ListEntitiesForPolicy", "ListPolicyTags"] {
        assert_eq!(operator.error_code(&about(action, &arn)).await, "NoSuchEntity", "{action}");
    }
    assert_eq!(operator.error_code(&version(OTHER, true, &arn)).await, "NoSuchEntity");
    assert_eq!(operator.error_code(&on("AttachUserPolicy", "u").with("PolicyArn", &arn)).await, "NoSuchEntity");
    assert_eq!(operator.error_code(&about("TagPolicy", &arn).with_tags([("k", "v")])).await, "NoSuchEntity");
}

#[tokio::test]
async fn entities_of_a_policy_include_those_it_limits() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let arn = created(&operator, "a").await;
    operator.ok(&on("CreateUser", "attached")).await;
    operator.ok(&on("CreateUser", "limited").with("PermissionsBoundary", &arn)).await;
    operator.ok(&on("AttachUserPolicy", "attached").with("PolicyArn", &arn)).await;
    aws.manual_changes().create_group("g").await.unwrap();
    aws.manual_changes().call(&about("AttachGroupPolicy", &arn).with("GroupName", "g")).await.unwrap();
    let entities = async |call: Call| {
        let body = operator.ok(&call).await;
        [texts(&body, "GroupName"), texts(&body, "UserName")].concat()
    };
    let list = || about("ListEntitiesForPolicy", &arn);
    assert_eq!(entities(list()).await, ["g", "attached", "limited"]);
    assert_eq!(entities(list().with("EntityFilter", "Group")).await, ["g"]);
    assert_eq!(entities(list().with("PolicyUsageFilter", "PermissionsPolicy")).await, ["g", "attached"]);
    assert_eq!(entities(list().with("PolicyUsageFilter", "PermissionsBoundary")).await, ["limited"]);
    let policy = operator.ok(&about("GetPolicy", &arn)).await;
    assert_eq!(text(&policy, "AttachmentCount"), "2");
    assert_eq!(text(&policy, "PermissionsBoundaryUsageCount"), "1");
}

#[tokio::test]
async fn listed_policies_have_the_aws_format() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let tagged = create("a").with_tags([("awsdeploy.dev/uid", "1-2")]);
    let made = operator.ok(&tagged).await;
    let (arn, id) = (text(&made, "Arn"), text(&made, "PolicyId"));
    assert!(id.starts_with("ANPA") && id.len() == 21, "{id}");
    operator.ok(&create("b").with("Path", "/p/q/")).await;
    operator.ok(&create("c").with("Path", "/px/")).await;
    operator.ok(&version(OTHER, true, &arn)).await;
    let policy = operator.ok(&about("GetPolicy", &arn)).await;
    assert_eq!((text(&policy, "PolicyId"), text(&policy, "Key")), (id.clone(), "awsdeploy.dev/uid".to_owned()));

    let list = |prefix: &str| Call::iam("ListPolicies").with("Scope", "Local").with("PathPrefix", prefix);
    let listed = operator.ok(&list("/p/")).await;
    assert_eq!(texts(&listed, "PolicyName"), ["a", "b"]);
    assert_eq!(texts(&listed, "DefaultVersionId"), ["v2", "v1"]);
    assert!(texts(&listed, "Tags").is_empty(), "lists have no tags: {listed}");
    let unused = list("/p/").with("PolicyUsageFilter", "PermissionsPolicy");
    assert!(texts(&operator.ok(&unused).await, "PolicyName").is_empty());
    assert_eq!(operator.error_code(&list("/p")).await, "ValidationError");
    assert_eq!(operator.error_code(&list("/p/").with("Scope", "Mine")).await, "ValidationError");

    let details = Call::iam("GetAccountAuthorizationDetails").with("Filter.member.1", "LocalManagedPolicy");
    let details = operator.ok(&details).await;
    let mut names = texts(&details, "PolicyName");
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(texts(&details, "PolicyId").contains(&id), "{details}");
    assert_eq!(texts(&details, "VersionId").len(), 4, "all versions: {details}");
    assert!(texts(&details, "Document").iter().all(|document| document.starts_with("%7B")), "{details}");
    let users = Call::iam("GetAccountAuthorizationDetails").with("Filter.member.1", "User");
    assert!(texts(&operator.ok(&users).await, "PolicyName").is_empty());
}

#[tokio::test]
async fn policy_lists_have_pages() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    for n in 0..3 {
        created(&operator, &format!("p{n}")).await;
    }
    let list = Call::iam("ListPolicies").with("Scope", "Local").with("MaxItems", "2");
    let first = operator.ok(&list).await;
    let second = operator.ok(&list.clone().with("Marker", text(&first, "Marker"))).await;
    assert_eq!(
        (texts(&first, "PolicyName"), texts(&second, "PolicyName")),
        (vec!["p0".into(), "p1".into()], vec!["p2".into()])
    );
    assert_eq!(text(&second, "IsTruncated"), "false");
    let aws_managed = Call::iam("ListPolicies").with("Scope", "AWS");
    assert_eq!(texts(&operator.ok(&aws_managed).await, "PolicyName").len(), 100, "the default page size");
}

#[tokio::test]
async fn policy_tags_are_limited_and_merge_ignoring_case() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let arn = created(&operator, "a").await;
    let tag = |tags: &[(&str, &str)]| about("TagPolicy", &arn).with_tags(tags.iter().copied());
    let tags = async || aws.inspector().policy(&arn).await.unwrap().unwrap().tags.into_iter().collect::<Vec<_>>();
    operator.ok(&tag(&[("Owner", "a"), ("keep", "k")])).await;
    operator.ok(&tag(&[("owner", "b")])).await;
    assert_eq!(tags().await, [("keep".into(), "k".into()), ("owner".into(), "b".into())]);
    assert_eq!(operator.error_code(&tag(&[("aws:x", "")])).await, "InvalidInput");
    let many: Vec<String> = (0..49).map(|n| format!("k{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "v")).collect();
    assert_eq!(operator.error_code(&tag(&many)).await, "LimitExceeded");
    operator.ok(&about("UntagPolicy", &arn).with("TagKeys.member.1", "OWNER").with("TagKeys.member.2", "none")).await;
    assert_eq!(tags().await, [("keep".into(), "k".into())]);
}

#[tokio::test]
async fn aws_managed_policies_cannot_be_changed() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    for call in [
        version(DOCUMENT, true, READ_ONLY),
        about("DeletePolicy", READ_ONLY),
        about("TagPolicy", READ_ONLY).with_tags([("k", "v")]),
    ] {
        assert_eq!(operator.error_code(&call).await, "AccessDenied", "{call:?}");
    }
    operator.ok(&about("GetPolicy", READ_ONLY)).await;
}

#[tokio::test]
async fn new_policy_becomes_visible_after_the_lag() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.account().configure(|settings| settings.policy_visibility_lag = TIMEOUT);
    operator.ok(&on("CreateUser", "u")).await;
    let arn = created(&operator, "a").await;
    let attach = on("AttachUserPolicy", "u").with("PolicyArn", &arn);
    for call in [&about("GetPolicy", &arn), &attach, &version(OTHER, true, &arn)] {
        assert_eq!(operator.error_code(call).await, "NoSuchEntity", "{call:?}");
    }
    let list = Call::iam("ListPolicies").with("Scope", "Local");
    assert!(texts(&operator.ok(&list).await, "Arn").is_empty());
    assert_eq!(operator.error_code(&create("a")).await, "EntityAlreadyExists", "the name is taken at once");
    aws.account().configure(|settings| settings.policy_visibility_lag = Duration::ZERO);
    operator.ok(&attach).await;

    // A deleted policy is still read from a replica that lags.
    operator.ok(&on("DetachUserPolicy", "u").with("PolicyArn", &arn)).await;
    operator.ok(&about("GetPolicy", &arn)).await;
    aws.rules().add(Rule::on("GetPolicy").stale_read(TIMEOUT));
    operator.ok(&about("DeletePolicy", &arn)).await;
    operator.ok(&about("GetPolicy", &arn)).await;
    aws.rules().clear();
    assert_eq!(operator.error_code(&about("GetPolicy", &arn)).await, "NoSuchEntity");
}

#[tokio::test]
async fn lost_replies_leave_the_policy_and_version() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.rules().add(Rule::on_any_of(["CreatePolicy", "CreatePolicyVersion"]).after_commit().drop_connection());
    assert!(operator.send(&create("a")).await.is_err());
    let arn = aws.account().home().arn("iam", "policy/p/a");
    assert!(operator.send(&version(OTHER, true, &arn)).await.is_err());
    let policy = aws.inspector().policy(&arn).await.unwrap().unwrap();
    assert_eq!((policy.default_version.as_str(), policy.versions.len()), ("v2", 2));
}

#[tokio::test]
async fn policy_calls_are_authorized_on_the_policy() {
    let aws = aws().await;
    let arn = |name: &str| aws.account().home().arn("iam", &format!("policy/p/{name}"));
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["iam:CreatePolicy", "iam:GetPolicy", "iam:DeletePolicy"], "Resource": arn("own*")},
        {"Effect": "Allow", "Action": "iam:TagPolicy", "Resource": [arn("own1"), arn("own2")]},
        {"Effect": "Allow", "Action": "iam:CreatePolicyVersion", "Resource": "*",
         "Condition": {"StringEquals": {"aws:ResourceTag/owner": "me"}}},
        {"Effect": "Allow", "Action": "iam:CreatePolicyVersion", "Resource": "*",
         "Condition": {"StringEquals": {"iam:ResourceTag/owner": "me"}}},
        {"Effect": "Allow", "Action": ["iam:AttachUserPolicy", "iam:DetachUserPolicy"], "Resource": "*",
         "Condition": {"ArnLike": {"iam:PolicyARN": arn("own*")}}},
        {"Effect": "Allow", "Action": "iam:ListPolicies", "Resource": "*"},
    ]});
    aws.enforce_policies().enforce([&policy]).unwrap();
    aws.manual_changes().create_user("u").await.unwrap();
    aws.manual_changes().create_policy_at("/p/", "other", DOCUMENT).await.unwrap();
    let operator = Client::operator(&aws);
    operator.ok(&create("own1").with_tags([("owner", "me")])).await;
    operator.ok(&create("own2").with_tags([("owner", "you")])).await;
    operator.ok(&version(OTHER, true, &arn("own1"))).await;
    operator.ok(&on("AttachUserPolicy", "u").with("PolicyArn", arn("own1"))).await;
    operator.ok(&on("DetachUserPolicy", "u").with("PolicyArn", arn("own1"))).await;
    operator.ok(&Call::iam("ListPolicies").with("Scope", "Local")).await;
    for denied in [
        create("mine"),
        create("own3").with("Path", "/q/"),
        about("GetPolicy", &arn("other")),
        version(OTHER, true, &arn("own2")),
        on("AttachUserPolicy", "u").with("PolicyArn", arn("other")),
        about("TagPolicy", &arn("other")).with_tags([("k", "v")]),
        create("own3").with_tags([("k", "v")]),
    ] {
        assert_eq!(operator.error_code(&denied).await, "AccessDenied", "{denied:?}");
    }
}
