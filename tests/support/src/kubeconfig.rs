//! Kubeconfigs with a client certificate or the token of a `ServiceAccount`.

use std::path::Path;

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::{
    Error, Result,
    error::Context as _,
    install_crypto_provider,
    pki::{Identity, write_private},
};

/// Lifetime of requested tokens: longer than any test run.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// Name of the cluster, user and context in generated kubeconfigs.
const NAME: &str = "awsdeploy-test";

/// Creates a client from a kubeconfig.
pub async fn client(file: &Path) -> Result<Client> {
    install_crypto_provider();
    let config = Config::from_custom_kubeconfig(read(file)?, &KubeConfigOptions::default())
        .await
        .map_err(|source| invalid(file, source))?;
    Client::try_from(config).context(|| format!("make a client of {}", file.display()))
}

/// Writes a kubeconfig of the `ServiceAccount` `name` in `namespace` to `file`, with a token that is valid for a day.
/// Requests the token with the kubeconfig `admin` and copies its cluster.
pub async fn write_for_service_account(admin: &Path, namespace: &str, name: &str, file: &Path) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client(admin).await?, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let token = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .context(|| format!("get a token of ServiceAccount {namespace}/{name}"))?
        .status
        .ok_or_else(|| Error::Unexpected(format!("no token in the reply for ServiceAccount {namespace}/{name}")))?
        .token;

    let kubeconfig = read(admin)?;
    let context = kubeconfig
        .current_context
        .as_ref()
        .and_then(|current| kubeconfig.contexts.iter().find(|context| context.name == *current))
        .and_then(|context| context.context.as_ref());
    let cluster = context
        .and_then(|context| kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster))
        .and_then(|cluster| cluster.cluster.as_ref())
        .ok_or_else(|| Error::Unexpected(format!("no current context with a cluster in {}", admin.display())))?;
    let cluster = serde_json::to_value(cluster)
        .map_err(|error| Error::Unexpected(format!("the cluster in {}: {error}", admin.display())))?;
    write(file, &cluster, &json!({ "token": token }), namespace)
}

/// Writes a kubeconfig with a client certificate to `file`.
pub(crate) fn write_for_certificate(file: &Path, server: &str, authority: &str, identity: &Identity) -> Result<()> {
    let data = |pem: &str| ByteString(pem.as_bytes().to_vec());
    let cluster = json!({ "server": server, "certificate-authority-data": data(authority) });
    let user = json!({
        "client-certificate-data": data(&identity.certificate),
        "client-key-data": data(&identity.key),
    });
    write(file, &cluster, &user, "default")
}

fn read(file: &Path) -> Result<Kubeconfig> {
    Kubeconfig::read_from(file).map_err(|source| invalid(file, source))
}

fn invalid(file: &Path, source: kube::config::KubeconfigError) -> Error {
    Error::Kubeconfig { path: file.to_owned(), source: Box::new(source) }
}

/// Writes a kubeconfig as JSON, which is valid YAML.
fn write(file: &Path, cluster: &Value, user: &Value, namespace: &str) -> Result<()> {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": NAME, "cluster": cluster }],
        "users": [{ "name": NAME, "user": user }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME, "namespace": namespace } }],
        "current-context": NAME,
    });
    write_private(file, &format!("{kubeconfig:#}\n"))
}

/// Writes a kubeconfig for a server without authentication to `file`; `namespace` is that of its context.
pub(crate) fn write_for_plain_http(file: &Path, server: &str, namespace: &str) -> Result<()> {
    write(file, &json!({ "server": server }), &json!({}), namespace)
}
