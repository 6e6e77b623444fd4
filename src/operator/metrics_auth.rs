//! Who may read `/metrics`: asked of the API server, and remembered for a moment.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use crate::cluster::{TokenAccess, TokenReviewer};

/// The path that is guarded, as RBAC has it (`nonResourceURLs`).
const PATH: &str = "/metrics";
/// Who may is not asked about again for this long: a right that is taken away ends within it.
const ALLOWED_FOR: Duration = Duration::from_mins(1);
/// Who may not is asked about again after this long, so that a right that was granted is seen soon.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Answers that are remembered. TokenReviewer are few; whoever tries tokens is forgotten first.
const MOST: usize = 100;
/// Tokens of service accounts have one to two thousand characters; what is much longer is none.
const LONGEST: usize = 16 * 1024;
/// Questions to the API server at the same time. Who tries tokens must not use up what the operator needs of it.
const AT_ONCE: usize = 4;
/// How long a token waits for its turn to be asked about, which comes in the order of arrival: whoever tries tokens without
/// end keeps no scraper out. Less than the time that Prometheus gives a scrape, so that it is told why it got nothing.
const TURN_LIMIT: Duration = Duration::from_secs(5);

/// An answer without metrics.
pub(super) type Rejection = (StatusCode, String);

/// Guards `/metrics`.
pub(super) struct MetricsAuth {
    scrapers: TokenReviewer,
    known: Mutex<Known>,
    asking: Semaphore,
}

/// Answers by the SHA-256 of the token: no token is kept.
#[derive(Default)]
struct Known(HashMap<[u8; 32], (TokenAccess, Instant)>);

impl MetricsAuth {
    pub(super) fn new(scrapers: TokenReviewer) -> Self {
        Self { scrapers, known: Mutex::default(), asking: Semaphore::new(AT_ONCE) }
    }

    /// Whether the bearer of the request's token may read the metrics.
    pub(super) async fn admit(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let Some(token) = bearer(headers) else {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token is needed\n".to_owned()));
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        let remembered = self.known().get(&digest, Instant::now());
        let scraper = if let Some(scraper) = remembered { scraper } else { self.ask(token, digest).await? };
        match scraper {
            TokenAccess::Allowed => Ok(()),
            TokenAccess::Unknown => Err((StatusCode::UNAUTHORIZED, "the token is not valid\n".to_owned())),
            TokenAccess::Forbidden(user) => Err((
                StatusCode::FORBIDDEN,
                format!("{user} may not get {PATH}; bind the ClusterRole <release>-metrics-reader to it\n"),
            )),
        }
    }

    /// Asks the API server, when it is this token's turn.
    async fn ask(&self, token: &str, digest: [u8; 32]) -> Result<TokenAccess, Rejection> {
        let Ok(Ok(_turn)) = timeout(TURN_LIMIT, self.asking.acquire()).await else {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "too many tokens are being asked about\n".to_owned()));
        };
        // The same token may have had its answer while it waited here.
        let remembered = self.known().get(&digest, Instant::now());
        if let Some(scraper) = remembered {
            return Ok(scraper);
        }
        let scraper = self.scrapers.review(token, PATH).await.map_err(|error| {
            tracing::warn!(%error, "nobody can be let to the metrics");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the API server could not be asked who you are; see the operator's log\n".to_owned(),
            )
        })?;
        self.known().put(digest, scraper.clone(), Instant::now());
        Ok(scraper)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

impl Known {
    fn get(&self, digest: &[u8; 32], now: Instant) -> Option<TokenAccess> {
        self.0.get(digest).filter(|(scraper, asked)| fresh(scraper, *asked, now)).map(|(scraper, _)| scraper.clone())
    }

    fn put(&mut self, digest: [u8; 32], scraper: TokenAccess, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (scraper, asked)| fresh(scraper, *asked, now));
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, (scraper, _)| *scraper == TokenAccess::Allowed);
        }
        if self.0.len() < MOST {
            self.0.insert(digest, (scraper, now));
        }
    }
}

fn fresh(scraper: &TokenAccess, asked: Instant, now: Instant) -> bool {
    let keep = if *scraper == TokenAccess::Allowed { ALLOWED_FOR } else { REFUSED_FOR };
    now.saturating_duration_since(asked) < keep
}

/// The token of `Authorization: Bearer ...`. The scheme is told in any case of letters (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= LONGEST).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll},
    };

    use futures::FutureExt as _;
    use http::{Request, Response};
    use kube::{Client, client::Body};

    use super::*;

    /// An API server that knows every token and allows it everything, and counts what it is asked.
    #[derive(Clone, Default)]
    struct Generous(Arc<AtomicUsize>);

    impl tower::Service<Request<Body>> for Generous {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            // Both answers in one: each kind takes what it knows.
            let answer =
                r#"{"metadata":{},"spec":{},"status":{"authenticated":true,"user":{"username":"a"},"allowed":true}}"#;
            ready(Ok(Response::new(Body::from(answer.as_bytes().to_vec()))))
        }
    }

    fn metrics_auth(server: &Generous) -> MetricsAuth {
        MetricsAuth::new(TokenReviewer::new(Client::new(server.clone(), "default")))
    }

    fn of(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_waits_for_its_turn_but_not_for_ever() {
        let metrics_auth = metrics_auth(&Generous::default());
        let all = || metrics_auth.asking.try_acquire_many(u32::try_from(AT_ONCE).unwrap()).unwrap();
        let held = all();
        let honest = of("honest");
        let mut waiting = pin!(metrics_auth.admit(&honest));
        assert_eq!(waiting.as_mut().now_or_never(), None, "it is not sent away");
        drop(held);
        assert_eq!(waiting.await, Ok(()));

        let _held = all();
        assert_eq!(metrics_auth.admit(&honest).now_or_never(), Some(Ok(())), "who is known needs no turn");
        let start = tokio::time::Instant::now();
        let (status, _) = metrics_auth.admit(&of("late")).await.unwrap_err();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(start.elapsed() >= TURN_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_had_its_answer_while_it_waited_is_not_asked_about_again() {
        let server = Generous::default();
        let metrics_auth = metrics_auth(&server);
        let _held = metrics_auth.asking.try_acquire_many(u32::try_from(AT_ONCE - 1).unwrap()).unwrap();
        let honest = of("honest");
        let both = futures::join!(metrics_auth.admit(&honest), metrics_auth.admit(&honest));
        assert_eq!(both, (Ok(()), Ok(())));
        assert_eq!(server.0.load(Ordering::Relaxed), 2, "one TokenReview, one SubjectAccessReview");
    }

    fn digest(number: usize) -> [u8; 32] {
        Sha256::digest(number.to_string()).into()
    }

    #[test]
    fn answers_are_forgotten_and_tried_tokens_push_no_scraper_out() {
        let (mut known, start) = (Known::default(), Instant::now());
        known.put(digest(0), TokenAccess::Allowed, start);
        for number in 1..10 * MOST {
            known.put(digest(number), TokenAccess::Unknown, start);
            assert!(known.0.len() <= MOST);
        }
        assert_eq!(known.get(&digest(0), start), Some(TokenAccess::Allowed));
        known.put(digest(1), TokenAccess::Forbidden("a".into()), start);
        assert_eq!(known.get(&digest(1), start + REFUSED_FOR), None);
        assert_eq!(known.get(&digest(0), start + REFUSED_FOR), Some(TokenAccess::Allowed));
        assert_eq!(known.get(&digest(0), start + ALLOWED_FOR), None);
    }

    #[test]
    fn a_token_is_what_stands_behind_bearer() {
        let token = |text: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer a.b.c"), Some("a.b.c".to_owned()));
        assert_eq!(token("bearer  a"), Some("a".to_owned()));
        for nothing in ["Bearer", "Bearer ", "Basic a", "", &format!("Bearer {}", "a".repeat(LONGEST + 1))] {
            assert_eq!(token(nothing), None, "{nothing}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
