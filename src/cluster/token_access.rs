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
}

impl TokenReviewer {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reviews whether the bearer of the token may `get` a non-resource path: a `TokenReview` and a
    /// `SubjectAccessReview`. Neither the token nor its review is part of an error.
    pub async fn review(&self, token: &str, path: &str) -> Result<TokenAccess, ClusterError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let reviewed = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let reviewed = reviewed.map_err(|error| ClusterError::new("create TokenReview".to_owned(), &error))?;
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
        let answered = answered.map_err(|error| ClusterError::new("create SubjectAccessReview".to_owned(), &error))?;
        let allowed = answered.status.is_some_and(|status| status.allowed);
        Ok(if allowed { TokenAccess::Allowed } else { TokenAccess::Forbidden(name) })
    }
}
