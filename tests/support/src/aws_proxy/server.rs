//! The listener: HTTP/1.1 with keep-alive on a free loopback port.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::Service;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::account::Account;
use super::admin;
use super::call;
use super::engine::{Engine, Reply};
use super::inspector::Inspector;
use super::log::CallLog;
use super::manual_changes::ManualChanges;
use super::policy_authorizer::PolicyAuthorizer;
use super::response::{AwsError, AwsResponse};
use super::rules::Rules;
use super::strict::Aws;
use super::upstream::Upstream;
use crate::ports;

/// Upper limit of a request body in bytes. The largest real call carries a policy of 6 KB.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The strict AWS proxy: a listener in front of an emulator. Stops when dropped.
pub struct StrictAws {
    engine: Arc<Engine>,
    address: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for StrictAws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictAws").field("address", &self.address).finish_non_exhaustive()
    }
}

impl StrictAws {
    /// Starts on a free loopback port, in front of the emulator at `upstream`. Proxies with the same [`Account`] share
    /// keys, boundaries and user names; call log and fault rules are per proxy.
    pub async fn start(upstream: SocketAddr, account: Arc<Account>) -> io::Result<Self> {
        // Not an ephemeral port: an outgoing connection could take it while the proxy does not listen.
        Self::start_on(ports::reserve()?, upstream, account).await
    }

    /// Starts on the given address, which must be a loopback address: the admin API has no authentication.
    pub async fn start_on(listen: SocketAddr, upstream: SocketAddr, account: Arc<Account>) -> io::Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the strict proxy listens on loopback only"));
        }
        let upstream = Upstream::new(upstream).map_err(io::Error::other)?;
        let engine = Arc::new(Engine::new(Aws { account, upstream }));
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, engine.clone()));
        Ok(Self { engine, address, accepting: Mutex::new(Some(accepting)) })
    }

    /// The address of the listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL of IAM and STS, for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The call log.
    #[must_use]
    pub fn log(&self) -> &CallLog {
        &self.engine.log
    }

    /// The fault rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.engine.rules
    }

    /// The AWS account behind the proxy.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        self.engine.account()
    }

    /// Reads the actual state, bypassing fault rules and log.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.engine.aws.clone())
    }

    /// Starts to enforce IAM policies for the operator. Every call is denied until [`PolicyAuthorizer::enforce`] sets
    /// policies.
    #[must_use]
    pub fn enforce_policies(&self) -> Arc<PolicyAuthorizer> {
        let authorizer = Arc::new(PolicyAuthorizer::new(self.account().clone(), self.inspector()));
        self.account().authorize_with(authorizer.clone());
        authorizer
    }

    /// Interface for changes outside the operator: AWS rules apply, but no fault rules, signature check or log.
    #[must_use]
    pub fn manual_changes(&self) -> ManualChanges {
        ManualChanges::new(self.engine.aws.clone())
    }

    /// Closes the port and all connections. New connections are refused until [`StrictAws::resume_listening`].
    pub async fn stop_listening(&self) {
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // The port closes when the task has ended and no child process inherits the socket any more.
            let _ = accepting.await;
            ports::wait_until_closed(self.address).await;
        }
    }

    /// Opens the same port again.
    pub async fn resume_listening(&self) -> io::Result<()> {
        if self.accepting.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let listener = ports::rebind(self.address).await?;
        let accepting = tokio::spawn(accept(listener, self.engine.clone()));
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepting);
        Ok(())
    }
}

impl Drop for StrictAws {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            accepting.abort();
        }
        // A call held before the commit must not reach AWS after the test.
        self.engine.rules.abort_all();
    }
}

async fn accept(listener: TcpListener, engine: Arc<Engine>) {
    // Dropping the set aborts the connections when the task is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, engine.clone()));
                }
                // Out of descriptors or aborted by the peer: the listener itself still works.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, engine: Arc<Engine>) {
    // Nagle's algorithm would delay the small responses.
    let _ = stream.set_nodelay(true);
    // Ignore errors: the client disconnected, or a rule dropped the connection, which is logged.
    let _ = hyper::server::conn::http1::Builder::new()
        .keep_alive(true)
        // The proxy sets the header from the clock of AWS.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), HttpService { engine })
        .await;
}

/// Closes the connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("dropped by a rule")]
struct Dropped;

struct HttpService {
    engine: Arc<Engine>,
}

impl Service<hyper::Request<Incoming>> for HttpService {
    type Response = Response<Full<Bytes>>;
    type Error = Dropped;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Dropped>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let engine = self.engine.clone();
        Box::pin(async move {
            let request = match read_request(request).await {
                Ok(request) => request,
                Err(ReadError::TooLarge) => {
                    let error = AwsError::new(413, "RequestEntityTooLarge", "The request is too large.");
                    return Ok(http_response(AwsResponse::error(call::Service::Iam, &error), Timestamp::now()));
                }
                Err(ReadError::Incomplete) => return Err(Dropped),
            };
            if let Some(path) = request.path.strip_prefix(admin::PREFIX) {
                return Ok(admin::serve(&engine, path, &request));
            }
            // A separate task: a client disconnect must not cancel a call that may have reached AWS.
            match tokio::spawn(async move { engine.serve(request).await }).await {
                Ok(Reply::Send(response, now)) => Ok(http_response(response, now)),
                Ok(Reply::Drop) | Err(_) => Err(Dropped),
            }
        })
    }
}

/// Why a request could not be read.
enum ReadError {
    TooLarge,
    Incomplete,
}

async fn read_request(request: hyper::Request<Incoming>) -> Result<call::Request, ReadError> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) if error.is::<LengthLimitError>() => return Err(ReadError::TooLarge),
        Err(_) => return Err(ReadError::Incomplete),
    };
    Ok(call::Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    })
}

fn http_response(response: AwsResponse, now: Timestamp) -> Response<Full<Bytes>> {
    let from_aws = Some(&response.request_id).filter(|id| !id.is_empty());
    from_aws
        .into_iter()
        .fold(Response::builder(), |builder, id| builder.header("x-amzn-requestid", id))
        .status(StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header("content-type", response.content_type)
        .header("date", http_date(now))
        .body(Full::from(response.body))
        // A rewrite rule may have set an invalid header value.
        .unwrap_or_else(|_| Response::new(Full::default()))
}

/// IMF-fixdate of RFC 9110.
fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_header_has_the_format_of_rfc_9110() {
        assert_eq!(http_date("2026-11-01T08:09:37.9Z".parse().unwrap()), "Sun, 01 Nov 2026 08:09:37 GMT");
    }

    #[tokio::test]
    async fn non_loopback_address_is_rejected() {
        let unspecified = "0.0.0.0:0".parse().unwrap();
        let error = StrictAws::start_on(unspecified, unspecified, Account::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
