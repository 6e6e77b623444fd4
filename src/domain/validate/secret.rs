//! The Secret that holds the key.

use crate::{
    api::{SecretFormat, mark, user::AwsDeployUserSpec},
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
    let key = spec.programmatic().cloned().unwrap_or_default();
    let mut labels = key.secret.labels.clone();
    labels.insert(mark::LABEL_MANAGED_BY.to_owned(), crate::api::MANAGER.to_owned());
    labels.insert(mark::LABEL_ROLE.to_owned(), "published".to_owned());
    // Label values end at 63 characters, names do not; the owner reference is the full truth.
    labels.insert(mark::LABEL_USER.to_owned(), label_value(&target.owner.name));
    let mut annotations = key.secret.annotations.clone();
    if let Some(use_case) = key.use_case {
        annotations.insert(mark::ANNOTATION_USE_CASE.to_owned(), use_case.as_str().to_owned());
    }
    if let Some(description) = &key.description {
        annotations.insert(mark::ANNOTATION_DESCRIPTION.to_owned(), description.clone());
    }
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
