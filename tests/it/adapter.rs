//! The IAM adapter: the real SDK against an AWS that behaves like AWS.

use std::{sync::Arc, time::Duration};

use awsdeploy::{
    aws::{AwsErrorKind, IamClient},
    domain::current_state::UserRef,
};
use awsdeploy_testkit::aws_proxy::{AwsError, Rule};
use serde_json::json;

use crate::test_env::TestAccount;

async fn iam(aws: &TestAccount) -> Arc<IamClient> {
    aws.accounts().await.client(None)
}

/// The user `u`, as observed.
async fn user_ref(iam: &IamClient) -> UserRef {
    iam.get_user("u").await.expect("the account can be read").expect("the user").reference()
}

pub(crate) async fn lost_response_causes_no_second_create() {
    let aws = TestAccount::new().await;
    let iam = iam(&aws).await;
    aws.manual_changes().create_user("u").await.expect("a user");
    aws.rules().add(Rule::on("CreateAccessKey").after_commit().drop_connection());
    let error = iam.create_access_key(&user_ref(&iam).await).await.expect_err("the response is lost");
    assert_eq!(error.kind, AwsErrorKind::Unreachable, "{error}");
    assert!(!error.kind.is_definite(), "a key may have been created");
    assert_eq!(aws.log().calls_of("CreateAccessKey").len(), 1);
    assert_eq!(aws.inspector().keys("u").await.expect("the account can be read").len(), 1);
}

pub(crate) async fn http_500_causes_no_second_create() {
    let aws = TestAccount::new().await;
    let iam = iam(&aws).await;
    aws.manual_changes().create_user("u").await.expect("a user");
    for rule in
        [Rule::on("CreateAccessKey").nth(1).after_commit().html(500), Rule::on("CreateAccessKey").nth(2).throttle()]
    {
        aws.rules().add(rule);
    }
    let error = iam.create_access_key(&user_ref(&iam).await).await.expect_err("a response that is not from IAM");
    assert_eq!(error.kind, AwsErrorKind::Service, "{error}");
    assert_eq!(aws.log().calls_of("CreateAccessKey").len(), 1);
    let error = iam.create_access_key(&user_ref(&iam).await).await.expect_err("throttled");
    assert_eq!((error.kind, error.kind.is_definite()), (AwsErrorKind::Throttled, true));
    assert_eq!(aws.log().calls_of("CreateAccessKey").len(), 2, "throttling is not retried either");
}

pub(crate) async fn lists_are_read_page_by_page() {
    let aws = TestAccount::new().await;
    let iam = iam(&aws).await;
    let manual_changes = aws.manual_changes();
    manual_changes.create_user("u").await.expect("a user");
    for n in 0..5 {
        manual_changes.put_inline("u", &format!("p{n}"), r#"{"Version":"2012-10-17","Statement":[]}"#).await.ok();
    }
    for name in ["AmazonEC2FullAccess", "AmazonS3FullAccess", "AdministratorAccess"] {
        manual_changes.attach("u", &format!("arn:aws:iam::aws:policy/{name}")).await.expect("attached");
    }
    manual_changes.create_key("u").await.expect("a key");
    manual_changes.create_key("u").await.expect("a key");
    aws.account.configure(|settings| settings.page_size = 1);
    let before = aws.inspector().user("u").await.expect("the account can be read").expect("the user");
    let grants = iam.get_grants("u").await.expect("grants");
    assert_eq!(grants.attached, before.attached);
    assert_eq!(grants.attached.len(), 3);
    assert_eq!(grants.inline.len(), before.inline.len());
    assert_eq!(iam.list_access_keys("u").await.expect("keys").len(), 2);
}

pub(crate) async fn policy_documents_are_decoded() {
    let aws = TestAccount::new().await;
    let iam = iam(&aws).await;
    aws.manual_changes().create_user("u").await.expect("a user");
    let document = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::a+b/%20 ü/*"}]});
    iam.put_inline_policy(&user_ref(&iam).await, "own", &document).await.expect("written");
    assert_eq!(iam.get_grants("u").await.expect("grants").inline["own"], document);
}

pub(crate) async fn errors_are_classified() {
    let aws = TestAccount::new().await;
    let iam = iam(&aws).await;
    aws.manual_changes().create_user("u").await.expect("a user");
    let user = user_ref(&iam).await;
    assert_eq!(iam.get_user("absent").await.expect("absence is no error"), None);
    for (status, code, kind) in [
        (404, "NoSuchEntity", AwsErrorKind::NoSuchEntity),
        (409, "EntityAlreadyExists", AwsErrorKind::EntityAlreadyExists),
        (409, "DeleteConflict", AwsErrorKind::DeleteConflict),
        (409, "LimitExceeded", AwsErrorKind::LimitExceeded),
        (400, "MalformedPolicyDocument", AwsErrorKind::MalformedPolicyDocument),
        (400, "InvalidInput", AwsErrorKind::InvalidInput),
        (400, "ValidationError", AwsErrorKind::InvalidInput),
        (403, "AccessDenied", AwsErrorKind::AccessDenied),
        (403, "InvalidClientTokenId", AwsErrorKind::Credentials),
        (400, "RequestExpired", AwsErrorKind::ClockSkew),
        (400, "Throttling", AwsErrorKind::Throttled),
        (409, "EntityTemporarilyUnmodifiable", AwsErrorKind::Busy),
        (409, "ConcurrentModification", AwsErrorKind::Busy),
        (500, "ServiceFailure", AwsErrorKind::Service),
        (503, "SomethingNew", AwsErrorKind::Service),
        (400, "SomethingNew", AwsErrorKind::Service),
    ] {
        let rule = aws.rules().add(Rule::on("TagUser").respond_with(AwsError::new(status, code, "the message of AWS")));
        let error = iam.tag_user(&user, &[("a".to_owned(), "b".to_owned())].into()).await.expect_err(code);
        assert_eq!(error.kind, kind, "{code}: {error}");
        assert!(error.to_string().contains("the message of AWS") && error.request_id.is_some(), "{error}");
        aws.rules().remove(rule);
    }
    aws.rules().add(Rule::on("GetUser").html(500));
    assert_eq!(iam.get_user("u").await.expect_err("a failed read is never absence").kind, AwsErrorKind::Service);
}

pub(crate) async fn user_missing_in_a_response_is_not_absent() {
    let aws = TestAccount::new().await;
    let iam = iam(&aws).await;
    aws.manual_changes().create_user("u").await.expect("a user");
    let no_user = "<GetUserResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><GetUserResult></GetUserResult>\
                   <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetUserResponse>";
    for rule in
        [Rule::on("GetUser").empty(), Rule::on("GetUser").rewrite(|_, response| no_user.clone_into(&mut response.body))]
    {
        let rule = aws.rules().add(rule);
        let error = iam.get_user("u").await.expect_err("the response is not complete");
        assert!(!error.kind.is_definite() && error.kind != AwsErrorKind::NoSuchEntity, "{error}");
        aws.rules().remove(rule);
    }
    assert!(iam.get_user("u").await.expect("a complete response").is_some());
}

pub(crate) async fn unresponsive_aws_times_out() {
    let aws = TestAccount::new().await;
    let iam = iam(&aws).await;
    aws.manual_changes().create_user("u").await.expect("a user");
    aws.rules().add(Rule::on("CreateAccessKey").after_commit().delay(Duration::from_mins(3)));
    let started = tokio::time::Instant::now();
    let error = iam.create_access_key(&user_ref(&iam).await).await.expect_err("a timeout");
    assert_eq!((error.kind, error.kind.is_definite()), (AwsErrorKind::Unreachable, false), "{error}");
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
    assert_eq!(aws.log().calls_of("CreateAccessKey").len(), 1);
}
