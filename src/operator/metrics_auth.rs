//! Authenticates and authorizes scrapes of `/metrics` with `TokenReview` and `SubjectAccessReview`; caches the result.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use crate::cluster::{TokenAccess, TokenReviewer};

/// The protected path, as RBAC spells it (`nonResourceURLs`).
const PATH: &str = "/metrics";
/// Bounds how long a revoked permission still works.
const ALLOWED_TTL: Duration = Duration::from_mins(1);
/// Shorter than [`ALLOWED_TTL`], so that a newly granted permission works soon.
const DENIED_TTL: Duration = Duration::from_secs(10);
const MAX_CACHED_REVIEWS: usize = 100;
/// Service account tokens have one to two thousand bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Concurrent reviews. A client that guesses tokens must not use up the API server's budget of the operator.
const MAX_CONCURRENT_REVIEWS: usize = 4;
/// How long a token waits for its review. Reviews are first come, first served, so that a client that guesses tokens does not
/// starve a scraper. Shorter than Prometheus' scrape timeout, so that the scraper receives the reason.
const REVIEW_QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// A response without metrics.
pub(super) type Rejection = (StatusCode, String);

pub(super) struct MetricsAuth {
    reviewer: TokenReviewer,
    cache: Mutex<ReviewCache>,
    review_permits: Semaphore,
}

/// Reviews by SHA-256 of the token, so that no token is kept in memory.
#[derive(Default)]
struct ReviewCache(HashMap<[u8; 32], (TokenAccess, Instant)>);

impl MetricsAuth {
    pub(super) fn new(reviewer: TokenReviewer) -> Self {
        Self { reviewer, cache: Mutex::default(), review_permits: Semaphore::new(MAX_CONCURRENT_REVIEWS) }
    }

    /// Whether the bearer of the request's token may read the metrics.
    pub(super) async fn authorize(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let Some(token) = bearer_token(headers) else {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token is required\n".to_owned()));
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        let cached = self.cache().get(&digest, Instant::now());
        let access = if let Some(access) = cached { access } else { self.review(token, digest).await? };
        match access {
            TokenAccess::Allowed => Ok(()),
            TokenAccess::Unknown => Err((StatusCode::UNAUTHORIZED, "the token is not valid\n".to_owned())),
            TokenAccess::Forbidden(user) => Err((
                StatusCode::FORBIDDEN,
                format!("{user} may not get {PATH}; bind the ClusterRole <release>-metrics-reader to it\n"),
            )),
        }
    }

    async fn review(&self, token: &str, digest: [u8; 32]) -> Result<TokenAccess, Rejection> {
        let Ok(Ok(_permit)) = timeout(REVIEW_QUEUE_TIMEOUT, self.review_permits.acquire()).await else {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "too many token reviews are pending\n".to_owned()));
        };
        // Another request with the same token may have completed while this one waited for the permit.
        let cached = self.cache().get(&digest, Instant::now());
        if let Some(access) = cached {
            return Ok(access);
        }
        let access = self.reviewer.review(token, PATH).await.map_err(|error| {
            tracing::warn!(%error, "token review failed, rejecting scrape");
            (StatusCode::SERVICE_UNAVAILABLE, "token review failed; see the operator's log\n".to_owned())
        })?;
        self.cache().put(digest, access.clone(), Instant::now());
        Ok(access)
    }

    fn cache(&self) -> MutexGuard<'_, ReviewCache> {
        self.cache.lock()
    }
}

impl ReviewCache {
    fn get(&self, digest: &[u8; 32], now: Instant) -> Option<TokenAccess> {
        self.0.get(digest).filter(|(access, at)| is_fresh(access, *at, now)).map(|(access, _)| access.clone())
    }

    /// Evicts denied tokens before allowed ones: guessed tokens must not evict a scraper.
    fn put(&mut self, digest: [u8; 32], access: TokenAccess, now: Instant) {
        if self.0.len() >= MAX_CACHED_REVIEWS {
            self.0.retain(|_, (access, at)| is_fresh(access, *at, now));
        }
        if self.0.len() >= MAX_CACHED_REVIEWS {
            self.0.retain(|_, (access, _)| *access == TokenAccess::Allowed);
        }
        if self.0.len() < MAX_CACHED_REVIEWS {
            self.0.insert(digest, (access, now));
        }
    }
}

fn is_fresh(access: &TokenAccess, reviewed_at: Instant, now: Instant) -> bool {
    let ttl = if *access == TokenAccess::Allowed { ALLOWED_TTL } else { DENIED_TTL };
    now.saturating_duration_since(reviewed_at) < ttl
}

/// The token of `Authorization: Bearer ...`. The scheme is case-insensitive (RFC 9110).
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN_BYTES).then_some(token)
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

    /// An API server that authenticates and allows every token, and counts requests.
    #[derive(Clone, Default)]
    struct AllowAll(Arc<AtomicUsize>);

    impl tower::Service<Request<Body>> for AllowAll {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            // One body answers both kinds of review; each ignores the fields of the other.
            let answer =
                r#"{"metadata":{},"spec":{},"status":{"authenticated":true,"user":{"username":"a"},"allowed":true}}"#;
            ready(Ok(Response::new(Body::from(answer.as_bytes().to_vec()))))
        }
    }

    fn metrics_auth(server: &AllowAll) -> MetricsAuth {
        MetricsAuth::new(TokenReviewer::new(Client::new(server.clone(), "default"), None))
    }

    fn bearer(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[tokio::test(start_paused = true)]
    async fn review_waits_for_a_permit_until_the_timeout() {
        let auth = metrics_auth(&AllowAll::default());
        let acquire_all =
            || auth.review_permits.try_acquire_many(u32::try_from(MAX_CONCURRENT_REVIEWS).unwrap()).unwrap();
        let permits = acquire_all();
        let valid = bearer("valid");
        let mut waiting = pin!(auth.authorize(&valid));
        assert_eq!(waiting.as_mut().now_or_never(), None, "it waits");
        drop(permits);
        assert_eq!(waiting.await, Ok(()));

        let _permits = acquire_all();
        assert_eq!(auth.authorize(&valid).now_or_never(), Some(Ok(())), "a cached review needs no permit");
        let start = tokio::time::Instant::now();
        let (status, _) = auth.authorize(&bearer("late")).await.unwrap_err();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(start.elapsed() >= REVIEW_QUEUE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_with_one_token_share_a_review() {
        let server = AllowAll::default();
        let auth = metrics_auth(&server);
        let _permits =
            auth.review_permits.try_acquire_many(u32::try_from(MAX_CONCURRENT_REVIEWS - 1).unwrap()).unwrap();
        let valid = bearer("valid");
        let both = futures::join!(auth.authorize(&valid), auth.authorize(&valid));
        assert_eq!(both, (Ok(()), Ok(())));
        assert_eq!(server.0.load(Ordering::Relaxed), 2, "one TokenReview, one SubjectAccessReview");
    }

    fn digest(number: usize) -> [u8; 32] {
        Sha256::digest(number.to_string()).into()
    }

    #[test]
    fn reviews_expire_and_denied_tokens_evict_no_allowed_one() {
        let (mut cache, start) = (ReviewCache::default(), Instant::now());
        cache.put(digest(0), TokenAccess::Allowed, start);
        for number in 1..10 * MAX_CACHED_REVIEWS {
            cache.put(digest(number), TokenAccess::Unknown, start);
            assert!(cache.0.len() <= MAX_CACHED_REVIEWS);
        }
        assert_eq!(cache.get(&digest(0), start), Some(TokenAccess::Allowed));
        cache.put(digest(1), TokenAccess::Forbidden("a".into()), start);
        assert_eq!(cache.get(&digest(1), start + DENIED_TTL), None);
        assert_eq!(cache.get(&digest(0), start + DENIED_TTL), Some(TokenAccess::Allowed));
        assert_eq!(cache.get(&digest(0), start + ALLOWED_TTL), None);
    }

    #[test]
    fn bearer_token_is_parsed_from_the_authorization_header() {
        let token = |text: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]);
            bearer_token(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer a.b.c"), Some("a.b.c".to_owned()));
        assert_eq!(token("bearer  a"), Some("a".to_owned()));
        for invalid in ["Bearer", "Bearer ", "Basic a", "", &format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1))] {
            assert_eq!(token(invalid), None, "{invalid}");
        }
        assert_eq!(bearer_token(&HeaderMap::new()), None);
    }
}
