//! The Secret that holds the key. What the API server would refuse in it is found here, before a key is made for it.

use std::collections::BTreeMap;

use crate::{
    api::{SecretFormat, user::AwsDeployUserSpec, well_known},
    domain::{
        desired::{Account, DesiredSecret, Violation},
        owner::label_value,
        secret,
        target::Target,
    },
};

pub(super) fn desired_secret(
    spec: &AwsDeployUserSpec,
    target: &Target,
    account: &Account,
    violate: &mut impl FnMut(&'static str, String),
) -> DesiredSecret {
    let key = spec.effective_access_key().cloned().unwrap_or_default();
    let mut labels = key.secret.labels.clone();
    labels.insert(well_known::LABEL_MANAGED_BY.to_owned(), crate::api::MANAGER.to_owned());
    labels.insert(well_known::LABEL_ROLE.to_owned(), "published".to_owned());
    // Label values end at 63 characters, names do not; the owner reference is the full truth.
    labels.insert(well_known::LABEL_USER.to_owned(), label_value(&target.owner.name));
    let mut annotations = key.secret.annotations.clone();
    if let Some(use_case) = key.use_case {
        annotations.insert(well_known::ANNOTATION_USE_CASE.to_owned(), use_case.as_str().to_owned());
    }
    if let Some(description) = &key.description {
        annotations.insert(well_known::ANNOTATION_DESCRIPTION.to_owned(), description.clone());
    }
    check_metadata(&key.secret.labels, &annotations, violate);
    let formats = &key.secret.formats;
    let secret = DesiredSecret {
        region: key.region.clone(),
        formats: if formats.is_empty() { SecretFormat::DEFAULT.into() } else { formats.iter().copied().collect() },
        templates: key.secret.template.clone(),
        user_name: target.user_name.clone(),
        account_id: account.id.clone(),
        labels,
        annotations,
    };
    for Violation { field, message } in secret::violations(&secret) {
        violate(field, message);
    }
    secret
}

/// Bytes of all annotations that are declared. The API server takes 256 KiB together with those of the operator.
const ANNOTATIONS_LIMIT: usize = 128 * 1024;

fn check_metadata(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    violate: &mut impl FnMut(&'static str, String),
) {
    const NAME: &str = "an optional DNS name with a slash, then at most 63 letters, digits, -, _ and ., with a letter or digit at both ends";
    for (key, value) in labels {
        if !is_qualified(key) {
            violate("accessKey.secret.labels", format!("{key:?} is no name of a label: {NAME}"));
        }
        if !value.is_empty() && !is_name(value) {
            violate(
                "accessKey.secret.labels",
                format!(
                    "{key}: {value:?} is no value of a label: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends"
                ),
            );
        }
    }
    for key in annotations.keys().filter(|key| !is_qualified(&key.to_ascii_lowercase())) {
        violate("accessKey.secret.annotations", format!("{key:?} is no name of an annotation: {NAME}"));
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len().saturating_add(value.len())).sum();
    if size > ANNOTATIONS_LIMIT {
        violate(
            "accessKey.secret.annotations",
            format!("the annotations have {size} bytes together, the operator writes at most {ANNOTATIONS_LIMIT}"),
        );
    }
}

/// The name of a label or annotation, as the API server takes it.
fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_subdomain(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let part = |part: &str| {
        let bytes = part.as_bytes();
        ends(bytes.first())
            && ends(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(part)
}
