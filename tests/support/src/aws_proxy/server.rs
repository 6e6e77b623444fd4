//! The listener: HTTP/1.1 with connections kept alive, on a free loopback port.

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

/// Far above any real call; the largest is a policy of 6 KB.
const BODY_LIMIT: usize = 1 << 20;

/// A strict AWS: a listener in front of an emulator. Stops when dropped.
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
    /// Starts on a free loopback port, in front of the emulator at `upstream`. Proxies that are given the same
    /// account share its keys, boundaries and names; log and rules are each proxy's own.
    pub async fn start(upstream: SocketAddr, account: Arc<Account>) -> io::Result<Self> {
        // A port that no outgoing connection takes while AWS is away.
        Self::start_on(ports::reserve()?, upstream, account).await
    }

    /// Starts on an address of the caller's choosing, which must be a loopback one: the proxy has an unguarded admin
    /// interface.
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

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `AWS_ENDPOINT_URL`, which must hold for IAM and STS alike.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked of it.
    #[must_use]
    pub fn log(&self) -> &CallLog {
        &self.engine.log
    }

    /// What goes wrong in it.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.engine.rules
    }

    /// The AWS behind it.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        self.engine.account()
    }

    /// Reads what is so, past all rules and past the log.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.engine.aws.clone())
    }

    /// From now on the operator may do only what IAM policies allow: none, until [`PolicyAuthorizer::enforce`] names some.
    #[must_use]
    pub fn enforce_policies(&self) -> Arc<PolicyAuthorizer> {
        let guard = Arc::new(PolicyAuthorizer::new(self.account().clone(), self.inspector()));
        self.account().authorize_with(guard.clone());
        guard
    }

    /// Acts as a person at the console: past rules, signatures and the log, but by AWS's rules.
    #[must_use]
    pub fn manual_changes(&self) -> ManualChanges {
        ManualChanges::new(self.engine.aws.clone())
    }

    /// Closes the port and every connection: connects are refused until [`StrictAws::resume_listening`].
    pub async fn stop_listening(&self) {
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // The port is closed once the task is gone, and with it the copies of starting child processes.
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
        // Nobody is left to let held calls go, and what was held before AWS must not happen after the test.
        self.engine.rules.abort_all();
    }
}

async fn accept(listener: TcpListener, engine: Arc<Engine>) {
    // Connections live in this set, so they end with the task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, engine.clone()));
                }
                // Out of descriptors, or the peer was gone already: the listener itself is fine.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, engine: Arc<Engine>) {
    // Answers are small and awaited; the delay of Nagle's algorithm would show in every latency.
    let _ = stream.set_nodelay(true);
    // An error here is a client that went away, or a rule that dropped the connection. The log has it.
    let _ = hyper::server::conn::http1::Builder::new()
        .keep_alive(true)
        // The header is AWS's clock and ours to set.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), Front { engine })
        .await;
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped by a rule")]
struct Dropped;

struct Front {
    engine: Arc<Engine>,
}

impl Service<hyper::Request<Incoming>> for Front {
    type Response = Response<Full<Bytes>>;
    type Error = Dropped;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Dropped>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let engine = self.engine.clone();
        Box::pin(async move {
            let request = match read(request).await {
                Ok(request) => request,
                Err(Unreadable::TooLong) => {
                    let error = AwsError::new(413, "RequestEntityTooLarge", "The request is too large.");
                    return Ok(write(AwsResponse::error(call::Service::Iam, &error), Timestamp::now()));
                }
                Err(Unreadable::BrokenOff) => return Err(Dropped),
            };
            if let Some(path) = request.path.strip_prefix(admin::PREFIX) {
                return Ok(admin::serve(&engine, path, &request));
            }
            // A task of its own: a client that goes away must not stop a call that AWS has taken on.
            match tokio::spawn(async move { engine.serve(request).await }).await {
                Ok(Reply::Send(answer, now)) => Ok(write(answer, now)),
                Ok(Reply::Drop) | Err(_) => Err(Dropped),
            }
        })
    }
}

/// A request that did not arrive whole.
enum Unreadable {
    TooLong,
    BrokenOff,
}

async fn read(request: hyper::Request<Incoming>) -> Result<call::Request, Unreadable> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Unreadable::TooLong),
        Err(_) => return Err(Unreadable::BrokenOff),
    };
    Ok(call::Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    })
}

fn write(answer: AwsResponse, now: Timestamp) -> Response<Full<Bytes>> {
    Response::builder()
        .status(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header("content-type", answer.content_type)
        .header("x-amzn-requestid", answer.request_id)
        .header("date", http_date(now))
        .body(Full::from(answer.body))
        // A rewrite rule may have put in what no header can carry.
        .unwrap_or_else(|_| Response::new(Full::default()))
}

/// The format of RFC 9110, always in GMT.
fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_in_the_format_of_http() {
        assert_eq!(http_date("2026-11-01T08:09:37.9Z".parse().unwrap()), "Sun, 01 Nov 2026 08:09:37 GMT");
    }

    #[tokio::test]
    async fn only_loopback_will_do() {
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let error = StrictAws::start_on(everywhere, everywhere, Account::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
