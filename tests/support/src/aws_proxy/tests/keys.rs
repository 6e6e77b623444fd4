//! Who may sign: keys, secrets, delays, last use.

use std::time::Duration;

use super::*;
use crate::aws_proxy::{AccountRef, KeyState, Rule};

#[tokio::test]
async fn a_new_key_signs_as_its_user() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u").with("Path", "/deploy/")).await;
    let key = operator.create_key("u").await;
    let arn = Client::with_key(&aws, &key).who_am_i().await.unwrap();
    assert_eq!(arn, format!("arn:aws:iam::{}:user/deploy/u", aws.account().id()));
}

#[tokio::test]
async fn the_operator_is_a_role_of_the_home_account_unless_told_otherwise() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let role = format!("arn:aws:sts::{}:assumed-role/deploy-users/operator", aws.account().id());
    assert_eq!(operator.who_am_i().await.unwrap(), role);
    let other = "arn:aws:iam::123456789012:user/operator";
    aws.account().configure(|settings| settings.operator_arn = Some(other.to_owned()));
    assert_eq!(operator.who_am_i().await.unwrap(), other);
}

#[tokio::test]
async fn unknown_inactive_deleted_and_wrongly_signed_are_refused() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let key = operator.create_key("u").await;
    let user = Client::with_key(&aws, &key);
    let update = on("UpdateAccessKey", "u").with("AccessKeyId", &key.id);

    let stranger = Client::with(&aws, "AKIAIOSFODNN7STRANGE", "x");
    let (status, code, message) = stranger.refused(&Call::sts("GetCallerIdentity")).await;
    assert_eq!((status, code.as_str()), (403, "InvalidClientTokenId"));
    assert_eq!(message, "The security token included in the request is invalid.");
    assert_eq!(stranger.code(&Call::iam("ListUsers")).await, "InvalidClientTokenId");

    let forger = Client::with(&aws, &key.id, "not-the-secret");
    assert_eq!(forger.who_am_i().await.unwrap_err(), "SignatureDoesNotMatch");

    operator.ok(&update.clone().with("Status", "Inactive")).await;
    assert_eq!(user.who_am_i().await.unwrap_err(), "InvalidClientTokenId");
    assert_eq!(user.code(&Call::iam("ListAccessKeys")).await, "InvalidClientTokenId");
    operator.ok(&update.clone().with("Status", "Active")).await;
    assert!(user.who_am_i().await.is_ok());
    operator.ok(&on("DeleteAccessKey", "u").with("AccessKeyId", &key.id)).await;
    assert_eq!(user.who_am_i().await.unwrap_err(), "InvalidClientTokenId");
}

#[tokio::test]
async fn proxies_of_one_account_know_each_others_keys_and_other_accounts_do_not() {
    let first = aws().await;
    let second = aws_for(first.account().clone()).await;
    let stranger = aws().await;
    Client::operator(&first).ok(&on("CreateUser", "u")).await;
    let key = Client::operator(&first).create_key("u").await;
    assert!(Client::with_key(&second, &key).who_am_i().await.is_ok());
    assert_eq!(Client::with_key(&stranger, &key).who_am_i().await.unwrap_err(), "InvalidClientTokenId");
    assert!(stranger.inspector().user("u").await.unwrap().is_none());
    second.manual_changes().deactivate_key("u", &key.id).await.unwrap();
    assert_eq!(Client::with_key(&first, &key).who_am_i().await.unwrap_err(), "InvalidClientTokenId");
}

#[tokio::test]
async fn a_new_key_is_refused_until_it_has_travelled_and_a_dead_one_lingers() {
    let aws = aws().await;
    aws.manual_changes().create_user("u").await.unwrap();
    aws.account().configure(|settings| settings.activation_delay = Duration::from_hours(1));
    let key = aws.manual_changes().create_key("u").await.unwrap();
    let user = Client::with_key(&aws, &key);
    assert_eq!(user.who_am_i().await.unwrap_err(), "InvalidClientTokenId");
    assert!(!aws.inspector().user("u").await.unwrap().unwrap().keys[0].accepted);
    aws.account().configure(|settings| settings.activation_delay = Duration::ZERO);
    assert!(user.who_am_i().await.is_ok());
    aws.account().configure(|settings| settings.activation_delay = Duration::from_mins(1));
    assert!(user.who_am_i().await.is_ok(), "a key that works goes on working");

    aws.account().configure(|settings| settings.revocation_lag = Duration::from_hours(1));
    aws.manual_changes().delete_key("u", &key.id).await.unwrap();
    assert!(user.who_am_i().await.is_ok());
    aws.account().configure(|settings| settings.revocation_lag = Duration::ZERO);
    assert_eq!(user.who_am_i().await.unwrap_err(), "InvalidClientTokenId");
}

#[tokio::test]
async fn two_keys_are_the_limit_also_with_an_inactive_one_unless_a_rule_says_so() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let first = operator.create_key("u").await;
    operator.create_key("u").await;
    operator.ok(&on("UpdateAccessKey", "u").with("AccessKeyId", &first.id).with("Status", "Inactive")).await;
    let (status, code, message) = operator.refused(&on("CreateAccessKey", "u")).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    assert_eq!(message, "Cannot exceed quota for AccessKeysPerUser: 2");

    aws.rules().add(Rule::on("CreateAccessKey").allow_third_key());
    let third = operator.create_key("u").await;
    let listed = texts(&operator.ok(&on("ListAccessKeys", "u")).await, "AccessKeyId");
    assert_eq!(listed.len(), 3);
    assert!(listed.contains(&third.id));
    assert_eq!(aws.inspector().keys("u").await.unwrap().len(), 3);
    assert!(Client::with_key(&aws, &third).who_am_i().await.unwrap().ends_with(":user/u"));
    let about = |action: &str| on(action, "u").with("AccessKeyId", &third.id);
    operator.ok(&about("UpdateAccessKey").with("Status", "Inactive")).await;
    assert_eq!(Client::with_key(&aws, &third).who_am_i().await.unwrap_err(), "InvalidClientTokenId");
    assert_eq!(operator.code(&on("DeleteUser", "u")).await, "DeleteConflict");
    operator.ok(&about("DeleteAccessKey")).await;
    assert_eq!(operator.code(&about("DeleteAccessKey")).await, "NoSuchEntity");
    assert_eq!(aws.inspector().keys("u").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_status_is_one_of_two_words_and_a_repeat_is_no_such_entity() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let key = operator.create_key("u").await;
    let about = |action: &str| on(action, "u").with("AccessKeyId", &key.id);
    for bad in ["Bogus", "active", ""] {
        assert_eq!(operator.code(&about("UpdateAccessKey").with("Status", bad)).await, "ValidationError", "{bad}");
    }
    assert_eq!(aws.account().key_state(&key.id), Some(KeyState::Active));
    operator.ok(&about("DeleteAccessKey")).await;
    assert_eq!(operator.code(&about("DeleteAccessKey")).await, "NoSuchEntity");
}

#[tokio::test]
async fn last_use_is_na_until_it_has_arrived_and_refused_calls_are_no_use() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let key = operator.create_key("u").await;
    let last_used = Call::iam("GetAccessKeyLastUsed").with("AccessKeyId", &key.id);
    let never = operator.ok(&last_used).await;
    assert_eq!((text(&never, "ServiceName"), texts(&never, "LastUsedDate")), ("N/A".to_owned(), vec![]));
    assert_eq!(text(&never, "UserName"), "u");

    let _ = Client::with(&aws, &key.id, "forged").who_am_i().await;
    assert_eq!(text(&operator.ok(&last_used).await, "ServiceName"), "N/A");

    aws.account().configure(|settings| settings.last_used_lag = Duration::from_hours(1));
    Client::with_key(&aws, &key).who_am_i().await.unwrap();
    assert_eq!(text(&operator.ok(&last_used).await, "ServiceName"), "N/A");
    aws.account().configure(|settings| settings.last_used_lag = Duration::ZERO);
    let used = operator.ok(&last_used).await;
    assert_eq!((text(&used, "ServiceName"), text(&used, "Region")), ("sts".to_owned(), "us-east-1".to_owned()));
    assert!(text(&used, "LastUsedDate").parse::<Timestamp>().is_ok());

    let then: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    aws.account().set_last_used(&key.id, then, "s3", "eu-central-1");
    assert_eq!(text(&operator.ok(&last_used).await, "LastUsedDate"), "2026-01-02T03:04:05Z");
    let stranger = Call::iam("GetAccessKeyLastUsed").with("AccessKeyId", "AKIAIOSFODNN7STRANGE");
    assert_eq!(operator.code(&stranger).await, "AccessDenied");
}

#[tokio::test]
async fn an_assumed_role_acts_in_its_own_account() {
    let aws = aws().await;
    let other = Account::unique().id().to_owned();
    let assume = Call::sts("AssumeRole")
        .with("RoleArn", format!("arn:aws:iam::{other}:role/deploy-users"))
        .with("RoleSessionName", "operator");
    let session = Client::operator(&aws).ok(&assume).await;
    let session = Client::with_session(&aws, &session);
    let without_token = Client { token: None, ..session.clone() };
    assert_eq!(without_token.who_am_i().await.unwrap_err(), "InvalidClientTokenId");
    assert_eq!(session.who_am_i().await.unwrap(), format!("arn:aws:sts::{other}:assumed-role/deploy-users/operator"));
    session.ok(&on("CreateUser", "u")).await;
    assert!(aws.inspector().user("u").await.unwrap().is_none());
    let there = aws.inspector().in_account(AccountRef::aws(&other)).user("u").await.unwrap().unwrap();
    assert_eq!(there.arn, format!("arn:aws:iam::{other}:user/u"));
    let key = session.create_key("u").await;
    assert_eq!(Client::with_key(&aws, &key).who_am_i().await.unwrap(), there.arn);
}

#[tokio::test]
async fn a_user_may_list_its_own_keys_without_saying_its_name() {
    let aws = aws().await;
    aws.manual_changes().create_user("u").await.unwrap();
    let key = aws.manual_changes().create_key("u").await.unwrap();
    let own = Client::with_key(&aws, &key).ok(&Call::iam("ListAccessKeys")).await;
    assert_eq!(texts(&own, "AccessKeyId"), [key.id]);
    assert_eq!(Client::operator(&aws).code(&Call::iam("ListAccessKeys")).await, "ValidationError");
}
