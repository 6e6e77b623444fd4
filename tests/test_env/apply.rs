//! Resources are created and edited as the tools of people do it. What they leave in an object differs: annotations, labels,
//! field managers, and what an edit that omits a field removes.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    sync::{Mutex, PoisonError},
};

use awsdeploy::api::AwsDeployUser;
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::{Request, Status},
};
use serde_json::{Map, Value, json};

/// Annotation of client-side apply: the manifest of the last one.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const MAX_TRIES: usize = 5;

/// A tool, with the way in which it writes objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApplyMethod {
    /// `kubectl apply`: a POST with the manifest in an annotation, then merge patches of what differs.
    Kubectl,
    /// `kubectl apply --server-side`.
    KubectlServerSide,
    /// `helm upgrade --install`: a POST, then merge patches of what differs between two manifests. For custom resources helm
    /// compares the object with neither.
    Helm,
    /// Argo CD with server-side apply.
    ArgoCd,
}

impl ApplyMethod {
    pub(crate) const ALL: [Self; 4] = [Self::Kubectl, Self::KubectlServerSide, Self::Helm, Self::ArgoCd];

    /// The field manager.
    pub(crate) fn manager(self) -> &'static str {
        match self {
            Self::Kubectl => "kubectl-client-side-apply",
            Self::KubectlServerSide => "kubectl",
            Self::Helm => "helm",
            Self::ArgoCd => "argocd-controller",
        }
    }

    /// Adds what the tool marks its objects with.
    fn mark(self, manifest: &mut Value) {
        match self {
            Self::KubectlServerSide => {}
            Self::Kubectl => {
                manifest["metadata"]["annotations"] = json!({});
                let mut text = manifest.clone();
                text.sort_all_objects();
                manifest["metadata"]["annotations"] = json!({LAST_APPLIED: format!("{text}\n")});
            }
            Self::Helm => {
                manifest["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
                manifest["metadata"]["annotations"] = json!({
                    "meta.helm.sh/release-name": "deploy",
                    "meta.helm.sh/release-namespace": manifest["metadata"]["namespace"],
                });
            }
            Self::ArgoCd => {
                let text = |name: &str| manifest["metadata"][name].as_str().unwrap_or_default().to_owned();
                let id = format!("deploy:awsdeploy.dev/AwsDeployUser:{}/{}", text("namespace"), text("name"));
                manifest["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": id});
            }
        }
    }
}

/// Applies resources, each with a method that follows from a seed and its name.
pub(crate) struct Applier {
    seed: u64,
    /// The last manifests that helm applied, by name: the release.
    manifests: Mutex<BTreeMap<String, Value>>,
}

impl Applier {
    /// The seed is that of the environment variable `APPLY_SEED`; without it, it follows from the namespace.
    pub(super) fn new(namespace: &str) -> Self {
        let given = std::env::var("APPLY_SEED").ok().and_then(|seed| seed.parse().ok());
        Self { seed: given.unwrap_or_else(|| hash(namespace) % 1_000_000), manifests: Mutex::default() }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn method_of(&self, name: &str) -> ApplyMethod {
        let number = hash((self.seed, name)) % ApplyMethod::ALL.len() as u64;
        ApplyMethod::ALL[usize::try_from(number).unwrap_or_default()]
    }

    /// Applies a manifest with strict validation: an unknown field is refused. With `dry_run` nothing is stored.
    pub(super) async fn apply(
        &self,
        client: &Client,
        method: ApplyMethod,
        mut manifest: Value,
        dry_run: bool,
    ) -> kube::Result<AwsDeployUser> {
        method.mark(&mut manifest);
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let users: Api<AwsDeployUser> = Api::namespaced(client.clone(), &namespace);
        if matches!(method, ApplyMethod::KubectlServerSide | ApplyMethod::ArgoCd) {
            let params = PatchParams { dry_run, ..PatchParams::apply(method.manager()).force().validation_strict() };
            return users.patch(&name, &params, &Patch::Apply(&manifest)).await;
        }
        let objects: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &namespace, &ApiResource::erase::<AwsDeployUser>(&()));
        let raced = |status: &Status| status.is_not_found() || status.is_already_exists();
        let mut tries = 0;
        // An object that is created or deleted between two requests: people run the command again.
        loop {
            tries += 1;
            let result = match objects.get_opt(&name).await? {
                None => create(client, method, &namespace, &manifest, dry_run).await,
                Some(current) => {
                    let current = serde_json::to_value(&current).unwrap_or_default();
                    let patch = self.edit(method, &name, &manifest, &current);
                    let params = PatchParams {
                        dry_run,
                        field_manager: Some(method.manager().to_owned()),
                        ..PatchParams::default().validation_strict()
                    };
                    users.patch(&name, &params, &Patch::Merge(&patch)).await
                }
            };
            match result {
                Err(kube::Error::Api(status)) if raced(&status) && tries < MAX_TRIES => {}
                Err(error) => return Err(error),
                Ok(applied) => {
                    if method == ApplyMethod::Helm && !dry_run {
                        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
                        manifests.insert(name, manifest);
                    }
                    return Ok(applied);
                }
            }
        }
    }

    fn edit(&self, method: ApplyMethod, name: &str, manifest: &Value, current: &Value) -> Value {
        if method == ApplyMethod::Helm {
            let manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
            let previous = manifests.get(name).unwrap_or(&Value::Null);
            return merge_patch(previous, manifest, previous);
        }
        let annotation = current["metadata"]["annotations"][LAST_APPLIED].as_str();
        let previous = annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
        merge_patch(&previous, manifest, current)
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("objects were applied with APPLY_SEED={}", self.seed);
        }
    }
}

fn hash(text: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A POST with strict validation.
async fn create(
    client: &Client,
    method: ApplyMethod,
    namespace: &str,
    manifest: &Value,
    dry_run: bool,
) -> kube::Result<AwsDeployUser> {
    let params = PostParams { dry_run, field_manager: Some(method.manager().to_owned()) };
    let request = Request::new(AwsDeployUser::url_path(&(), Some(namespace)));
    let mut request = request.create(&params, manifest.to_string().into_bytes()).map_err(kube::Error::BuildRequest)?;
    let strict = format!("{}&fieldValidation=Strict", request.uri());
    *request.uri_mut() = strict.parse().expect("a URI");
    client.request(request).await
}

/// The JSON merge patch of a three-way merge: what the manifest does not name any more is removed, and what the object has
/// otherwise is set. Lists are replaced as a whole, since custom resources have no strategic merge.
fn merge_patch(previous: &Value, manifest: &Value, current: &Value) -> Value {
    let empty = Map::new();
    let fields = |value: &'_ Value| value.as_object().cloned().unwrap_or_default();
    let wanted = manifest.as_object().unwrap_or(&empty);
    let mut patch: Map<String, Value> = fields(previous)
        .into_iter()
        .filter(|(name, _)| !wanted.contains_key(name))
        .map(|(name, _)| (name, Value::Null))
        .collect();
    for (name, value) in wanted {
        match (value, &current[name]) {
            (Value::Object(_), Value::Object(_)) => {
                let nested = merge_patch(&previous[name], value, &current[name]);
                if nested.as_object().is_some_and(|nested| !nested.is_empty()) {
                    patch.insert(name.clone(), nested);
                }
            }
            (value, found) if value != found => drop(patch.insert(name.clone(), value.clone())),
            _ => {}
        }
    }
    Value::Object(patch)
}
