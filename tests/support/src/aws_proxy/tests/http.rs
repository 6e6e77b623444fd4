//! HTTP behavior: headers, connections, the call log, the admin API, outages and authorization.

use std::collections::BTreeSet;

use super::*;
use crate::aws_proxy::Rule;

#[tokio::test]
async fn responses_have_date_and_request_id_and_keep_alive() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let mut request_ids = BTreeSet::new();
    for _ in 0..3 {
        let (response, headers) = operator.send(&Call::iam("ListUsers")).await.unwrap();
        let date = jiff::fmt::rfc2822::parse(headers["date"].to_str().unwrap()).unwrap().timestamp();
        assert!(Timestamp::now().duration_since(date).as_secs().abs() < 30);
        assert_eq!(text(&response.body, "RequestId"), response.request_id);
        assert_ne!(headers.get("connection").map(hyper::http::HeaderValue::as_bytes), Some(b"close".as_slice()));
        request_ids.insert(response.request_id);
    }
    assert_eq!(request_ids.len(), 3);
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let aws = aws().await;
    let mut stream = tokio::net::TcpStream::connect(aws.address()).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /_awsdeploy/counts HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut response = [0; 4096];
        let read = tokio::time::timeout(TIMEOUT, stream.read(&mut response)).await.unwrap().unwrap();
        assert!(response[..read].starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn log_has_caller_action_and_outcome_but_no_secret() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let position = aws.log().position();
    let key = operator.create_key("u").await;
    operator.ok(&on("CreateLoginProfile", "u").with("Password", "Correct-horse-1")).await;
    let user = Client::with_key(&aws, &key);
    user.caller_identity().await.unwrap();
    let _ = Client::with(&aws, &key.id, "forged-secret").caller_identity().await;
    operator.expect_error(&on("GetUser", "missing")).await;

    let calls = aws.log().calls_since(position);
    let lines: Vec<String> = calls
        .iter()
        .map(|call| format!("{} {:?} {:?} {:?}", call.action, call.user.as_deref(), call.status, call.error.as_deref()))
        .collect();
    assert_eq!(
        lines,
        [
            r#"CreateAccessKey Some("u") Some(200) None"#,
            r#"CreateLoginProfile Some("u") Some(200) None"#,
            r#"GetCallerIdentity Some("u") Some(200) None"#,
            r#"GetCallerIdentity Some("u") Some(403) Some("SignatureDoesNotMatch")"#,
            r#"GetUser Some("missing") Some(404) Some("NoSuchEntity")"#,
        ]
    );
    assert_eq!(calls[0].access_key.as_ref(), Some(&key.id));
    assert_eq!(calls[2].caller_key.as_ref(), Some(&key.id));
    assert_eq!(aws.log().mutating_calls_since(position).len(), 2);
    assert_eq!(aws.log().counts()["GetCallerIdentity"], 2);

    let everything = format!(
        "{:?} {} {} {aws:?} {:?} {:?}",
        aws.log().calls(),
        aws.log().transcript(),
        serde_json::to_string(&aws.log().calls()).unwrap(),
        aws.account(),
        aws.inspector(),
    );
    for secret in [key.secret.as_str(), "Correct-horse-1", "forged-secret", "Signature="] {
        assert!(!everything.contains(secret), "the log contains {secret}");
    }
}

#[tokio::test]
async fn malformed_requests_are_answered_and_logged() {
    let aws = aws().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.post(aws.endpoint()).body("{}").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 400);
    let unsigned = http.post(aws.endpoint()).body(Call::iam("ListUsers").body()).send().await.unwrap();
    assert_eq!(unsigned.status().as_u16(), 403);
    assert!(unsigned.text().await.unwrap().contains("MissingAuthenticationToken"));
    let huge = http.post(aws.endpoint()).body(vec![b'x'; 2 << 20]).send().await;
    assert!(huge.is_err() || huge.is_ok_and(|response| response.status().as_u16() == 413));
    assert_eq!(aws.log().calls()[0].error.as_deref(), Some("MissingAction"));
}

#[tokio::test]
async fn unreachable_emulator_is_logged_as_502() {
    let unused = crate::ports::reserve().unwrap();
    let aws = StrictAws::start(unused, Account::new()).await.unwrap();
    let (status, code, _) = Client::operator(&aws).expect_error(&Call::iam("ListUsers")).await;
    assert_eq!((status, code.as_str()), (502, "BadGateway"));
    let call = &aws.log().calls()[0];
    assert_eq!((call.status, call.committed), (Some(502), false));
}

#[tokio::test]
async fn broken_emulator_connection_is_502_without_a_retry() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let attempts = tokio::spawn(async move {
        let (mut attempts, mut timeout) = (0, TIMEOUT);
        while let Ok(Ok(_)) = tokio::time::timeout(timeout, listener.accept()).await {
            attempts += 1;
            // A retry would follow at once.
            timeout = Duration::from_millis(300);
        }
        attempts
    });
    let aws = StrictAws::start(upstream, Account::new()).await.unwrap();
    let (status, code, _) = Client::operator(&aws).expect_error(&on("CreateAccessKey", "u")).await;
    assert_eq!((status, code.as_str()), (502, "BadGateway"));
    assert_eq!(attempts.await.unwrap(), 1);
}

#[tokio::test]
async fn unsupported_action_of_the_emulator_is_an_html_500() {
    let aws = aws().await;
    let (response, _) = Client::operator(&aws).send(&Call::iam("GetContextKeysForCustomPolicy")).await.unwrap();
    assert_eq!((response.status, response.error_code()), (500, None));
}

#[tokio::test]
async fn listener_can_stop_and_resume() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    aws.stop_listening().await;
    let error = operator.send(&on("GetUser", "u")).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    aws.resume_listening().await.unwrap();
    aws.resume_listening().await.unwrap();
    operator.ok(&on("GetUser", "u")).await;
    assert_eq!(aws.log().counts()["GetUser"], 1);
}

#[tokio::test]
async fn concurrent_creations_of_one_name_create_one_user() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let names = ["racer", "Racer", "RACER", "rAcer", "raCer", "racEr"];
    let calls = names.map(|name| on("CreateUser", name));
    let results = futures::future::join_all(calls.iter().map(|call| operator.call(call))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(aws.inspector().user_names().await.unwrap().len(), 1);
}

#[tokio::test]
async fn admin_api_serves_log_rules_and_settings() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("{}/_awsdeploy/{path}", aws.endpoint());
    let json = async |request: reqwest::RequestBuilder| -> (u16, serde_json::Value) {
        let response = request.send().await.unwrap();
        (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    };

    let rule = r#"{"action":"CreateUser","nth":1,"when":"after-commit","do":"drop"}"#;
    let (status, created) = json(http.post(url("rules")).body(rule)).await;
    assert_eq!(status, 200);
    assert!(operator.send(&on("CreateUser", "u")).await.is_err());
    let (_, rules) = json(http.get(url("rules"))).await;
    assert_eq!(rules[0]["hits"]["acted"], 1);
    assert_eq!(json(http.delete(url(&format!("rules/{}", created["id"])))).await.0, 200);
    assert_eq!(json(http.delete(url(&format!("rules/{}", created["id"])))).await.0, 404);
    assert_eq!(json(http.post(url("rules")).body("{}")).await.0, 400);

    let (_, calls) = json(http.get(url("calls?action=CreateUser&user=u"))).await;
    assert_eq!((&calls[0]["outcome"], &calls[0]["committed"]), (&"dropped".into(), &true.into()));
    assert_eq!(json(http.get(url("calls?since=1"))).await.1, serde_json::json!([]));
    assert_eq!(json(http.get(url("counts"))).await.1["CreateUser"], 1);

    let changes = r#"{"pageSize":1,"pageShape":"fewer","activationDelaySeconds":2.5}"#;
    assert_eq!(json(http.patch(url("settings")).body(changes)).await.0, 200);
    assert_eq!(aws.account().settings().activation_delay, Duration::from_millis(2500));
    let (_, settings) = json(http.get(url("settings"))).await;
    assert_eq!((&settings["pageSize"], &settings["pageShape"]), (&1.into(), &"fewer".into()));
    assert_eq!(json(http.patch(url("settings")).body(r#"{"pagesize":1}"#)).await.0, 400);
    assert_eq!(json(http.get(url("nothing"))).await.0, 404);

    let (_, held) = json(http.post(url("rules")).body(r#"{"action":"DeleteUser","do":"pause"}"#)).await;
    let call = tokio::spawn({
        let operator = operator.clone();
        async move { operator.send(&on("DeleteUser", "u")).await }
    });
    let id = crate::aws_proxy::RuleId(held["id"].as_u64().unwrap());
    assert!(aws.rules().wait_for_hits(id, 1, TIMEOUT).await);
    assert_eq!(json(http.post(url(&format!("rules/{}/release", id.0)))).await.0, 200);
    assert!(call.await.unwrap().unwrap().0.is_success());
    aws.rules().add(Rule::on_all().throttle());
    assert_eq!(json(http.delete(url("rules"))).await.0, 200);
    assert!(aws.rules().list().is_empty());
}

#[tokio::test]
async fn custom_authorizer_can_deny_calls() {
    use futures::future::BoxFuture;

    use crate::aws_proxy::{Authorizer, Caller};

    struct ReadOnly;
    impl Authorizer for ReadOnly {
        fn check<'a>(&'a self, _: &'a Caller, call: &'a Call) -> BoxFuture<'a, Result<(), AwsError>> {
            let denied = AwsError::access_denied("caller", &call.iam_action(), "*");
            Box::pin(async move { if call.is_mutating() { Err(denied) } else { Ok(()) } })
        }
    }
    let aws = aws().await;
    let operator = Client::operator(&aws);
    aws.account().authorize_with(Arc::new(ReadOnly));
    assert_eq!(operator.error_code(&on("CreateUser", "u")).await, "AccessDenied");
    operator.ok(&Call::iam("ListUsers")).await;
    assert!(aws.inspector().user("u").await.unwrap().is_none());
}

#[tokio::test]
async fn partition_follows_the_region() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let mut create = on("CreateUser", "u");
    create.region = "cn-north-1".to_owned();
    assert!(text(&operator.ok(&create).await, "Arn").starts_with("arn:aws-cn:iam::"));
    operator.ok(&on("CreateUser", "u")).await;
    let china = aws.inspector().in_account(aws.account().home().in_region("cn-north-1"));
    assert_eq!(china.user_names().await.unwrap(), ["u"]);
}

#[tokio::test]
async fn enforced_policy_is_evaluated_against_actual_state() {
    const USERS: &str = "user/awsdeploy/*";
    let aws = aws().await;
    let (operator, manual_changes) = (Client::operator(&aws), aws.manual_changes());
    let authorizer = aws.enforce_policies();
    assert_eq!(operator.error_code(&Call::iam("ListUsers")).await, "AccessDenied", "no policies are set yet");
    assert!(operator.caller_identity().await.is_ok(), "GetCallerIdentity needs no permission");
    let users = aws.account().home().arn("iam", USERS);
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["iam:CreateUser", "iam:TagUser", "iam:GetUser", "iam:CreateAccessKey"], "Resource": users},
        {"Effect": "Allow", "Action": "iam:UpdateAccessKey", "Resource": users,
            "Condition": {"StringEquals": {"iam:ResourceTag/team": "a"}}},
        {"Effect": "Allow", "Action": "iam:AttachUserPolicy", "Resource": users,
            "Condition": {"StringEquals": {"iam:PermissionsBoundary": READ_ONLY}, "ArnLike": {"iam:PolicyARN": READ_ONLY}}},
        {"Effect": "Allow", "Action": "iam:AddUserToGroup", "Resource": aws.account().home().arn("iam", "group/teams/*")},
        {"Effect": "Deny", "Action": "iam:TagUser", "Resource": "*",
            "Condition": {"ForAnyValue:StringEquals": {"aws:TagKeys": "sealed"}}},
    ]});
    authorizer.enforce([&policy]).unwrap();

    operator.ok(&on("CreateUser", "u").with("Path", "/awsdeploy/")).await;
    let (status, code, message) = operator.expect_error(&on("CreateUser", "v")).await;
    assert_eq!((status, code.as_str()), (403, "AccessDenied"));
    assert!(
        message.contains("iam:CreateUser on resource: arn:aws:iam::") && message.contains(":user/v because"),
        "{message}"
    );
    manual_changes.call(&on("CreateUser", "elsewhere")).await.unwrap();
    assert_eq!(operator.error_code(&on("TagUser", "elsewhere").with_tags([("a", "b")])).await, "AccessDenied");
    operator.ok(&on("TagUser", "u").with_tags([("a", "b")])).await;
    let (.., message) = operator.expect_error(&on("TagUser", "u").with_tags([("a", "b"), ("sealed", "")])).await;
    assert!(message.contains("with an explicit deny"), "{message}");

    let key = operator.create_key("u").await;
    let update = Call::iam("UpdateAccessKey").with("AccessKeyId", &key.id).with("Status", "Inactive");
    assert_eq!(operator.error_code(&update.clone().with("UserName", "u")).await, "AccessDenied", "the tag is missing");
    manual_changes.tag("u", &[("team", "a")]).await.unwrap();
    operator.ok(&update.with("UserName", "u")).await;

    let attach = |arn: &str| on("AttachUserPolicy", "u").with("PolicyArn", arn);
    assert_eq!(operator.error_code(&attach(READ_ONLY)).await, "AccessDenied", "the boundary is missing");
    manual_changes.set_boundary("u", Some(READ_ONLY)).await.unwrap();
    operator.ok(&attach(READ_ONLY)).await;
    assert_eq!(operator.error_code(&attach(ADMIN)).await, "AccessDenied");

    for (group, path) in [("here", "/teams/"), ("there", "/")] {
        manual_changes.call(&Call::iam("CreateGroup").with("GroupName", group).with("Path", path)).await.unwrap();
    }
    let join = |group: &str| on("AddUserToGroup", "u").with("GroupName", group);
    operator.ok(&join("here")).await;
    assert_eq!(operator.error_code(&join("there")).await, "AccessDenied");
    assert_eq!(operator.error_code(&on("GetUser", "missing")).await, "AccessDenied", "a missing user has no path");
    let message = operator.expect_error(&on("CreateVirtualMFADevice", "u")).await.2;
    assert!(message.contains("cannot evaluate"), "{message}");
}
