//! The emulator behind the proxy.

use std::net::SocketAddr;
use std::time::Duration;

use super::call::{Call, Service};
use super::caller::AccountRef;
use super::response::{AwsError, AwsResponse, request_id};

/// How long the emulator may take for one call. Its slowest is a list of all users at 5,000 users: about a second.
const PATIENCE: Duration = Duration::from_mins(1);

/// Speaks to the emulator, plain HTTP. Clones share one client.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Upstream {
    /// An emulator that listens there.
    pub(super) fn new(address: SocketAddr) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            // The emulator closes each connection; one kept in a pool would only break the next call.
            .pool_max_idle_per_host(0)
            // A retry here would hide from the log what reached the emulator.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()?;
        Ok(Self { address, http })
    }

    /// Passes a call on. An answer of any status is `Ok`; `Err` means that there was none, so the outcome is unknown.
    pub(super) async fn send(
        &self,
        account_ref: &AccountRef,
        call: &Call,
        key_id: Option<&str>,
    ) -> Result<AwsResponse, AwsError> {
        let url = format!("http://{}/", self.address);
        // The emulator reads service, region and caller from here and checks nothing, so the real signature stays
        // with us.
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
