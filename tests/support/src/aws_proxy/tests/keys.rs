//! Access keys: signatures, propagation delays, quota, last use, sessions.

use std::time::Duration;

use super::*;
use crate::aws_proxy::{AccountRef, KeyState, Rule};

#[tokio::test]
async fn new_key_authenticates_as_its_user() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u").with("Path", "/deploy/")).await;
    let key = operator.create_key("u").await;
    let arn = Client::with_key(&aws, &key).caller_identity().await.unwrap();
    assert_eq!(arn, format!("arn:aws:iam::{}:user/deploy/u", aws.account().id()));
}

#[tokio::test]
async fn operator_arn_is_a_role_of_the_home_account_by_default() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let role = format!("arn:aws:sts::{}:assumed-role/deploy-users/operator", aws.account().id());
    assert_eq!(operator.caller_identity().await.unwrap(), role);
    let other = "arn:aws:iam::123456789012:user/operator";
    aws.account().configure(|settings| settings.operator_arn = Some(other.to_owned()));
    assert_eq!(operator.caller_identity().await.unwrap(), other);
}

#[tokio::test]
async fn unknown_inactive_deleted_and_forged_keys_are_rejected() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let key = operator.create_key("u").await;
    let user = Client::with_key(&aws, &key);
    let update = on("UpdateAccessKey", "u").with("AccessKeyId", &key.id);

    let unknown = Client::with(&aws, "AKIAIOSFODNN7STRANGE", "x");
    let (status, code, message) = unknown.expect_error(&Call::sts("GetCallerIdentity")).await;
    assert_eq!((status, code.as_str()), (403, "InvalidClientTokenId"));
    assert_eq!(message, "The security token included in the request is invalid.");
    assert_eq!(unknown.error_code(&Call::iam("ListUsers")).await, "InvalidClientTokenId");

    let forger = Client::with(&aws, &key.id, "not-the-secret");
    assert_eq!(forger.caller_identity().await.unwrap_err(), "SignatureDoesNotMatch");

    operator.ok(&update.clone().with("Status", "Inactive")).await;
    assert_eq!(user.caller_identity().await.unwrap_err(), "InvalidClientTokenId");
    assert_eq!(user.error_code(&Call::iam("ListAccessKeys")).await, "InvalidClientTokenId");
    operator.ok(&update.clone().with("Status", "Active")).await;
    assert!(user.caller_identity().await.is_ok());
    operator.ok(&on("DeleteAccessKey", "u").with("AccessKeyId", &key.id)).await;
    assert_eq!(user.caller_identity().await.unwrap_err(), "InvalidClientTokenId");
}

#[tokio::test]
async fn proxies_of_one_account_share_keys() {
    let first = aws().await;
    let second = aws_for(first.account().clone()).await;
    let other = aws().await;
    Client::operator(&first).ok(&on("CreateUser", "u")).await;
    let key = Client::operator(&first).create_key("u").await;
    assert!(Client::with_key(&second, &key).caller_identity().await.is_ok());
    assert_eq!(Client::with_key(&other, &key).caller_identity().await.unwrap_err(), "InvalidClientTokenId");
    assert!(other.inspector().user("u").await.unwrap().is_none());
    second.manual_changes().deactivate_key("u", &key.id).await.unwrap();
    assert_eq!(Client::with_key(&first, &key).caller_identity().await.unwrap_err(), "InvalidClientTokenId");
}

#[tokio::test]
async fn activation_and_revocation_take_effect_after_their_delay() {
    let aws = aws().await;
    aws.manual_changes().create_user("u").await.unwrap();
    aws.account().configure(|settings| settings.activation_delay = Duration::from_hours(1));
    let key = aws.manual_changes().create_key("u").await.unwrap();
    let user = Client::with_key(&aws, &key);
    assert_eq!(user.caller_identity().await.unwrap_err(), "InvalidClientTokenId");
    assert!(!aws.inspector().user("u").await.unwrap().unwrap().keys[0].accepted);
    aws.account().configure(|settings| settings.activation_delay = Duration::ZERO);
    assert!(user.caller_identity().await.is_ok());
    aws.account().configure(|settings| settings.activation_delay = Duration::from_mins(1));
    assert!(user.caller_identity().await.is_ok(), "an accepted key remains accepted");

    aws.account().configure(|settings| settings.revocation_lag = Duration::from_hours(1));
    aws.manual_changes().delete_key("u", &key.id).await.unwrap();
    assert!(user.caller_identity().await.is_ok());
    aws.account().configure(|settings| settings.revocation_lag = Duration::ZERO);
    assert_eq!(user.caller_identity().await.unwrap_err(), "InvalidClientTokenId");
}

#[tokio::test]
async fn third_key_is_rejected_unless_a_rule_allows_it() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let first = operator.create_key("u").await;
    operator.create_key("u").await;
    operator.ok(&on("UpdateAccessKey", "u").with("AccessKeyId", &first.id).with("Status", "Inactive")).await;
    let (status, code, message) = operator.expect_error(&on("CreateAccessKey", "u")).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    assert_eq!(message, "Cannot exceed quota for AccessKeysPerUser: 2");

    aws.rules().add(Rule::on("CreateAccessKey").allow_third_key());
    let third = operator.create_key("u").await;
    let listed = texts(&operator.ok(&on("ListAccessKeys", "u")).await, "AccessKeyId");
    assert_eq!(listed.len(), 3);
    assert!(listed.contains(&third.id));
    assert_eq!(aws.inspector().keys("u").await.unwrap().len(), 3);
    assert!(Client::with_key(&aws, &third).caller_identity().await.unwrap().ends_with(":user/u"));
    let about = |action: &str| on(action, "u").with("AccessKeyId", &third.id);
    operator.ok(&about("UpdateAccessKey").with("Status", "Inactive")).await;
    assert_eq!(Client::with_key(&aws, &third).caller_identity().await.unwrap_err(), "InvalidClientTokenId");
    assert_eq!(operator.error_code(&on("DeleteUser", "u")).await, "DeleteConflict");
    operator.ok(&about("DeleteAccessKey")).await;
    assert_eq!(operator.error_code(&about("DeleteAccessKey")).await, "NoSuchEntity");
    assert_eq!(aws.inspector().keys("u").await.unwrap().len(), 2);
}

#[tokio::test]
async fn key_status_is_validated_and_deletion_is_not_idempotent() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let key = operator.create_key("u").await;
    let about = |action: &str| on(action, "u").with("AccessKeyId", &key.id);
    for bad in ["Bogus", "active", ""] {
        assert_eq!(
            operator.error_code(&about("UpdateAccessKey").with("Status", bad)).await,
            "ValidationError",
            "{bad}"
        );
    }
    assert_eq!(aws.account().key_state(&key.id), Some(KeyState::Active));
    operator.ok(&about("DeleteAccessKey")).await;
    assert_eq!(operator.error_code(&about("DeleteAccessKey")).await, "NoSuchEntity");
}

#[tokio::test]
async fn last_use_is_delayed_and_ignores_rejected_calls() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let key = operator.create_key("u").await;
    let last_used = Call::iam("GetAccessKeyLastUsed").with("AccessKeyId", &key.id);
    let never = operator.ok(&last_used).await;
    assert_eq!((text(&never, "ServiceName"), texts(&never, "LastUsedDate")), ("N/A".to_owned(), vec![]));
    assert_eq!(text(&never, "UserName"), "u");

    let _ = Client::with(&aws, &key.id, "forged").caller_identity().await;
    assert_eq!(text(&operator.ok(&last_used).await, "ServiceName"), "N/A");

    aws.account().configure(|settings| settings.last_used_lag = Duration::from_hours(1));
    Client::with_key(&aws, &key).caller_identity().await.unwrap();
    assert_eq!(text(&operator.ok(&last_used).await, "ServiceName"), "N/A");
    aws.account().configure(|settings| settings.last_used_lag = Duration::ZERO);
    let used = operator.ok(&last_used).await;
    assert_eq!((text(&used, "ServiceName"), text(&used, "Region")), ("sts".to_owned(), "us-east-1".to_owned()));
    assert!(text(&used, "LastUsedDate").parse::<Timestamp>().is_ok());

    let then: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    aws.account().set_last_used(&key.id, then, "s3", "eu-central-1");
    assert_eq!(text(&operator.ok(&last_used).await, "LastUsedDate"), "2026-01-02T03:04:05Z");
    let unknown = Call::iam("GetAccessKeyLastUsed").with("AccessKeyId", "AKIAIOSFODNN7STRANGE");
    assert_eq!(operator.error_code(&unknown).await, "AccessDenied");
}

#[tokio::test]
async fn assumed_role_acts_in_its_own_account() {
    let aws = aws().await;
    let other = Account::unique().id().to_owned();
    let assume = Call::sts("AssumeRole")
        .with("RoleArn", format!("arn:aws:iam::{other}:role/deploy-users"))
        .with("RoleSessionName", "operator");
    let session = Client::operator(&aws).ok(&assume).await;
    let session = Client::with_session(&aws, &session);
    let without_token = Client { token: None, ..session.clone() };
    assert_eq!(without_token.caller_identity().await.unwrap_err(), "InvalidClientTokenId");
    assert_eq!(
        session.caller_identity().await.unwrap(),
        format!("arn:aws:sts::{other}:assumed-role/deploy-users/operator")
    );
    session.ok(&on("CreateUser", "u")).await;
    assert!(aws.inspector().user("u").await.unwrap().is_none());
    let there = aws.inspector().in_account(AccountRef::aws(&other)).user("u").await.unwrap().unwrap();
    assert_eq!(there.arn, format!("arn:aws:iam::{other}:user/u"));
    let key = session.create_key("u").await;
    assert_eq!(Client::with_key(&aws, &key).caller_identity().await.unwrap(), there.arn);
}

#[tokio::test]
async fn list_access_keys_defaults_to_the_calling_user() {
    let aws = aws().await;
    aws.manual_changes().create_user("u").await.unwrap();
    let key = aws.manual_changes().create_key("u").await.unwrap();
    let own = Client::with_key(&aws, &key).ok(&Call::iam("ListAccessKeys")).await;
    assert_eq!(texts(&own, "AccessKeyId"), [key.id]);
    assert_eq!(Client::operator(&aws).error_code(&Call::iam("ListAccessKeys")).await, "ValidationError");
}
