//! Names and content of Secrets. Other controllers act on them, and a tenant may have no right to write Secrets itself.

use super::{check_pattern, list, pattern};
use crate::{
    api::{
        AwsDeployUser,
        class::{ClassSecrets, SAFE_LABEL_KEYS},
    },
    domain::target::{Target, console_secret_name},
};

/// Checks the Secrets of a resource against the rules of its class.
pub(super) fn check(
    name: &str,
    rules: &ClassSecrets,
    user: &AwsDeployUser,
    target: &Target,
    violate: &mut impl FnMut(&'static str, String),
) {
    let key = user.spec.effective_access_key();
    let names = [
        ("accessKey.secret.name", key.map(|_| target.secret_name.clone())),
        ("console.secretName", console_secret_name(&target.owner.name, &user.spec)),
    ];
    for (field, secret) in names {
        let Some(secret) = secret else { continue };
        if let Err(why) = check_pattern(name, "secrets.namePattern", &rules.name_pattern, "Secret name", &secret) {
            violate(field, why);
        }
    }
    let Some(key) = key else { return };
    let allows = |allowed: &[String], key: &str| allowed.iter().any(|pattern| pattern::matches(pattern, key));
    let secret = &key.secret;
    for label in secret.labels.keys() {
        if !SAFE_LABEL_KEYS.contains(&label.as_str()) && !allows(&rules.label_keys, label) {
            violate(
                "accessKey.secret.labels",
                format!(
                    "class {name} does not allow the label {label}; it allows {} and: {}",
                    SAFE_LABEL_KEYS.join(", "),
                    list(&rules.label_keys)
                ),
            );
        }
    }
    for annotation in secret.annotations.keys().filter(|key| !allows(&rules.annotation_keys, key)) {
        violate(
            "accessKey.secret.annotations",
            format!(
                "class {name} does not allow the annotation {annotation}; it allows: {}",
                list(&rules.annotation_keys)
            ),
        );
    }
    for data_key in secret.template.keys().filter(|key| !allows(&rules.template_keys, key)) {
        violate(
            "accessKey.secret.template",
            format!(
                "class {name} does not allow a template for the data key {data_key}; it allows: {}",
                list(&rules.template_keys)
            ),
        );
    }
}
