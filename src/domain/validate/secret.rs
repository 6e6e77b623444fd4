//! Secret of the access key. Finds what the API server would reject before a key is created.

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
    // Label values have at most 63 characters; the owner reference holds the full name.
    labels.insert(well_known::LABEL_USER.to_owned(), label_value(&target.owner.name));
    let mut annotations = key.secret.annotations.clone();
    annotations.insert(well_known::ANNOTATION_RESOURCE_UID.to_owned(), target.owner.uid.clone());
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

/// The API server allows 256 KiB, including the annotations of the operator.
const MAX_ANNOTATION_BYTES: usize = 128 * 1024;

fn check_metadata(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    violate: &mut impl FnMut(&'static str, String),
) {
    const NAME: &str = "an optional DNS name with a slash, then at most 63 letters, digits, -, _ and ., with a letter or digit at both ends";
    for (key, value) in labels {
        if !is_qualified(key) {
            violate("accessKey.secret.labels", format!("{key:?} is not a label key: {NAME}"));
        }
        if !value.is_empty() && !is_name(value) {
            violate(
                "accessKey.secret.labels",
                format!(
                    "{key}: {value:?} is not a label value: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends"
                ),
            );
        }
    }
    for key in annotations.keys().filter(|key| !is_qualified(&key.to_ascii_lowercase())) {
        violate("accessKey.secret.annotations", format!("{key:?} is not an annotation key: {NAME}"));
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len().saturating_add(value.len())).sum();
    if size > MAX_ANNOTATION_BYTES {
        violate(
            "accessKey.secret.annotations",
            format!(
                "the annotations have {size} bytes in total, more than the limit of {MAX_ANNOTATION_BYTES}; shorten them"
            ),
        );
    }
}

/// Whether the API server accepts the key of a label or annotation.
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
