//! Identity of the cluster, and of the operator in it.

use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::Namespace};
use kube::{Api, Client, api::PostParams};

use super::error::ClusterError;

/// Reads the cluster id: the UID of the `kube-system` namespace, which is unique and never changes.
pub async fn cluster_id(client: Client) -> Result<String, ClusterError> {
    let namespaces: Api<Namespace> = Api::all(client);
    let namespace = namespaces
        .get("kube-system")
        .await
        .map_err(|error| ClusterError::new("get Namespace kube-system".to_owned(), &error))?;
    Ok(namespace.metadata.uid.unwrap_or_default())
}

/// Reads the operator's user name as the API server authenticates it, such as
/// `system:serviceaccount:aws-deploy-user-operator:aws-deploy-user-operator`.
pub async fn current_user(client: Client) -> Result<String, ClusterError> {
    let reviews: Api<SelfSubjectReview> = Api::all(client);
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(|error| ClusterError::new("create SelfSubjectReview".to_owned(), &error))?;
    Ok(review.status.and_then(|status| status.user_info).and_then(|user| user.username).unwrap_or_default())
}
