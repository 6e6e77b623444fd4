//! The emulator behind the proxy.

use std::net::SocketAddr;
use std::time::Duration;

use super::call::{Call, Service};
use super::caller::AccountRef;
use super::response::{AwsError, AwsResponse, request_id};

/// Time limit of one emulator call. The slowest, a list of 5,000 users, takes about a second.
const EMULATOR_TIMEOUT: Duration = Duration::from_mins(1);

/// HTTP client of the emulator. Clones share the connection pool.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            // The emulator closes each connection; reusing one would fail the next call.
            .pool_max_idle_per_host(0)
            // With retries the call log would not show every call that reaches the emulator.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(EMULATOR_TIMEOUT)
            .build()?;
        Ok(Self { address, http })
    }

    /// Forwards a call. A response of any status is `Ok`; `Err` means that there was none, so the outcome is unknown.
    pub(super) async fn send(
        &self,
        account_ref: &AccountRef,
        call: &Call,
        key_id: Option<&str>,
    ) -> Result<AwsResponse, AwsError> {
        let url = format!("http://{}/", self.address);
        // The emulator takes service, region and caller from this header and verifies no signature.
        let region = match call.service {
            Service::Iam => account_ref.iam_region(),
            Service::Sts => call.region.as_str(),
        };
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/20260101/{region}/{}/aws4_request, SignedHeaders=host, Signature=none",
            key_id.unwrap_or("testing"),
            call.service.name(),
        );
        let response = self
            .http
            .post(url)
            .header("authorization", authorization)
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .header("x-moto-account-id", &account_ref.account)
            .body(call.body())
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let content_type = header("content-type").unwrap_or_else(|| "text/xml".to_owned());
        let request_id = header("x-amzn-requestid").unwrap_or_else(request_id);
        let body = response.text().await.map_err(|error| failed(&error))?;
        Ok(AwsResponse { status, content_type, request_id, body })
    }
}

fn failed(error: &reqwest::Error) -> AwsError {
    use std::error::Error as _;
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    AwsError::upstream(&detail)
}
