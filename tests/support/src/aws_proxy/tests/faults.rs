//! Fault injection over HTTP.

use std::time::Instant;

use jiff::SignedDuration;

use super::*;
use crate::aws_proxy::{CallOutcome, Rule};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn drop_after_commit_keeps_the_created_key() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let rule = aws.rules().add(Rule::on("CreateAccessKey").nth(1).after_commit().drop_connection());
    assert!(operator.send(&on("CreateAccessKey", "u")).await.is_err());
    assert_eq!(aws.inspector().keys("u").await.unwrap().len(), 1);
    let call = aws.log().wait_for_call("CreateAccessKey", 1, TIMEOUT).await.unwrap();
    assert_eq!((call.outcome, call.committed, call.status), (CallOutcome::Dropped, true, None));
    assert_eq!(call.access_key, Some(aws.inspector().keys("u").await.unwrap()[0].id.clone()));
    assert_eq!(call.rules, [rule.0]);
    operator.create_key("u").await;
    assert_eq!(aws.rules().hits(rule).acted, 1);
}

#[tokio::test]
async fn drop_before_commit_creates_nothing() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.rules().add(Rule::on("CreateUser").user("u").first(1).drop_connection());
    assert!(operator.send(&on("CreateUser", "u")).await.is_err());
    assert!(aws.inspector().user("u").await.unwrap().is_none());
    let call = aws.log().wait_for_call("CreateUser", 1, TIMEOUT).await.unwrap();
    assert!(!call.committed);
    operator.ok(&on("CreateUser", "u")).await;
}

#[tokio::test]
async fn injected_errors_have_the_codes_and_messages_of_aws() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let id = aws.account().id();
    for (rule, expected) in [
        (Rule::on("GetUser").throttle(), (400, "Throttling", "Rate exceeded".to_owned())),
        (
            Rule::on("GetUser").deny(),
            (
                403,
                "AccessDenied",
                format!(
                    "User: arn:aws:sts::{id}:assumed-role/deploy-users/operator is not authorized to perform: \
                     iam:GetUser on resource: arn:aws:iam::{id}:user/u because no identity-based policy allows the \
                     iam:GetUser action"
                ),
            ),
        ),
        (Rule::on("GetUser").request_expired(), (400, "RequestExpired", "Request has expired.".to_owned())),
    ] {
        let rule = aws.rules().add(rule);
        let (status, code, message) = operator.expect_error(&on("GetUser", "u")).await;
        assert_eq!((status, code.as_str(), message), expected);
        aws.rules().remove(rule);
    }
    for error in [
        AwsError::service_failure(),
        AwsError::service_unavailable(),
        AwsError::entity_temporarily_unmodifiable(),
        AwsError::concurrent_modification(),
    ] {
        let rule = aws.rules().add(Rule::on("GetUser").respond_with(error.clone()));
        assert_eq!(operator.call(&on("GetUser", "u")).await.unwrap_err(), error);
        aws.rules().remove(rule);
    }
}

#[tokio::test]
async fn html_500_after_commit_hides_a_success() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.rules().add(Rule::on("CreateUser").after_commit().html(500));
    let (response, _) = operator.send(&on("CreateUser", "u")).await.unwrap();
    assert_eq!((response.status, response.error_code()), (500, None));
    assert!(response.body.starts_with("<!doctype html>") && response.request_id.is_empty());
    assert!(aws.inspector().user("u").await.unwrap().is_some());
}

#[tokio::test]
async fn every_second_read_can_be_throttled() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.rules().add(Rule::on_reads().every(2).throttle());
    let mut throttled = 0;
    for _ in 0..6 {
        throttled += u32::from(operator.call(&Call::iam("ListUsers")).await.is_err());
    }
    assert_eq!(throttled, 3);
}

#[tokio::test]
async fn pause_holds_a_call_before_or_after_the_commit() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    for (user, after, exists) in [("before", false, false), ("after", true, true)] {
        let rule = Rule::on("CreateUser").user(user);
        let pause = aws.rules().pause(if after { rule.after_commit() } else { rule });
        let call = tokio::spawn({
            let operator = operator.clone();
            async move { operator.send(&on("CreateUser", user)).await }
        });
        assert!(pause.wait_until_held(TIMEOUT).await);
        assert_eq!(aws.inspector().user(user).await.unwrap().is_some(), exists);
        assert!(!call.is_finished());
        pause.release();
        assert!(call.await.unwrap().unwrap().0.is_success());
        assert!(aws.inspector().user(user).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn held_call_of_a_dead_client_is_aborted_or_completed() {
    let aws = aws().await;
    for (user, is_released) in [("aborted", false), ("released", true)] {
        let operator = Client::operator(&aws);
        let pause = aws.rules().pause(Rule::on("CreateUser").user(user));
        let client = tokio::spawn(async move { operator.send(&on("CreateUser", user)).await });
        assert!(pause.wait_until_held(TIMEOUT).await);
        client.abort();
        let _ = client.await;
        let position = aws.log().position();
        if is_released {
            pause.release();
        } else {
            pause.abort();
        }
        let ended = |calls: &[crate::aws_proxy::CallRecord]| {
            let call = calls.iter().find(|call| call.user.as_deref() == Some(user))?;
            (call.outcome != CallOutcome::Pending).then(|| call.clone())
        };
        let call = aws.log().wait_for("the held call", TIMEOUT, ended).await.unwrap();
        assert_eq!(call.committed, is_released, "log position {position:?}");
        assert_eq!(aws.inspector().user(user).await.unwrap().is_some(), is_released);
    }
}

#[tokio::test]
async fn delay_is_part_of_the_logged_latency() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let time = Duration::from_millis(120);
    aws.rules().add(Rule::on("ListUsers").nth(1).delay(time));
    let start = Instant::now();
    operator.ok(&Call::iam("ListUsers")).await;
    assert!(start.elapsed() >= time);
    assert!(aws.log().calls_of("ListUsers")[0].latency.unwrap() >= time);
}

#[tokio::test]
async fn stale_read_repeats_the_previous_response() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let ids = async || texts(&operator.ok(&on("ListAccessKeys", "u")).await, "AccessKeyId");
    assert!(ids().await.is_empty());
    let rule = aws.rules().add(Rule::on("ListAccessKeys").stale_read(HOUR));
    let key = operator.create_key("u").await;
    assert!(ids().await.is_empty());
    assert!(ids().await.is_empty());
    aws.rules().remove(rule);
    assert_eq!(ids().await, [key.id]);

    assert_eq!(operator.error_code(&on("GetUser", "v")).await, "NoSuchEntity");
    let rule = aws.rules().add(Rule::on("GetUser").user("v").first(1).stale_read(HOUR));
    operator.ok(&on("CreateUser", "v")).await;
    assert_eq!(operator.error_code(&on("GetUser", "v")).await, "NoSuchEntity", "a stale read after the creation");
    operator.ok(&on("GetUser", "v")).await;
    assert_eq!(aws.rules().hits(rule).acted, 1);
    aws.rules().add(Rule::on("GetUser").user("w").stale_read(Duration::ZERO));
    assert_eq!(operator.error_code(&on("GetUser", "w")).await, "NoSuchEntity");
    operator.ok(&on("CreateUser", "w")).await;
    operator.ok(&on("GetUser", "w")).await;
}

#[tokio::test]
async fn hidden_new_keys_are_not_listed_but_accepted() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let rule = aws.rules().add(Rule::on("ListAccessKeys").hide_new_keys(Duration::from_hours(1)));
    let key = operator.create_key("u").await;
    let ids = async || texts(&operator.ok(&on("ListAccessKeys", "u")).await, "AccessKeyId");
    assert!(ids().await.is_empty());
    assert!(Client::with_key(&aws, &key).caller_identity().await.is_ok());
    aws.rules().remove(rule);
    aws.rules().add(Rule::on("ListAccessKeys").hide_new_keys(Duration::ZERO));
    assert_eq!(ids().await, [key.id]);
}

#[tokio::test]
async fn clock_skew_changes_dates_and_expires_signatures() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let rule = aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(-10)));
    let (response, headers) = operator.send(&on("CreateUser", "u")).await.unwrap();
    let shown = jiff::fmt::rfc2822::parse(headers["date"].to_str().unwrap()).unwrap().timestamp();
    let off = |time: Timestamp| (Timestamp::now().duration_since(time) - SignedDuration::from_mins(10)).as_secs().abs();
    assert!(off(shown) < 60, "{shown}");
    let created: Timestamp = text(&response.body, "CreateDate").parse().unwrap();
    assert!(off(created) < 60, "{created}");
    assert!(created <= shown, "the creation date is not after the Date header");
    aws.rules().remove(rule);
    aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(20)));
    let (_, code, message) = operator.expect_error(&on("GetUser", "u")).await;
    assert_eq!(code, "SignatureDoesNotMatch");
    assert!(message.starts_with("Signature expired"), "{message}");
}

#[tokio::test]
async fn clock_skew_applies_to_errors_of_other_rules() {
    let aws = aws().await;
    aws.rules().add(Rule::on_all().throttle());
    aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_hours(1)));
    let (response, headers) = Client::operator(&aws).send(&Call::iam("ListUsers")).await.unwrap();
    assert_eq!(response.error_code().as_deref(), Some("Throttling"));
    let shown = jiff::fmt::rfc2822::parse(headers["date"].to_str().unwrap()).unwrap().timestamp();
    assert!(shown.duration_since(Timestamp::now()) > SignedDuration::from_mins(59), "{shown}");
}

#[tokio::test]
async fn rewrite_changes_the_response() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let rule = Rule::on("GetUser").after_commit().rewrite(|_, response| response.body.truncate(40));
    aws.rules().add(rule);
    let (response, _) = operator.send(&on("GetUser", "u")).await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 40));
}

#[tokio::test]
async fn rules_by_caller_reject_a_key_sometimes_or_always() {
    let aws = aws().await;
    aws.manual_changes().create_user("u").await.unwrap();
    let key = aws.manual_changes().create_key("u").await.unwrap();
    let user = Client::with_key(&aws, &key);
    let flap = Rule::on("GetCallerIdentity").caller(&key.id).every(2).respond_with(AwsError::invalid_client_token());
    let flap = aws.rules().add(flap);
    assert!(user.caller_identity().await.is_ok());
    assert!(user.caller_identity().await.is_err());
    assert!(user.caller_identity().await.is_ok());
    aws.rules().remove(flap);
    aws.rules().add(Rule::on_all().caller(&key.id).respond_with(AwsError::invalid_client_token()));
    assert_eq!(user.caller_identity().await.unwrap_err(), "InvalidClientTokenId");
    assert!(Client::operator(&aws).caller_identity().await.is_ok());
}
