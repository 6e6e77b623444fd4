//! Authentication and authorization of bearer tokens by the API server.

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};

use super::error::ClusterError;

/// Whether the bearer of a token may read a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAccess {
    /// The API server does not authenticate the token.
    Unknown,
    /// The user of this name lacks the permission.
    Forbidden(String),
    /// The user has the permission.
    Allowed,
}

/// Reviews tokens with the API server.
#[derive(Clone)]
pub struct TokenReviewer {
    client: Client,
    /// Audience that a token must have; `None`: that of the API server.
    audience: Option<String>,
}

impl TokenReviewer {
    #[must_use]
    pub fn new(client: Client, audience: Option<String>) -> Self {
        Self { client, audience }
    }

    /// Reviews whether the bearer of the token may `get` a non-resource path: a `TokenReview` and a
    /// `SubjectAccessReview`. Neither the token nor its review is part of an error.
    pub async fn review(&self, token: &str, path: &str) -> Result<TokenAccess, ClusterError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: self.audience.clone().map(|audience| vec![audience]),
            },
            ..TokenReview::default()
        };
        let reviewed = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let reviewed = reviewed.map_err(|error| ClusterError::new("create TokenReview".to_owned(), &error))?;
        // An authenticator that ignores audiences returns none: its tokens are for the API server.
        let is_for_audience = |audiences: Option<&Vec<String>>| {
            self.audience.as_ref().is_none_or(|wanted| audiences.is_some_and(|found| found.contains(wanted)))
        };
        let status = reviewed
            .status
            .filter(|status| status.authenticated == Some(true) && is_for_audience(status.audiences.as_ref()));
        let Some(user) = status.and_then(|status| status.user) else { return Ok(TokenAccess::Unknown) };
        let name = user.username.clone().unwrap_or_default();
        let access = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(path.to_owned()),
                    verb: Some("get".to_owned()),
                }),
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answered =
            Api::<SubjectAccessReview>::all(self.client.clone()).create(&PostParams::default(), &access).await;
        let answered = answered.map_err(|error| ClusterError::new("create SubjectAccessReview".to_owned(), &error))?;
        let allowed = answered.status.is_some_and(|status| status.allowed);
        Ok(if allowed { TokenAccess::Allowed } else { TokenAccess::Forbidden(name) })
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::{Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    /// Reviews a token with an API server that authenticates it for `audiences`; returns the audiences of the request as well.
    async fn review(audience: Option<&str>, audiences: Value) -> (TokenAccess, Value) {
        let asked = Arc::new(Mutex::new(Value::Null));
        let recorded = Arc::clone(&asked);
        let server = tower::service_fn(move |request: Request<Body>| {
            let (recorded, audiences) = (Arc::clone(&recorded), audiences.clone());
            async move {
                let body = axum::body::Body::new(request.into_body());
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let review: Value = serde_json::from_slice(&body).unwrap();
                if review["kind"] == "TokenReview" {
                    *recorded.lock() = review["spec"]["audiences"].clone();
                }
                let status =
                    json!({"authenticated": true, "allowed": true, "user": {"username": "a"}, "audiences": audiences});
                let answer = json!({"metadata": {}, "spec": {}, "status": status}).to_string();
                Ok::<_, Infallible>(Response::new(Body::from(answer.into_bytes())))
            }
        });
        let reviewer = TokenReviewer::new(Client::new(server, "default"), audience.map(str::to_owned));
        let access = reviewer.review("token", "/metrics").await.unwrap();
        let asked = asked.lock().clone();
        (access, asked)
    }

    #[tokio::test]
    async fn token_is_accepted_only_for_the_configured_audience() {
        for (audience, audiences, access) in [
            (None, Value::Null, TokenAccess::Allowed),
            (Some("metrics"), json!(["metrics"]), TokenAccess::Allowed),
            (Some("metrics"), json!(["https://kubernetes.default.svc"]), TokenAccess::Unknown),
            (Some("metrics"), Value::Null, TokenAccess::Unknown),
        ] {
            let wanted = audience.map_or(Value::Null, |audience| json!([audience]));
            assert_eq!(review(audience, audiences.clone()).await, (access, wanted), "{audience:?} {audiences}");
        }
    }
}
