//! Names of the objects of a resource. They do not depend on whether the resource is valid.

use sha2::{Digest, Sha256};

use super::{account, owner::Owner};
use crate::api::{AwsDeployUser, user::AwsDeployUserSpec, well_known};

/// Names of the objects of a resource, derived from the resource and its class only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub owner: Owner,
    /// Name of the IAM user.
    pub user_name: String,
    /// Name of the Secret that holds the key.
    pub secret_name: String,
    /// Name of the journal Secret in the operator's namespace.
    pub journal_name: String,
}

impl Target {
    /// Names of the objects of this resource. `None` without namespace, name or UID, which the API server always sets.
    #[must_use]
    pub fn from_resource(user: &AwsDeployUser, cluster: &str) -> Option<Self> {
        let meta = &user.metadata;
        let (namespace, name, uid) = (meta.namespace.clone()?, meta.name.clone()?, meta.uid.clone()?);
        Some(Self {
            user_name: user.spec.user_name.clone().unwrap_or_else(|| format!("{namespace}_{name}")),
            secret_name: match user.spec.effective_access_key() {
                Some(key) => key.secret.name.clone().unwrap_or_else(|| name.clone()),
                // No key is declared: the Secret of an earlier key, if there is one, has to be deleted.
                None => recorded_secret_name(user).unwrap_or_else(|| name.clone()),
            },
            journal_name: format!("{}{uid}", well_known::JOURNAL_PREFIX),
            owner: Owner { cluster: cluster.to_owned(), namespace, name, uid },
        })
    }

    /// Sets the name of the IAM user: the recorded one, else the declared one, else from the template of the class. A resource
    /// keeps the recorded name, whatever changes later.
    #[must_use]
    pub fn with_user_name(self, user: &AwsDeployUser, template: Option<&str>) -> Self {
        let rendered = || match (&user.spec.user_name, template) {
            (None, Some(template)) => render_name(template, &self.owner),
            _ => self.user_name.clone(),
        };
        let user_name = account::recorded_user(user).map_or_else(rendered, |recorded| recorded.name.clone());
        Self { user_name, ..self }
    }
}

/// Renders the `nameTemplate` of a class.
fn render_name(template: &str, owner: &Owner) -> String {
    let digest = Sha256::digest(format!("{}/{}/{}", owner.cluster, owner.namespace, owner.name));
    let hash = digest.iter().take(4).fold(0_u32, |hash, byte| hash << 8 | u32::from(*byte));
    let hash = format!("{hash:08x}");
    template.replace("{namespace}", &owner.namespace).replace("{name}", &owner.name).replace("{hash}", &hash)
}

/// Name of the Secret of the last published key.
pub(super) fn recorded_secret_name(user: &AwsDeployUser) -> Option<String> {
    user.status.as_ref().and_then(|status| status.secret_name.clone())
}

/// Name of the Secret for the console password, if console access is declared.
#[must_use]
pub fn console_secret_name(name: &str, spec: &AwsDeployUserSpec) -> Option<String> {
    spec.console.as_ref().map(|console| console.secret_name.clone().unwrap_or_else(|| format!("{name}-console")))
}
