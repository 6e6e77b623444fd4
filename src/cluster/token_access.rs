//! Who asks for metrics: the API server says whose a token is, and whether that one may.

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};

use super::error::ClusterError;

/// What the API server says of the bearer of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAccess {
    /// The token is nobody's, or no longer valid.
    Unknown,
    /// This user may not read the path.
    Forbidden(String),
    /// May read it.
    Allowed,
}

/// Asks the API server about tokens.
#[derive(Clone)]
pub struct TokenReviewer {
    client: Client,
}

impl TokenReviewer {
    /// Asks through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whether the bearer of the token may `get` this path, which is no resource. Two calls; neither token nor its
    /// review is ever part of an error.
    pub async fn review(&self, token: &str, path: &str) -> Result<TokenAccess, ClusterError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let reviewed = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let reviewed = reviewed.map_err(|error| ClusterError::of("create TokenReview".to_owned(), &error))?;
        let status = reviewed.status.filter(|status| status.authenticated == Some(true));
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
        let answered = answered.map_err(|error| ClusterError::of("create SubjectAccessReview".to_owned(), &error))?;
        let allowed = answered.status.is_some_and(|status| status.allowed);
        Ok(if allowed { TokenAccess::Allowed } else { TokenAccess::Forbidden(name) })
    }
}
