//! What goes wrong on request, over the wire.

use std::time::Instant;

use jiff::SignedDuration;

use super::*;
use crate::aws_proxy::{CallOutcome, Rule};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_reply_lost_after_the_commit_leaves_the_key_there() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let rule = aws.rules().add(Rule::on("CreateAccessKey").nth(1).after_commit().drop_connection());
    assert!(operator.send(&on("CreateAccessKey", "u")).await.is_err());
    assert_eq!(aws.inspector().keys("u").await.unwrap().len(), 1);
    let call = aws.log().wait_for_call("CreateAccessKey", 1, PATIENCE).await.unwrap();
    assert_eq!((call.outcome, call.committed, call.status), (CallOutcome::Dropped, true, None));
    assert_eq!(call.access_key, Some(aws.inspector().keys("u").await.unwrap()[0].id.clone()));
    assert_eq!(call.rules, [rule.0]);
    operator.create_key("u").await;
    assert_eq!(aws.rules().hits(rule).acted, 1);
}

#[tokio::test]
async fn a_call_dropped_before_aws_never_happened() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.rules().add(Rule::on("CreateUser").user("u").first(1).drop_connection());
    assert!(operator.send(&on("CreateUser", "u")).await.is_err());
    assert!(aws.inspector().user("u").await.unwrap().is_none());
    let call = aws.log().wait_for_call("CreateUser", 1, PATIENCE).await.unwrap();
    assert!(!call.committed);
    operator.ok(&on("CreateUser", "u")).await;
}

#[tokio::test]
async fn errors_come_in_the_words_of_aws() {
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
        let (status, code, message) = operator.refused(&on("GetUser", "u")).await;
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
async fn an_html_page_may_hide_a_commit() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.rules().add(Rule::on("CreateUser").after_commit().html_500());
    let (answer, _) = operator.send(&on("CreateUser", "u")).await.unwrap();
    assert_eq!((answer.status, answer.error_code()), (500, None));
    assert!(answer.body.starts_with("<!doctype html>"));
    assert!(aws.inspector().user("u").await.unwrap().is_some());
}

#[tokio::test]
async fn half_of_the_calls_can_be_throttled() {
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
async fn a_pause_holds_a_call_on_either_side_of_the_commit() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    for (user, after, exists) in [("before", false, false), ("after", true, true)] {
        let rule = Rule::on("CreateUser").user(user);
        let pause = aws.rules().pause(if after { rule.after_commit() } else { rule });
        let call = tokio::spawn({
            let operator = operator.clone();
            async move { operator.send(&on("CreateUser", user)).await }
        });
        assert!(pause.wait_until_held(PATIENCE).await);
        assert_eq!(aws.inspector().user(user).await.unwrap().is_some(), exists);
        assert!(!call.is_finished());
        pause.release();
        assert!(call.await.unwrap().unwrap().0.is_success());
        assert!(aws.inspector().user(user).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_held_call_of_a_dead_client_can_be_stopped_or_go_through() {
    let aws = aws().await;
    for (user, goes_on) in [("stopped", false), ("through", true)] {
        let operator = Client::operator(&aws);
        let pause = aws.rules().pause(Rule::on("CreateUser").user(user));
        let client = tokio::spawn(async move { operator.send(&on("CreateUser", user)).await });
        assert!(pause.wait_until_held(PATIENCE).await);
        client.abort();
        let _ = client.await;
        let mark = aws.log().position();
        if goes_on {
            pause.release();
        } else {
            pause.abort();
        }
        let ended = |calls: &[crate::aws_proxy::CallRecord]| {
            let call = calls.iter().find(|call| call.user.as_deref() == Some(user))?;
            (call.outcome != CallOutcome::Pending).then(|| call.clone())
        };
        let call = aws.log().wait_for("the held call", PATIENCE, ended).await.unwrap();
        assert_eq!(call.committed, goes_on, "the mark is {mark:?}");
        assert_eq!(aws.inspector().user(user).await.unwrap().is_some(), goes_on);
    }
}

#[tokio::test]
async fn a_delay_takes_its_time_and_shows_in_the_log() {
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
async fn stale_reads_serve_the_previous_answer_until_the_rule_goes() {
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

    assert_eq!(operator.code(&on("GetUser", "v")).await, "NoSuchEntity");
    let rule = aws.rules().add(Rule::on("GetUser").user("v").first(1).stale_read(HOUR));
    operator.ok(&on("CreateUser", "v")).await;
    assert_eq!(operator.code(&on("GetUser", "v")).await, "NoSuchEntity", "a read that lags behind a creation");
    operator.ok(&on("GetUser", "v")).await;
    assert_eq!(aws.rules().hits(rule).acted, 1);
    aws.rules().add(Rule::on("GetUser").user("w").stale_read(Duration::ZERO));
    assert_eq!(operator.code(&on("GetUser", "w")).await, "NoSuchEntity");
    operator.ok(&on("CreateUser", "w")).await;
    operator.ok(&on("GetUser", "w")).await;
}

#[tokio::test]
async fn new_keys_can_be_hidden_from_the_list_but_work() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let rule = aws.rules().add(Rule::on("ListAccessKeys").hide_new_keys(Duration::from_hours(1)));
    let key = operator.create_key("u").await;
    let ids = async || texts(&operator.ok(&on("ListAccessKeys", "u")).await, "AccessKeyId");
    assert!(ids().await.is_empty());
    assert!(Client::with_key(&aws, &key).who_am_i().await.is_ok());
    aws.rules().remove(rule);
    aws.rules().add(Rule::on("ListAccessKeys").hide_new_keys(Duration::ZERO));
    assert_eq!(ids().await, [key.id]);
}

#[tokio::test]
async fn a_skewed_clock_shows_in_header_and_dates_and_past_15_minutes_refuses() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let rule = aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(-10)));
    let (answer, headers) = operator.send(&on("CreateUser", "u")).await.unwrap();
    let shown = jiff::fmt::rfc2822::parse(headers["date"].to_str().unwrap()).unwrap().timestamp();
    let off = |time: Timestamp| (Timestamp::now().duration_since(time) - SignedDuration::from_mins(10)).as_secs().abs();
    assert!(off(shown) < 60, "{shown}");
    let created: Timestamp = text(&answer.body, "CreateDate").parse().unwrap();
    assert!(off(created) < 60, "{created}");
    assert!(created <= shown, "what AWS made is not newer than its answer");
    aws.rules().remove(rule);
    aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(20)));
    let (_, code, message) = operator.refused(&on("GetUser", "u")).await;
    assert_eq!(code, "SignatureDoesNotMatch");
    assert!(message.starts_with("Signature expired"), "{message}");
}

#[tokio::test]
async fn a_skewed_clock_is_skewed_for_the_errors_of_other_rules_too() {
    let aws = aws().await;
    aws.rules().add(Rule::on_all().throttle());
    aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_hours(1)));
    let (answer, headers) = Client::operator(&aws).send(&Call::iam("ListUsers")).await.unwrap();
    assert_eq!(answer.error_code().as_deref(), Some("Throttling"));
    let shown = jiff::fmt::rfc2822::parse(headers["date"].to_str().unwrap()).unwrap().timestamp();
    assert!(shown.duration_since(Timestamp::now()) > SignedDuration::from_mins(59), "{shown}");
}

#[tokio::test]
async fn an_answer_can_be_rewritten() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let rule = Rule::on("GetUser").after_commit().rewrite(|_, answer| answer.body.truncate(40));
    aws.rules().add(rule);
    let (answer, _) = operator.send(&on("GetUser", "u")).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 40));
}

#[tokio::test]
async fn a_flapping_key_and_one_that_is_never_accepted() {
    let aws = aws().await;
    aws.manual_changes().create_user("u").await.unwrap();
    let key = aws.manual_changes().create_key("u").await.unwrap();
    let user = Client::with_key(&aws, &key);
    let flap = Rule::on("GetCallerIdentity").caller(&key.id).every(2).respond_with(AwsError::invalid_client_token());
    let flap = aws.rules().add(flap);
    assert!(user.who_am_i().await.is_ok());
    assert!(user.who_am_i().await.is_err());
    assert!(user.who_am_i().await.is_ok());
    aws.rules().remove(flap);
    aws.rules().add(Rule::on_all().caller(&key.id).respond_with(AwsError::invalid_client_token()));
    assert_eq!(user.who_am_i().await.unwrap_err(), "InvalidClientTokenId");
    assert!(Client::operator(&aws).who_am_i().await.is_ok());
}
