//! Inline policies of a resource: authorization, and rendering of the class's templates.

use serde_json::Value;

use super::{admin, template};
use crate::api::{
    AwsDeployUser, AwsDeployUserClass,
    class::{ClassPolicies, InlinePermission},
    user::InlinePolicy,
};

/// Replaces templates by the rendered documents, so that every inline policy is a document from here on.
pub(super) fn render_documents(
    name: &str,
    class: &AwsDeployUserClass,
    namespace: &str,
    user: &mut AwsDeployUser,
    violate: &mut impl FnMut(&'static str, String),
) {
    let account = class.spec.account.as_ref().map(|account| account.id.as_str());
    let own = template::builtin_values(namespace, user.metadata.name.as_deref(), account);
    for inline in &mut user.spec.policies.inline {
        let document = match document(&class.spec.policies, inline, &own) {
            Ok(document) => document,
            Err(faults) => {
                for fault in faults {
                    violate("policies.inline", format!("class {name} {fault}"));
                }
                continue;
            }
        };
        if let Some(why) = admin::escalation_reason(&document).filter(|_| !class.spec.acknowledge_admin_equivalent) {
            violate(
                "policies.inline",
                format!(
                    "{} makes the holder of the key an administrator of the account ({why}), and class {name} does not set acknowledgeAdminEquivalent",
                    inline.name
                ),
            );
        }
        *inline =
            InlinePolicy { name: std::mem::take(&mut inline.name), document: Some(document), ..Default::default() };
    }
}

/// Document of an inline policy.
///
/// # Errors
/// Why the class denies it. The texts continue "class <name> ".
fn document(rules: &ClassPolicies, inline: &InlinePolicy, own: &template::Values) -> Result<Value, Vec<String>> {
    let policy = &inline.name;
    let refuse = |why: String| Err(vec![why]);
    let templates = || {
        let all: Vec<String> = rules.templates.iter().map(template::signature).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    match (rules.inline, &inline.document, &inline.template) {
        (InlinePermission::Deny, ..) => refuse(format!("does not allow inline policies, but {policy} is declared")),
        (_, Some(_), Some(_)) | (_, None, None) => {
            refuse(format!("needs either document or template for the inline policy {policy}"))
        }
        (InlinePermission::TemplatesOnly, Some(_), None) => refuse(format!(
            "allows inline policies from its templates only, but {policy} has a document; templates: {}",
            templates()
        )),
        (InlinePermission::Allow, Some(document), None) => Ok(document.clone()),
        (_, None, Some(wanted)) => match rules.templates.iter().find(|template| template.name == *wanted) {
            None => {
                refuse(format!("has no template {wanted} for the inline policy {policy}; templates: {}", templates()))
            }
            Some(template) => template::render(template, &inline.parameters, own).map_err(|faults| {
                faults.into_iter().map(|fault| format!("does not allow the inline policy {policy}: {fault}")).collect()
            }),
        },
    }
}
