//! Least-privilege IAM policy of the operator. A subcommand prints it, and a test compares it with the calls that the operator
//! makes.

use serde_json::{Value, json};

use super::authorize::{admin, may_allow_a_document, pattern};
use crate::api::{AwsDeployUserClassSpec, class::Permission, well_known};

#[cfg(test)]
mod tests;

/// Reads of users below the path. Those of passwords, MFA devices, certificates and other keys follow when AWS has refused to delete a
/// user.
const READ_USERS: &[&str] = &[
    "GetAccessKeyLastUsed",
    "GetLoginProfile",
    "GetUserPolicy",
    "ListAccessKeys",
    "ListAttachedUserPolicies",
    "ListGroupsForUser",
    "ListMFADevices",
    "ListSSHPublicKeys",
    "ListServiceSpecificCredentials",
    "ListSigningCertificates",
    "ListUserPolicies",
];

/// Writes that grant permissions. All of them support the condition key `iam:PermissionsBoundary`.
const GRANT: &[&str] = &["AttachUserPolicy", "CreateUser", "PutUserPolicy"];

/// Writes that are limited by the path only: they do not support `iam:PermissionsBoundary`, or they remove permissions, which
/// must work for a user without the boundary.
const LIFECYCLE: &[&str] = &[
    "CreateAccessKey",
    "DeactivateMFADevice",
    "DeleteAccessKey",
    "DeleteLoginProfile",
    "DeleteSSHPublicKey",
    "DeleteServiceSpecificCredential",
    "DeleteSigningCertificate",
    "DeleteUser",
    "DeleteUserPolicy",
    "DetachUserPolicy",
    "TagUser",
    "UntagUser",
    "UpdateAccessKey",
];

/// Writes that set console passwords.
const PASSWORDS: &[&str] = &["CreateLoginProfile", "UpdateLoginProfile"];

/// Reads that support no narrower resource: the name of a user that differs only in case, settings of the sign-in, and the managed
/// policies below a path.
const READ_ACCOUNT: &[&str] = &["GetAccountPasswordPolicy", "ListAccountAliases", "ListPolicies", "ListUsers"];

/// Writes to managed policies.
const WRITE_POLICIES: &[&str] = &[
    "CreatePolicy",
    "CreatePolicyVersion",
    "DeletePolicy",
    "DeletePolicyVersion",
    "SetDefaultPolicyVersion",
    "TagPolicy",
    "UntagPolicy",
];

/// What managed policies of documents need. None of it supports `iam:PermissionsBoundary`: what such a policy grants takes effect
/// when it is attached, which does.
const WRITE_DOCUMENTS: &[&str] = &["CreatePolicy", "CreatePolicyVersion", "SetDefaultPolicyVersion", "TagPolicy"];

/// What the end of such a policy needs. A class that allows no documents may have allowed some before.
const REMOVE_DOCUMENTS: &[&str] = &[
    "DeletePolicy",
    "DeletePolicyVersion",
    "GetPolicy",
    "GetPolicyVersion",
    "ListEntitiesForPolicy",
    "ListPolicyVersions",
    "UntagPolicy",
];

/// AWS account that the policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsAccount {
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: String,
    pub id: String,
}

impl AwsAccount {
    fn arn(&self, rest: &str) -> String {
        format!("arn:{}:iam::{}:{rest}", self.partition, self.id)
    }

    fn users(&self, path: &str) -> String {
        self.arn(&format!("user{}*", escape(path)))
    }

    /// Managed policies of documents, which have a folder per user: no other policy below the path has this form.
    fn documents(&self, path: &str) -> String {
        self.arn(&format!("policy{}*/*+*", escape(path)))
    }

    fn policy(&self, declared: &str) -> String {
        match pattern::canonicalize(declared) {
            own if own.starts_with("arn:") => own.to_owned(),
            aws => format!("arn:{}:iam::aws:policy/{aws}", self.partition),
        }
    }
}

/// Escapes wildcards and policy variables. The CRD refuses them in paths, but a class can also come from a file.
fn escape(path: &str) -> String {
    let escaped = |c: char| if "*?$".contains(c) { format!("${{{c}}}") } else { c.to_string() };
    path.chars().map(escaped).collect()
}

/// What the operator may do for the users of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyScope {
    /// Path of the users (`users.path` of the class).
    pub path: String,
    /// ARN of the permissions boundary (`permissionsBoundary` of the class).
    pub boundary: Option<String>,
    /// Names of groups, with their path, that users may be added to. `*` matches any characters.
    pub groups: Vec<String>,
    /// Names or ARNs of managed policies that may be attached. `*` matches any characters. `None`: all policies.
    pub policies: Option<Vec<String>>,
    /// Policies such as `AdministratorAccess` may be attached.
    pub administrators: bool,
    /// Documents may be written, as inline and as managed policies.
    pub documents: bool,
    /// Console passwords may be set.
    pub console: bool,
}

impl PolicyScope {
    /// Scope of a class.
    #[must_use]
    pub fn from_class(class: &AwsDeployUserClassSpec) -> Self {
        let console = class.console == Permission::Allow;
        let allowed = &class.policies.allowed;
        let mut policies = allowed.clone();
        if console {
            policies.push("IAMUserChangePassword".to_owned());
        }
        Self {
            path: class.users.path.clone(),
            boundary: class.permissions_boundary.clone(),
            // Classes name groups without path. Group names are unique in an account regardless of the path.
            groups: class.groups.iter().flat_map(|group| [group.clone(), format!("*/{group}")]).collect(),
            policies: (!allowed.iter().any(|policy| policy == "*")).then_some(policies),
            administrators: class.acknowledge_admin_equivalent,
            documents: may_allow_a_document(class),
            console,
        }
    }

    /// Merges another class with the same path and boundary, whose users AWS cannot distinguish.
    fn merge(&mut self, other: &Self) {
        self.groups.extend(other.groups.iter().cloned());
        self.policies = match (self.policies.take(), &other.policies) {
            (Some(own), Some(other)) => Some([own, other.clone()].concat()),
            _ => None,
        };
        self.administrators |= other.administrators;
        self.documents |= other.documents;
        self.console |= other.console;
    }

    fn attaches_any(&self) -> bool {
        self.policies.is_none()
    }
}

/// Merges scopes with the same path and boundary.
fn merged(scopes: &[PolicyScope]) -> Vec<PolicyScope> {
    let mut merged: Vec<PolicyScope> = Vec::new();
    for scope in scopes {
        match merged.iter_mut().find(|known| (&known.path, &known.boundary) == (&scope.path, &scope.boundary)) {
            Some(known) => known.merge(scope),
            None => merged.push(scope.clone()),
        }
    }
    for scope in &mut merged {
        for list in [&mut scope.groups].into_iter().chain(scope.policies.as_mut()) {
            list.sort_unstable();
            list.dedup();
        }
    }
    merged
}

/// Policy document for the users of all classes. Documents of single classes cannot be combined, because each denies other
/// paths.
#[must_use]
pub fn operator_policy(account: &AwsAccount, scopes: &[PolicyScope]) -> Value {
    let scopes = merged(scopes);
    let paths = unique(scopes.iter().map(|scope| scope.path.as_str()));
    let users: Vec<String> = paths.iter().map(|path| account.users(path)).collect();
    let boundaries = unique(scopes.iter().filter_map(|scope| scope.boundary.as_deref()));
    let consoles = unique(scopes.iter().filter(|scope| scope.console).map(|scope| scope.path.as_str()));
    let groups = unique(scopes.iter().flat_map(|scope| &scope.groups).map(String::as_str));

    let mut statements = vec![
        // IAM authorizes GetUser for a missing user without its path, and a name in use at another path must be distinguished
        // from a free one.
        allow("GetUsers", &["GetUser"], &[account.arn("user/*")], None),
        // Supports no narrower resource. Detects drift of all users without calls per user.
        allow("ReadAccountDetails", &["GetAccountAuthorizationDetails"], &["*".to_owned()], None),
        allow("ReadAccount", READ_ACCOUNT, &["*".to_owned()], None),
        allow("ReadUsers", READ_USERS, &users, None),
        allow("ManageUsers", LIFECYCLE, &users, None),
        allow("DeleteVirtualMfaDevices", &["DeleteVirtualMFADevice"], &[account.arn("mfa/*")], None),
        // Removing a user from a group grants nothing.
        allow("RemoveFromGroups", &["RemoveUserFromGroup"], &[account.arn("group/*")], None),
    ];
    for (index, scope) in scopes.iter().enumerate() {
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        statements.extend(grants(account, scope, &number));
    }
    if !consoles.is_empty() {
        let users: Vec<String> = consoles.iter().map(|path| account.users(path)).collect();
        statements.push(allow("SetPasswords", PASSWORDS, &users, None));
    }
    if !boundaries.is_empty() {
        statements.push(allow("ReadBoundary", &["GetPolicy"], &boundaries, None));
    }
    let policies = |paths: &[String]| paths.iter().map(|path| account.documents(path)).collect::<Vec<_>>();
    statements.push(allow("RemoveDocuments", REMOVE_DOCUMENTS, &policies(&paths), None));
    let documents = unique(scopes.iter().filter(|scope| scope.documents).map(|scope| scope.path.as_str()));
    if !documents.is_empty() {
        statements.push(allow("WriteDocuments", WRITE_DOCUMENTS, &policies(&documents), None));
    }
    if !groups.is_empty() {
        // AddUserToGroup supports only the group as resource, not the user.
        let groups: Vec<String> = groups.iter().map(|group| account.arn(&format!("group/{group}"))).collect();
        statements.push(allow("AddToGroups", &["AddUserToGroup"], &groups, None));
    }
    statements.extend(denials(account, &scopes, &paths));
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// Statements that grant permissions to the users of one scope.
fn grants(account: &AwsAccount, scope: &PolicyScope, number: &str) -> Vec<Value> {
    let users = [account.users(&scope.path)];
    let limited =
        scope.boundary.as_ref().map(|boundary| json!({"StringEquals": {"iam:PermissionsBoundary": boundary}}));
    let names: Vec<&str> = writes_of_grants(limited.is_some())
        .into_iter()
        .filter(|action| {
            (scope.attaches_any() || *action != "AttachUserPolicy") && (scope.documents || *action != "PutUserPolicy")
        })
        .collect();
    let mut statements = vec![allow(&format!("Grant{number}"), &names, &users, limited.as_ref())];
    if let Some(policies) = scope.policies.as_ref().filter(|policies| !policies.is_empty() || scope.documents) {
        let mut condition = limited.unwrap_or_else(|| json!({}));
        let declared = policies.iter().map(|policy| account.policy(policy));
        let arns: Vec<String> = declared.chain(scope.documents.then(|| account.documents(&scope.path))).collect();
        condition["ArnLike"] = json!({"iam:PolicyARN": arns});
        statements.push(allow(&format!("Attach{number}"), &["AttachUserPolicy"], &users, Some(&condition)));
    }
    statements
}

/// Statements that deny actions even if another policy of the role allows them.
fn denials(account: &AwsAccount, scopes: &[PolicyScope], paths: &[String]) -> Vec<Value> {
    // One statement, because the size is limited: writes to policies have policies as their resource, and no users.
    let (mut writes, mut resources) = (WRITE_POLICIES.to_vec(), Vec::new());
    if !paths.iter().any(|path| path == "/") {
        let limited = scopes.iter().any(|scope| scope.boundary.is_some());
        writes.extend([&writes_of_grants(limited), LIFECYCLE, PASSWORDS].concat());
        resources.extend(paths.iter().map(|path| account.users(path)));
    }
    resources.extend(paths.iter().map(|path| account.documents(path)));
    let mut statements = vec![json!({
        "Sid": "DenyOutsidePath", "Effect": "Deny", "Action": actions(&writes), "NotResource": one_or_more(&resources),
    })];
    // Any other boundary is outside of the folders of policies of documents.
    let has_form = |boundary: &&str| boundary.rsplit('/').next().is_some_and(|name| name.contains('+'));
    let boundaries = unique(scopes.iter().filter_map(|scope| scope.boundary.as_deref()).filter(has_form));
    if !boundaries.is_empty() {
        statements.push(deny("DenyBoundaryChange", WRITE_POLICIES, &boundaries, None));
    }
    statements.push(deny("DenyBoundaryRemoval", &["DeleteUserPermissionsBoundary"], &["*".to_owned()], None));
    // Consent to an adoption must come from an AWS admin: the operator may not set the tag itself.
    let consent = json!({"ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": [well_known::TAG_ADOPTABLE_BY]}});
    statements.push(deny("DenyAdoptionConsent", &["CreateUser", "TagUser"], &["*".to_owned()], Some(&consent)));
    for (index, path) in paths.iter().enumerate() {
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        let users = [account.users(path)];
        // A path includes all paths below it, and thereby users of other classes.
        let below = || scopes.iter().filter(|scope| scope.path.starts_with(path.as_str()));
        let boundaries: Option<Vec<&str>> = below().map(|scope| scope.boundary.as_deref()).collect();
        if let Some(boundaries) = boundaries {
            let condition = json!({"StringNotEquals": {"iam:PermissionsBoundary": one_or_more(&unique(boundaries))}});
            let sid = format!("DenyOtherBoundary{number}");
            statements.push(deny(&sid, &["CreateUser", "PutUserPermissionsBoundary"], &users, Some(&condition)));
        }
        if !below().any(|scope| scope.administrators) {
            let arns: Vec<String> = admin::MANAGED_PATTERNS.iter().map(|policy| account.policy(policy)).collect();
            let condition = json!({"ArnLike": {"iam:PolicyARN": arns}});
            let sid = format!("DenyAdminPolicies{number}");
            statements.push(deny(&sid, &["AttachUserPolicy"], &users, Some(&condition)));
        }
    }
    statements
}

/// Actions that the policy allows, such as `iam:GetUser`.
#[must_use]
pub fn allowed_actions(policy: &Value) -> std::collections::BTreeSet<String> {
    let statements = policy["Statement"].as_array().into_iter().flatten();
    statements
        .filter(|statement| statement["Effect"] == "Allow")
        .flat_map(|statement| statement["Action"].as_array().into_iter().flatten())
        .filter_map(|action| action.as_str().map(str::to_owned))
        .collect()
}

fn writes_of_grants(limited: bool) -> Vec<&'static str> {
    GRANT.iter().copied().chain(limited.then_some("PutUserPermissionsBoundary")).collect()
}

fn allow(sid: &str, names: &[&str], resources: &[String], condition: Option<&Value>) -> Value {
    statement("Allow", sid, names, resources, condition)
}

fn deny(sid: &str, names: &[&str], resources: &[String], condition: Option<&Value>) -> Value {
    statement("Deny", sid, names, resources, condition)
}

fn statement(effect: &str, sid: &str, names: &[&str], resources: &[String], condition: Option<&Value>) -> Value {
    let resource = one_or_more(resources);
    let mut statement = json!({"Sid": sid, "Effect": effect, "Action": actions(names), "Resource": resource});
    if let Some(condition) = condition {
        statement["Condition"] = condition.clone();
    }
    statement
}

fn actions(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("iam:{name}")).collect()
}

fn one_or_more(texts: &[String]) -> Value {
    if let [one] = texts { json!(one) } else { json!(texts) }
}

fn unique<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
