//! The least IAM policy that the operator can do its work with. Pure: printed by a subcommand, shown in the
//! documentation, and held by a test against the calls that the operator was seen to make.

use serde_json::{Value, json};

use super::authorize::{admin, pattern};
use crate::api::{
    AwsDeployUserClassSpec,
    class::{InlinePermission, Permission},
    well_known,
};

#[cfg(test)]
mod tests;

/// Reads of users below the operator's path.
const READ_USERS: &[&str] = &[
    "GetAccessKeyLastUsed",
    "GetUserPolicy",
    "ListAccessKeys",
    "ListAttachedUserPolicies",
    "ListGroupsForUser",
    "ListUserPolicies",
];

/// What is looked for only when AWS refuses to delete a user.
const READ_LEFTOVERS: &[&str] = &[
    "GetLoginProfile",
    "ListMFADevices",
    "ListSSHPublicKeys",
    "ListServiceSpecificCredentials",
    "ListSigningCertificates",
];

/// Writes that give a user its rights. All of them know `iam:PermissionsBoundary`.
const GRANT: &[&str] = &["AttachUserPolicy", "CreateUser", "PutUserPolicy"];

/// Writes on users whose only fence is the path: IAM knows no boundary for them, or they take rights away, which must work for
/// a user that has lost its boundary, or was made before its class had one.
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

/// Setting passwords for the console.
const PASSWORDS: &[&str] = &["CreateLoginProfile", "UpdateLoginProfile"];

/// The account that the operator works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsAccount {
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: String,
    /// Account id.
    pub id: String,
}

impl AwsAccount {
    fn arn(&self, rest: &str) -> String {
        format!("arn:{}:iam::{}:{rest}", self.partition, self.id)
    }

    fn users(&self, path: &str) -> String {
        self.arn(&format!("user{path}*"))
    }

    fn policy(&self, declared: &str) -> String {
        match pattern::canonicalize(declared) {
            own if own.starts_with("arn:") => own.to_owned(),
            aws => format!("arn:{}:iam::aws:policy/{aws}", self.partition),
        }
    }
}

/// What is allowed for the users of one class, and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyScope {
    /// Path of the users (`users.path` of the class).
    pub path: String,
    /// ARN of the permissions boundary (`permissionsBoundary` of the class).
    pub boundary: Option<String>,
    /// Names of groups, with their path, that users may be put into; `*` stands for anything.
    pub groups: Vec<String>,
    /// Managed policies that may be attached, by name or ARN, `*` standing for anything. `None`: all.
    pub policies: Option<Vec<String>>,
    /// Policies such as `AdministratorAccess` may be among them.
    pub administrators: bool,
    /// Inline policies may be written.
    pub inline: bool,
    /// Passwords for the console may be set.
    pub console: bool,
}

impl PolicyScope {
    /// What the users of a class need, and no more.
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
            // A class names groups without their path, and names are unique in an account whatever the path.
            groups: class.groups.iter().flat_map(|group| [group.clone(), format!("*/{group}")]).collect(),
            policies: (!allowed.iter().any(|policy| policy == "*")).then_some(policies),
            administrators: class.acknowledge_admin_equivalent,
            inline: class.policies.inline != InlinePermission::Deny,
            console,
        }
    }

    /// Takes in what another class allows for users at the same path with the same boundary: AWS cannot tell them apart.
    fn merge(&mut self, other: &Self) {
        self.groups.extend(other.groups.iter().cloned());
        self.policies = match (self.policies.take(), &other.policies) {
            (Some(own), Some(other)) => Some([own, other.clone()].concat()),
            _ => None,
        };
        self.administrators |= other.administrators;
        self.inline |= other.inline;
        self.console |= other.console;
    }

    fn attaches_any(&self) -> bool {
        self.policies.is_none()
    }
}

/// One scope for each path and boundary.
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

/// The policy document for the users of all these classes. Documents of single classes do not add up: each denies what is
/// outside of its own path.
#[must_use]
pub fn operator_policy(account: &AwsAccount, scopes: &[PolicyScope]) -> Value {
    let scopes = merged(scopes);
    let paths = unique(scopes.iter().map(|scope| scope.path.as_str()));
    let users: Vec<String> = paths.iter().map(|path| account.users(path)).collect();
    let boundaries = unique(scopes.iter().filter_map(|scope| scope.boundary.as_deref()));
    let consoles = unique(scopes.iter().filter(|scope| scope.console).map(|scope| scope.path.as_str()));
    let groups = unique(scopes.iter().flat_map(|scope| &scope.groups).map(String::as_str));

    let mut statements = vec![
        // IAM authorises a question for a user that does not exist without any path; and a name that is taken by
        // a user elsewhere has to be told from a free one.
        allow("LookForUsers", &["GetUser"], &[account.arn("user/*")], None),
        // The API knows no narrower resource. Shows whether policies and tags of our users are as they were, without calls for each.
        allow("ReadUsersTogether", &["GetAccountAuthorizationDetails"], &["*".to_owned()], None),
        // The API knows no narrower resource. Finds out who holds a name that differs only in case.
        allow("FindNames", &["ListUsers"], &["*".to_owned()], None),
        allow("AskHowPeopleSignIn", &["GetAccountPasswordPolicy", "ListAccountAliases"], &["*".to_owned()], None),
        allow("ReadUsers", READ_USERS, &users, None),
        allow("ReadWhatBlocksADeletion", READ_LEFTOVERS, &users, None),
        allow("Lifecycle", LIFECYCLE, &users, None),
        allow("RemoveVirtualDevices", &["DeleteVirtualMFADevice"], &[account.arn("mfa/*")], None),
        // Taking somebody out of a group gives nothing to anybody.
        allow("LeaveGroups", &["RemoveUserFromGroup"], &[account.arn("group/*")], None),
    ];
    for (index, scope) in scopes.iter().enumerate() {
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        statements.extend(grants(account, scope, &number));
    }
    if !consoles.is_empty() {
        let users: Vec<String> = consoles.iter().map(|path| account.users(path)).collect();
        statements.push(allow("Passwords", PASSWORDS, &users, None));
    }
    if !boundaries.is_empty() {
        statements.push(allow("LookForTheBoundary", &["GetPolicy"], &boundaries, None));
    }
    if !groups.is_empty() {
        // Only the group can be named here, not the user: a fence around users would fence nothing.
        let groups: Vec<String> = groups.iter().map(|group| account.arn(&format!("group/{group}"))).collect();
        statements.push(allow("JoinGroups", &["AddUserToGroup"], &groups, None));
    }
    statements.extend(denials(account, &scopes, &paths));
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// What decides on the rights of users, for one class.
fn grants(account: &AwsAccount, scope: &PolicyScope, number: &str) -> Vec<Value> {
    let users = [account.users(&scope.path)];
    let limited =
        scope.boundary.as_ref().map(|boundary| json!({"StringEquals": {"iam:PermissionsBoundary": boundary}}));
    let names: Vec<&str> = writes_of_grants(limited.is_some())
        .into_iter()
        .filter(|action| {
            (scope.attaches_any() || *action != "AttachUserPolicy") && (scope.inline || *action != "PutUserPolicy")
        })
        .collect();
    let mut statements = vec![allow(&format!("Grant{number}"), &names, &users, limited.as_ref())];
    if let Some(policies) = scope.policies.as_ref().filter(|policies| !policies.is_empty()) {
        let mut condition = limited.unwrap_or_else(|| json!({}));
        let arns: Vec<String> = policies.iter().map(|policy| account.policy(policy)).collect();
        condition["ArnLike"] = json!({"iam:PolicyARN": arns});
        statements.push(allow(&format!("Attach{number}"), &["AttachUserPolicy"], &users, Some(&condition)));
    }
    statements
}

/// What stays denied even if another policy of the role allows it.
fn denials(account: &AwsAccount, scopes: &[PolicyScope], paths: &[String]) -> Vec<Value> {
    let mut statements = Vec::new();
    if !paths.iter().any(|path| path == "/") {
        let users: Vec<String> = paths.iter().map(|path| account.users(path)).collect();
        let limited = scopes.iter().any(|scope| scope.boundary.is_some());
        let writes = [&writes_of_grants(limited), LIFECYCLE, PASSWORDS].concat();
        statements.push(json!({
            "Sid": "NeverOutsideThePath", "Effect": "Deny", "Action": actions(&writes), "NotResource": one_or_more(&users),
        }));
    }
    statements.push(deny("NeverUnlimited", &["DeleteUserPermissionsBoundary"], &["*".to_owned()], None));
    // Who may take a user over is for AWS's admins to say: the operator cannot give itself their consent.
    let consent = json!({"ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": [well_known::TAG_ADOPTABLE_BY]}});
    statements.push(deny("NeverItsOwnConsent", &["CreateUser", "TagUser"], &["*".to_owned()], Some(&consent)));
    for (index, path) in paths.iter().enumerate() {
        let number = if index == 0 { String::new() } else { (index + 1).to_string() };
        let users = [account.users(path)];
        // A path covers all paths below it, and so the users of other classes.
        let below = || scopes.iter().filter(|scope| scope.path.starts_with(path.as_str()));
        let boundaries: Option<Vec<&str>> = below().map(|scope| scope.boundary.as_deref()).collect();
        if let Some(boundaries) = boundaries {
            let condition = json!({"StringNotEquals": {"iam:PermissionsBoundary": one_or_more(&unique(boundaries))}});
            let sid = format!("NeverOtherwiseLimited{number}");
            statements.push(deny(&sid, &["CreateUser", "PutUserPermissionsBoundary"], &users, Some(&condition)));
        }
        if !below().any(|scope| scope.administrators) {
            let arns: Vec<String> = admin::MANAGED_PATTERNS.iter().map(|policy| account.policy(policy)).collect();
            let condition = json!({"ArnLike": {"iam:PolicyARN": arns}});
            let sid = format!("NeverAdministrators{number}");
            statements.push(deny(&sid, &["AttachUserPolicy"], &users, Some(&condition)));
        }
    }
    statements
}

/// The actions that a policy of this form allows, as `iam:GetUser`.
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
