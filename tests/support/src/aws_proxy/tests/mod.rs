//! Tests of the proxy over HTTP, in front of a real emulator.
//!
//! One emulator serves all tests of this process; each test has its own AWS account. Without an emulator the tests
//! fail, as skipped tests would go unnoticed.

mod faults;
mod http;
mod keys;
mod paging;
mod policies;
mod users;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;

use super::call::Request;
use super::{Account, AwsError, AwsResponse, Call, CreatedKey, StrictAws, sigv4};
use crate::emulator::Emulator;
use crate::run_dir::RunDir;
use crate::tools::Tools;

/// Only a hanging call reaches this limit.
const TIMEOUT: Duration = Duration::from_secs(20);

const ADMIN: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
const READ_ONLY: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
const DOCUMENT: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;

/// The emulator of this process.
fn emulator() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let (send, receive) = std::sync::mpsc::channel();
        // The emulator ends with the thread that started it, so the thread must outlive all tests.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let tools = Tools::locate().await.unwrap();
                let directory = RunDir::create().unwrap();
                let emulator = Emulator::start(&tools, directory.path()).await.unwrap();
                send.send(emulator.address()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receive.recv().expect("no emulator; set AWSDEPLOY_TEST_BIN to a directory with moto_server")
    })
}

/// A proxy in front of an empty AWS account.
async fn aws() -> StrictAws {
    aws_for(Account::unique()).await
}

async fn aws_for(account: Arc<Account>) -> StrictAws {
    let upstream = tokio::task::spawn_blocking(emulator).await.unwrap();
    StrictAws::start(upstream, account).await.unwrap()
}

/// A client that signs its calls.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    endpoint: String,
    key_id: String,
    secret: String,
    token: Option<String>,
}

/// A response with its headers, or the error of a connection closed without a response.
type Received = Result<(AwsResponse, reqwest::header::HeaderMap), reqwest::Error>;

impl Client {
    fn operator(aws: &StrictAws) -> Self {
        Self::with(aws, "testing", "testing")
    }

    fn with_key(aws: &StrictAws, key: &CreatedKey) -> Self {
        Self::with(aws, &key.id, &key.secret)
    }

    fn with(aws: &StrictAws, key_id: &str, secret: &str) -> Self {
        Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            endpoint: aws.endpoint(),
            key_id: key_id.to_owned(),
            secret: secret.to_owned(),
            token: None,
        }
    }

    /// A client with the credentials of an `AssumeRole` response.
    fn with_session(aws: &StrictAws, session: &str) -> Self {
        let plain = Self::with(aws, &text(session, "AccessKeyId"), &text(session, "SecretAccessKey"));
        Self { token: Some(text(session, "SessionToken")), ..plain }
    }

    /// Sends a call.
    async fn send(&self, call: &Call) -> Received {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("host", self.endpoint.strip_prefix("http://").unwrap().parse().unwrap());
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        if let Some(token) = &self.token {
            headers.insert("x-amz-security-token", token.parse().unwrap());
        }
        let mut request = Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers,
            body: call.body().into_bytes(),
        };
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        sigv4::sign(&mut request, &self.key_id, &self.secret, &call.region, call.service.name(), &now);
        let http_response = self.http.post(&self.endpoint).headers(request.headers).body(request.body).send().await?;
        let status = http_response.status().as_u16();
        let headers = http_response.headers().clone();
        let response = AwsResponse {
            status,
            content_type: headers["content-type"].to_str().unwrap().to_owned(),
            request_id: headers.get("x-amzn-requestid").map_or_else(String::new, |id| id.to_str().unwrap().to_owned()),
            body: http_response.text().await?,
        };
        Ok((response, headers))
    }

    /// Sends a call that must get a response. Returns the body of a success, or the error.
    async fn call(&self, call: &Call) -> Result<String, AwsError> {
        let (response, _) = self.send(call).await.expect("a response");
        match response.as_error() {
            None => Ok(response.body),
            Some(error) => Err(error),
        }
    }

    /// Sends a call that must succeed.
    async fn ok(&self, call: &Call) -> String {
        self.call(call).await.unwrap_or_else(|error| panic!("{call:?}: {error}"))
    }

    /// Sends a call that must be rejected. Returns status, code and message.
    async fn expect_error(&self, call: &Call) -> (u16, String, String) {
        match self.call(call).await {
            Ok(body) => panic!("{call:?} was not rejected: {body}"),
            Err(error) => (error.status, error.code, error.message),
        }
    }

    /// Sends a call that must be rejected. Returns the error code.
    async fn error_code(&self, call: &Call) -> String {
        self.expect_error(call).await.1
    }

    async fn create_key(&self, user: &str) -> CreatedKey {
        let body = self.ok(&on("CreateAccessKey", user)).await;
        CreatedKey { id: text(&body, "AccessKeyId"), secret: text(&body, "SecretAccessKey") }
    }

    /// The ARN of the key, or the error code.
    async fn caller_identity(&self) -> Result<String, String> {
        let identity = self.call(&Call::sts("GetCallerIdentity")).await.map_err(|error| error.code)?;
        Ok(text(&identity, "Arn"))
    }
}

fn on(action: &str, user: &str) -> Call {
    Call::iam(action).with("UserName", user)
}

fn text(body: &str, element: &str) -> String {
    super::xml::text_in(body, element).unwrap_or_else(|| panic!("no {element} in {body}"))
}

fn texts(body: &str, element: &str) -> Vec<String> {
    super::xml::texts_in(body, element)
}
