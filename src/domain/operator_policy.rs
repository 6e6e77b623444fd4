//! The least IAM policy that the operator can do its work with. Pure: printed by a subcommand, shown in the
//! documentation, and held by a test against the calls that the operator was seen to make.

use serde_json::{Value, json};

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

/// Writes that decide what a user may do. All of them know `iam:PermissionsBoundary`.
const GRANT: &[&str] = &["AttachUserPolicy", "CreateUser", "DeleteUserPolicy", "DetachUserPolicy", "PutUserPolicy"];

/// Writes on users that know no boundary: the path is their only fence.
const LIFECYCLE: &[&str] = &[
    "CreateAccessKey",
    "CreateLoginProfile",
    "DeactivateMFADevice",
    "DeleteAccessKey",
    "DeleteLoginProfile",
    "DeleteSSHPublicKey",
    "DeleteServiceSpecificCredential",
    "DeleteSigningCertificate",
    "DeleteUser",
    "TagUser",
    "UntagUser",
    "UpdateAccessKey",
    "UpdateLoginProfile",
];

/// Where the operator works, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: String,
    /// Account id.
    pub account: String,
    /// Path of the users (`--user-path`).
    pub path: String,
    /// ARN of the permissions boundary (`--permissions-boundary`).
    pub boundary: Option<String>,
    /// Names of groups, with their path, that users may be put into.
    pub groups: Vec<String>,
}

/// The policy document.
#[must_use]
pub fn operator_policy(scope: &Scope) -> Value {
    let arn = |rest: &str| format!("arn:{}:iam::{}:{rest}", scope.partition, scope.account);
    let users = arn(&format!("user{}*", scope.path));
    let everybody = arn("user/*");
    let limited =
        scope.boundary.as_ref().map(|boundary| json!({"StringEquals": {"iam:PermissionsBoundary": boundary}}));
    let grants: Vec<&str> =
        GRANT.iter().copied().chain(limited.is_some().then_some("PutUserPermissionsBoundary")).collect();

    let mut statements = vec![
        // IAM authorises a question for a user that does not exist without any path; and a name that is taken by
        // a user elsewhere has to be told from a free one.
        allow("LookForUsers", &["GetUser"], &json!(everybody), None),
        // The API knows no narrower resource. Finds out who holds a name that differs only in case.
        allow("FindNames", &["ListUsers"], &json!("*"), None),
        allow("AskHowPeopleSignIn", &["GetAccountPasswordPolicy", "ListAccountAliases"], &json!("*"), None),
        allow("ReadUsers", READ_USERS, &json!(users), None),
        allow("ReadWhatBlocksADeletion", READ_LEFTOVERS, &json!(users), None),
        allow("Grant", &grants, &json!(users), limited.as_ref()),
        allow("Lifecycle", LIFECYCLE, &json!(users), None),
        allow("RemoveVirtualDevices", &["DeleteVirtualMFADevice"], &json!(arn("mfa/*")), None),
        // Taking somebody out of a group gives nothing to anybody.
        allow("LeaveGroups", &["RemoveUserFromGroup"], &json!(arn("group/*")), None),
    ];
    if let Some(boundary) = &scope.boundary {
        statements.push(allow("LookForTheBoundary", &["GetPolicy"], &json!(boundary), None));
    }
    if !scope.groups.is_empty() {
        // Only the group can be named here, not the user: a fence around users would fence nothing.
        let groups: Vec<String> = scope.groups.iter().map(|group| arn(&format!("group/{group}"))).collect();
        statements.push(allow("JoinGroups", &["AddUserToGroup"], &json!(groups), None));
    }
    if scope.path != "/" {
        let writes: Vec<&str> = grants.iter().chain(LIFECYCLE).copied().collect();
        statements.push(json!({
            "Sid": "NeverOutsideThePath", "Effect": "Deny", "Action": actions(&writes), "NotResource": users,
        }));
    }
    statements.push(json!({
        "Sid": "NeverUnlimited", "Effect": "Deny", "Action": actions(&["DeleteUserPermissionsBoundary"]), "Resource": "*",
    }));
    if let Some(boundary) = &scope.boundary {
        statements.push(json!({
            "Sid": "NeverOtherwiseLimited", "Effect": "Deny",
            "Action": actions(&["CreateUser", "PutUserPermissionsBoundary"]), "Resource": "*",
            "Condition": {"StringNotEquals": {"iam:PermissionsBoundary": boundary}},
        }));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
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

fn allow(sid: &str, names: &[&str], resource: &Value, condition: Option<&Value>) -> Value {
    let mut statement = json!({"Sid": sid, "Effect": "Allow", "Action": actions(names), "Resource": resource});
    if let Some(condition) = condition {
        statement["Condition"] = condition.clone();
    }
    statement
}

fn actions(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("iam:{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Service Authorization Reference says of each action: its resource, and whether it knows
    /// `iam:PermissionsBoundary`.
    const REFERENCE: &[(&str, &str, bool)] = &[
        ("AddUserToGroup", "group", false),
        ("AttachUserPolicy", "user", true),
        ("CreateAccessKey", "user", false),
        ("CreateLoginProfile", "user", false),
        ("CreateUser", "user", true),
        ("GetAccountPasswordPolicy", "*", false),
        ("ListAccountAliases", "*", false),
        ("UpdateLoginProfile", "user", false),
        ("DeactivateMFADevice", "user", false),
        ("DeleteAccessKey", "user", false),
        ("DeleteLoginProfile", "user", false),
        ("DeleteSSHPublicKey", "user", false),
        ("DeleteServiceSpecificCredential", "user", false),
        ("DeleteSigningCertificate", "user", false),
        ("DeleteUser", "user", false),
        ("DeleteUserPermissionsBoundary", "user", true),
        ("DeleteUserPolicy", "user", true),
        ("DeleteVirtualMFADevice", "mfa", false),
        ("DetachUserPolicy", "user", true),
        ("GetAccessKeyLastUsed", "user", false),
        ("GetLoginProfile", "user", false),
        ("GetUser", "user", false),
        ("GetPolicy", "policy", false),
        ("GetUserPolicy", "user", false),
        ("ListAccessKeys", "user", false),
        ("ListAttachedUserPolicies", "user", false),
        ("ListGroupsForUser", "user", false),
        ("ListMFADevices", "user", false),
        ("ListSSHPublicKeys", "user", false),
        ("ListServiceSpecificCredentials", "user", false),
        ("ListSigningCertificates", "user", false),
        ("ListUserPolicies", "user", false),
        ("ListUsers", "*", false),
        ("PutUserPermissionsBoundary", "user", true),
        ("PutUserPolicy", "user", true),
        ("RemoveUserFromGroup", "group", false),
        ("TagUser", "user", false),
        ("UntagUser", "user", false),
        ("UpdateAccessKey", "user", false),
    ];

    fn scope() -> Scope {
        Scope {
            partition: "aws".into(),
            account: "123456789012".into(),
            path: "/awsdeploy/".into(),
            boundary: Some("arn:aws:iam::123456789012:policy/deploy-boundary".into()),
            groups: vec!["deployers".into()],
        }
    }

    fn listed(value: &Value) -> Vec<String> {
        match value {
            Value::Array(values) => values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect(),
            value => value.as_str().map(str::to_owned).into_iter().collect(),
        }
    }

    #[test]
    fn every_action_knows_the_resource_and_the_condition_it_is_given() {
        for scope in [scope(), Scope { boundary: None, groups: vec![], path: "/".into(), ..scope() }] {
            for statement in operator_policy(&scope)["Statement"].as_array().unwrap() {
                for action in listed(&statement["Action"]) {
                    let name = action.strip_prefix("iam:").unwrap();
                    let (_, resource, boundary) =
                        REFERENCE.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("{name}"));
                    let given = [listed(&statement["Resource"]), listed(&statement["NotResource"])].concat();
                    for given in given.iter().filter(|given| *given != "*") {
                        assert!(given.contains(&format!(":{resource}/")), "{name} on {given}");
                    }
                    if statement["Effect"] == "Allow" && *resource != "*" {
                        assert!(!given.contains(&"*".to_owned()), "{name} is allowed on everything");
                    }
                    assert!(statement["Condition"].is_null() || *boundary, "{name} knows no boundary");
                }
            }
        }
    }

    #[test]
    fn with_a_boundary_every_grant_asks_for_it_and_nothing_takes_it_away() {
        let policy = operator_policy(&scope());
        for statement in policy["Statement"].as_array().unwrap() {
            let grants = listed(&statement["Action"]).iter().any(|action| action == "iam:AttachUserPolicy");
            if grants && statement["Effect"] == "Allow" {
                assert_eq!(
                    statement["Condition"]["StringEquals"]["iam:PermissionsBoundary"],
                    "arn:aws:iam::123456789012:policy/deploy-boundary"
                );
            }
        }
        assert!(!allowed_actions(&policy).contains("iam:DeleteUserPermissionsBoundary"));
        assert!(
            !allowed_actions(&operator_policy(&Scope { boundary: None, ..scope() }))
                .contains("iam:PutUserPermissionsBoundary")
        );
        assert!(
            !allowed_actions(&operator_policy(&Scope { groups: vec![], ..scope() })).contains("iam:AddUserToGroup")
        );
    }

    #[test]
    fn writes_stay_below_the_path_of_the_accounts_own_partition() {
        let scope = Scope { partition: "aws-cn".into(), path: "/a/b/".into(), ..scope() };
        let policy = operator_policy(&scope).to_string();
        assert!(policy.contains(r#""NotResource":"arn:aws-cn:iam::123456789012:user/a/b/*""#), "{policy}");
        assert!(!policy.contains("arn:aws:iam::123456789012:user"), "{policy}");
    }

    #[test]
    fn it_fits_into_one_managed_policy() {
        let size = crate::domain::policy::size(&operator_policy(&scope()));
        assert!(size <= 6144, "{size}");
    }
}
