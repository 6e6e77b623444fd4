//! Policy documents of a resource: authorization, and rendering of the class's templates.

use serde_json::Value;

use super::template;
use crate::api::{
    AwsDeployUser, AwsDeployUserClass, AwsDeployUserClassSpec, class::DocumentPermission, user::DeclaredDocument,
};

/// Whether resources may have documents of their own. A document can grant any permission, so the class needs a limit that does
/// not depend on what the document says, or the consent to administrators. The CRD refuses a class without either.
#[must_use]
pub fn allows_documents(class: &AwsDeployUserClassSpec) -> bool {
    class.policies.documents == DocumentPermission::Allow
        && (class.permissions_boundary.is_some() || class.acknowledge_admin_equivalent)
}

/// Whether resources may have some document, their own or one of a template.
#[must_use]
pub fn may_allow_a_document(class: &AwsDeployUserClassSpec) -> bool {
    let policies = &class.policies;
    allows_documents(class) || (policies.documents != DocumentPermission::Deny && !policies.templates.is_empty())
}

/// Replaces templates by the rendered documents, so that only documents are declared from here on.
pub(super) fn render_documents(
    name: &str,
    class: &AwsDeployUserClass,
    namespace: &str,
    user: &mut AwsDeployUser,
    violate: &mut impl FnMut(&'static str, String),
) {
    let account = class.spec.account.as_ref().map(|account| account.id.as_str());
    let own = template::builtin_values(namespace, user.metadata.name.as_deref(), account);
    for declared in &mut user.spec.policies.documents {
        let document = match document(&class.spec, declared, &own) {
            Ok(document) => document,
            Err(faults) => {
                for fault in faults {
                    violate("policies.documents", format!("class {name} {fault}"));
                }
                continue;
            }
        };
        *declared = DeclaredDocument {
            name: std::mem::take(&mut declared.name),
            document: Some(document),
            placement: declared.placement,
            ..DeclaredDocument::default()
        };
    }
}

/// The document that is declared.
///
/// # Errors
/// Why the class denies it. The texts continue "class <name> ".
fn document(
    class: &AwsDeployUserClassSpec,
    declared: &DeclaredDocument,
    own: &template::Values,
) -> Result<Value, Vec<String>> {
    let rules = &class.policies;
    let policy = &declared.name;
    let refuse = |why: String| Err(vec![why]);
    let templates = || {
        let all: Vec<String> = rules.templates.iter().map(template::signature).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    match (rules.documents, &declared.document, &declared.template) {
        (DocumentPermission::Deny, ..) => refuse(format!("does not allow policy documents, but {policy} is declared")),
        (_, Some(_), Some(_)) | (_, None, None) => refuse(format!("needs either document or template for {policy}")),
        (DocumentPermission::TemplatesOnly, Some(_), None) => refuse(format!(
            "allows documents from its templates only, but {policy} has one of its own; templates: {}",
            templates()
        )),
        (DocumentPermission::Allow, Some(document), None) if allows_documents(class) => Ok(document.clone()),
        (DocumentPermission::Allow, Some(_), None) => refuse(format!(
            "has neither permissionsBoundary nor acknowledgeAdminEquivalent, which the document of {policy} needs, because a document can grant any permission; ask a cluster admin to set one of them"
        )),
        (_, None, Some(wanted)) => match rules.templates.iter().find(|template| template.name == *wanted) {
            None => refuse(format!("has no template {wanted} for {policy}; templates: {}", templates())),
            Some(template) => template::render(template, &declared.parameters, own).map_err(|faults| {
                faults.into_iter().map(|fault| format!("does not allow {policy}: {fault}")).collect()
            }),
        },
    }
}
