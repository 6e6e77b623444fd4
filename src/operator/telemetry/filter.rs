//! What is logged: an allow-list of targets.
//!
//! Libraries log bodies: kube-client those that it cannot parse, at level warn; kube-runtime the objects of a failed watch; hyper
//! and the AWS SDK all of them at level trace. Bodies hold key material, and a list of targets to mute would miss the next library.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::Error;
use crate::trace;

const OWN_TARGET: &str = "awsdeploy";
/// The one library that logs, because its errors are the only report of a failed renewal. It handles nothing but the Lease.
const LEASE_TARGET: &str = "kube_lease_manager";

/// Parses the directives of `--log`. A level without a target is that of the operator's own messages.
///
/// # Errors
/// When a directive is malformed or names a library that is not allowed to log.
pub(super) fn parse(directives: &str) -> Result<Targets, Error> {
    let given: Targets = directives.parse()?;
    if let Some((refused, _)) = given.iter().find(|(target, _)| !is_allowed(target)) {
        return Err(format!(
            "{refused:?} cannot be logged, because its messages may contain key material; use {OWN_TARGET} or {LEASE_TARGET}"
        )
        .into());
    }
    let level = given.default_level().unwrap_or(LevelFilter::OFF);
    Ok(Targets::new()
        .with_target(OWN_TARGET, level)
        .with_target(LEASE_TARGET, level.min(LevelFilter::ERROR))
        .with_targets(given.iter())
        // Else every log line would name its step and call.
        .with_target(trace::TARGET, LevelFilter::OFF))
}

fn is_allowed(target: &str) -> bool {
    [OWN_TARGET, LEASE_TARGET]
        .iter()
        .any(|allowed| target.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready, io, sync::Arc};

    use http::{Request, Response};
    use kube::{Client, client::Body};
    use parking_lot::Mutex;
    use tracing::{Level, instrument::WithSubscriber as _};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::cluster::Secrets;

    const CANARY: &str = "Y2FuYXJ5";
    const EVERYTHING: &str = "trace,awsdeploy=trace,kube_lease_manager=trace";

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Reads a Secret from an API server that responds with `code` and `body`. Returns the error and the log.
    async fn read_secret(filter: Targets, code: u16, body: &str) -> (String, String) {
        let body = body.as_bytes().to_vec();
        let server = tower::service_fn(move |_: Request<Body>| {
            let mut response = Response::new(Body::from(body.clone()));
            *response.status_mut() = code.try_into().unwrap();
            ready(Ok::<_, Infallible>(response))
        });
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        let read = async {
            let secrets = Secrets::new(Client::new(server, "default"), "deploy");
            let error = secrets.get("x").await.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::info!(target: OWN_TARGET, error, "failed");
            error
        };
        let error = read.with_subscriber(subscriber).await;
        let log = String::from_utf8(captured.0.lock().clone()).unwrap();
        (error, log)
    }

    #[tokio::test]
    async fn unparsable_secret_is_quoted_neither_in_log_nor_error() {
        let secret =
            |field: &str| format!(r#"{{"kind":"Secret","apiVersion":"v1",{field},"data":{{"a":"{CANARY}"}}}}"#);
        let unfiltered = || Targets::new().with_default(LevelFilter::TRACE);
        let beyond_9999 = secret(r#""metadata":{"name":"x","creationTimestamp":"10000-01-01T00:00:00Z"}"#);
        let (_, log) = read_secret(unfiltered(), 200, &beyond_9999).await;
        assert!(log.contains(CANARY), "kube-client logs the body: else this test proves nothing: {log}");
        for (code, body) in [
            (200, beyond_9999),
            (200, secret(&format!(r#""metadata":{{"creationTimestamp":"{CANARY}"}}"#))),
            (200, secret(&format!(r#""immutable":"{CANARY}""#))),
            (200, CANARY.to_owned()),
            (502, format!("<p>{CANARY}</p>")),
        ] {
            let (error, log) = read_secret(parse(EVERYTHING).unwrap(), code, &body).await;
            assert!(error.starts_with("get Secret deploy/x: "), "{error}");
            assert!(!error.contains(CANARY) && !log.contains(CANARY), "{body}: {error}; {log}");
            assert!(log.contains("failed"), "the operator's own messages are logged: {log}");
        }
    }

    #[test]
    fn log_accepts_only_targets_that_hold_no_body() {
        for refused in [
            "kube=warn",
            "info,kube_client=error",
            "hyper=trace",
            "aws=debug",
            "aws_smithy_runtime",
            "[{a}]=trace",
            "k",
        ] {
            let error = parse(refused).map(drop).unwrap_err().to_string();
            assert!(error.contains("key material"), "{refused}: {error}");
        }
        let logs = |directives: &str, target: &str, level| parse(directives).unwrap().would_enable(target, &level);
        assert!(logs("info", "awsdeploy::operator::run", Level::INFO) && !logs("info", "awsdeploy", Level::DEBUG));
        assert!(logs("info,awsdeploy::aws=debug", "awsdeploy::aws::iam", Level::DEBUG));
        assert!(logs("info", LEASE_TARGET, Level::ERROR) && !logs("info", LEASE_TARGET, Level::WARN));
        for library in
            ["kube_client::client", "kube_runtime::watcher", "hyper::proto", "aws_config", "rustls", trace::TARGET]
        {
            assert!(!logs(EVERYTHING, library, Level::ERROR), "{library}");
        }
    }
}
