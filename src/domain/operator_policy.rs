//! The least IAM policy that the operator can do its work with. Pure: printed by a subcommand, shown in the
//! documentation, and held by a test against the calls that the operator was seen to make.

use serde_json::{Value, json};

use super::authorize::pattern;
use crate::api::{AwsDeployUserClassSpec, class::Permission, mark};

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
    /// Path of the users (`users.path` of the class).
    pub path: String,
    /// ARN of the permissions boundary (`permissionsBoundary` of the class).
    pub boundary: Option<String>,
    /// Names of groups, with their path, that users may be put into; `*` stands for anything.
    pub groups: Vec<String>,
    /// ARNs of managed policies that may be attached, `*` standing for anything. `None`: all.
    pub policies: Option<Vec<String>>,
    /// Inline policies may be written.
    pub inline: bool,
    /// Passwords for the console may be set.
    pub console: bool,
}

impl Scope {
    /// What the users of a class need, and no more.
    #[must_use]
    pub fn of_class(class: &AwsDeployUserClassSpec, account: &str, partition: &str) -> Self {
        let console = class.console == Permission::Allow;
        let arn = |policy: &str| match pattern::canonical(policy) {
            own if own.starts_with("arn:") => own.to_owned(),
            aws => format!("arn:{partition}:iam::aws:policy/{aws}"),
        };
        let allowed = &class.policies.allowed;
        let mut policies: Vec<String> = allowed.iter().map(|policy| arn(policy)).collect();
        if console {
            policies.push(arn("IAMUserChangePassword"));
        }
        Self {
            partition: partition.to_owned(),
            account: account.to_owned(),
            path: class.users.path.clone(),
            boundary: class.permissions_boundary.clone(),
            groups: class.groups.clone(),
            policies: (!allowed.iter().any(|policy| policy == "*")).then_some(policies),
            inline: class.policies.inline == Permission::Allow,
            console,
        }
    }
}

/// The policy document.
#[must_use]
pub fn operator_policy(scope: &Scope) -> Value {
    let arn = |rest: &str| format!("arn:{}:iam::{}:{rest}", scope.partition, scope.account);
    let users = arn(&format!("user{}*", scope.path));
    let everybody = arn("user/*");
    let limited =
        scope.boundary.as_ref().map(|boundary| json!({"StringEquals": {"iam:PermissionsBoundary": boundary}}));
    let all: Vec<&str> =
        GRANT.iter().copied().chain(limited.is_some().then_some("PutUserPermissionsBoundary")).collect();
    let attaches_any = scope.policies.is_none();
    let grants: Vec<&str> = all
        .iter()
        .copied()
        .filter(|action| {
            (attaches_any || *action != "AttachUserPolicy") && (scope.inline || *action != "PutUserPolicy")
        })
        .collect();
    let lifecycle: Vec<&str> = LIFECYCLE
        .iter()
        .copied()
        .filter(|action| scope.console || !["CreateLoginProfile", "UpdateLoginProfile"].contains(action))
        .collect();

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
        allow("Lifecycle", &lifecycle, &json!(users), None),
        allow("RemoveVirtualDevices", &["DeleteVirtualMFADevice"], &json!(arn("mfa/*")), None),
        // Taking somebody out of a group gives nothing to anybody.
        allow("LeaveGroups", &["RemoveUserFromGroup"], &json!(arn("group/*")), None),
    ];
    if let Some(policies) = scope.policies.as_ref().filter(|policies| !policies.is_empty()) {
        let mut condition = limited.clone().unwrap_or_else(|| json!({}));
        condition["ArnLike"] = json!({"iam:PolicyARN": policies});
        statements.push(allow("Attach", &["AttachUserPolicy"], &json!(users), Some(&condition)));
    }
    if let Some(boundary) = &scope.boundary {
        statements.push(allow("LookForTheBoundary", &["GetPolicy"], &json!(boundary), None));
    }
    if !scope.groups.is_empty() {
        // Only the group can be named here, not the user: a fence around users would fence nothing.
        let groups: Vec<String> = scope.groups.iter().map(|group| arn(&format!("group/{group}"))).collect();
        statements.push(allow("JoinGroups", &["AddUserToGroup"], &json!(groups), None));
    }
    if scope.path != "/" {
        let writes: Vec<&str> = all.iter().chain(LIFECYCLE).copied().collect();
        statements.push(json!({
            "Sid": "NeverOutsideThePath", "Effect": "Deny", "Action": actions(&writes), "NotResource": users,
        }));
    }
    statements.push(json!({
        "Sid": "NeverUnlimited", "Effect": "Deny", "Action": actions(&["DeleteUserPermissionsBoundary"]), "Resource": "*",
    }));
    // Who may take a user over is for AWS's admins to say: the operator cannot give itself their consent.
    statements.push(json!({
        "Sid": "NeverItsOwnConsent", "Effect": "Deny", "Action": actions(&["CreateUser", "TagUser"]), "Resource": "*",
        "Condition": {"ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": [mark::TAG_ADOPTABLE_BY]}},
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

    /// Actions that know `aws:TagKeys`.
    const TAGGING: &[&str] = &["CreateUser", "TagUser", "UntagUser"];

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
            policies: None,
            inline: true,
            console: true,
        }
    }

    /// Whether AWS would let the operator do this: an explicit Deny wins, and what nothing allows is denied. Knows the
    /// conditions that the policy uses, and fails on any other.
    fn allows(policy: &Value, action: &str, resource: &str, context: &[(&str, &str)]) -> bool {
        let hit = |statement: &Value| {
            let some = |field: &str, text: &str| listed(&statement[field]).iter().any(|one| pattern::fits(one, text));
            let resource = match &statement["NotResource"] {
                Value::Null => some("Resource", resource),
                _ => !some("NotResource", resource),
            };
            let conditions = statement["Condition"].as_object();
            some("Action", action)
                && resource
                && conditions.into_iter().flatten().all(|(operator, keys)| {
                    keys.as_object().unwrap().iter().all(|(key, wanted)| {
                        let found = context.iter().find(|(name, _)| name == key).map(|(_, value)| *value);
                        let fits = |found: &str| listed(wanted).iter().any(|one| pattern::fits(one, found));
                        match operator.as_str() {
                            "StringEquals" | "ArnLike" | "ForAnyValue:StringEqualsIgnoreCase" => {
                                found.is_some_and(fits)
                            }
                            // A key that is not there is not equal to anything.
                            "StringNotEquals" => !found.is_some_and(fits),
                            other => panic!("{other} is not known here"),
                        }
                    })
                })
        };
        let with = |effect: &str| {
            policy["Statement"].as_array().unwrap().iter().any(|one| one["Effect"] == effect && hit(one))
        };
        with("Allow") && !with("Deny")
    }

    #[test]
    fn a_hostile_resource_that_got_past_everything_else_is_refused_by_aws() {
        let class: AwsDeployUserClassSpec = serde_json::from_value(json!({
            "users": {"path": "/awsdeploy/"}, "groups": ["readers"],
            "policies": {"allowed": ["AmazonEC2*", "arn:aws:iam::123456789012:policy/deploy/*"]},
            "permissionsBoundary": "arn:aws:iam::123456789012:policy/deploy-boundary",
        }))
        .unwrap();
        let policy = operator_policy(&Scope::of_class(&class, "123456789012", "aws"));
        let user = "arn:aws:iam::123456789012:user/awsdeploy/u";
        let boundary = ("iam:PermissionsBoundary", "arn:aws:iam::123456789012:policy/deploy-boundary");
        let attach = |arn: &str| {
            let policy_arn = ("iam:PolicyARN", arn);
            (
                allows(&policy, "iam:AttachUserPolicy", user, &[boundary, policy_arn]),
                allows(&policy, "iam:AttachUserPolicy", user, &[policy_arn]),
            )
        };
        assert_eq!(attach("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), (true, false), "with the boundary only");
        assert_eq!(attach("arn:aws:iam::123456789012:policy/deploy/a"), (true, false));
        assert_eq!(attach("arn:aws:iam::aws:policy/AdministratorAccess"), (false, false));
        assert_eq!(attach("arn:aws:iam::123456789012:policy/other"), (false, false));
        let other = ("iam:PermissionsBoundary", "arn:aws:iam::aws:policy/AdministratorAccess");
        for (action, resource, context, allowed) in [
            ("iam:CreateUser", user, vec![boundary], true),
            ("iam:CreateUser", user, vec![], false),
            ("iam:CreateUser", user, vec![other], false),
            ("iam:CreateUser", "arn:aws:iam::123456789012:user/ci-admin", vec![boundary], false),
            ("iam:PutUserPermissionsBoundary", user, vec![other], false),
            ("iam:DeleteUserPermissionsBoundary", user, vec![boundary], false),
            ("iam:PutUserPolicy", user, vec![boundary], false),
            ("iam:CreateLoginProfile", user, vec![], false),
            ("iam:DeleteLoginProfile", user, vec![], true),
            ("iam:CreateAccessKey", user, vec![], true),
            ("iam:CreateAccessKey", "arn:aws:iam::123456789012:user/ci-admin", vec![], false),
            ("iam:DeleteAccessKey", "arn:aws:iam::123456789012:user/ci-admin", vec![], false),
            ("iam:TagUser", "arn:aws:iam::123456789012:user/ci-admin", vec![], false),
            ("iam:TagUser", user, vec![("aws:TagKeys", "team")], true),
            ("iam:TagUser", user, vec![("aws:TagKeys", mark::TAG_ADOPTABLE_BY)], false),
            ("iam:AddUserToGroup", "arn:aws:iam::123456789012:group/readers", vec![], true),
            ("iam:AddUserToGroup", "arn:aws:iam::123456789012:group/admins", vec![], false),
            ("iam:CreateRole", "arn:aws:iam::123456789012:role/x", vec![], false),
            ("iam:CreatePolicyVersion", "arn:aws:iam::123456789012:policy/deploy-boundary", vec![], false),
            ("sts:AssumeRole", "arn:aws:iam::123456789012:role/x", vec![], false),
        ] {
            assert_eq!(allows(&policy, action, resource, &context), allowed, "{action} {resource} {context:?}");
        }
        let open = AwsDeployUserClassSpec {
            policies: serde_json::from_value(json!({"allowed": ["*"], "inline": "Allow"})).unwrap(),
            console: Permission::Allow,
            ..AwsDeployUserClassSpec::default()
        };
        let open = operator_policy(&Scope::of_class(&open, "123456789012", "aws"));
        for action in ["iam:AttachUserPolicy", "iam:PutUserPolicy", "iam:CreateLoginProfile"] {
            assert!(allows(&open, action, user, &[("iam:PolicyARN", "arn:aws:iam::aws:policy/x")]), "{action}");
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
                    let conditions = statement["Condition"].as_object().into_iter().flat_map(|all| all.values());
                    for key in conditions.flat_map(|keys| keys.as_object().unwrap().keys()) {
                        let known = match key.as_str() {
                            "iam:PermissionsBoundary" => *boundary,
                            "aws:TagKeys" => TAGGING.contains(&name),
                            _ => false,
                        };
                        assert!(known, "{name} knows no condition key {key}");
                    }
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
    fn the_operator_cannot_write_the_consent_to_an_adoption_itself() {
        for scope in [scope(), Scope { boundary: None, groups: vec![], path: "/".into(), ..scope() }] {
            let policy = operator_policy(&scope);
            let deny =
                policy["Statement"].as_array().unwrap().iter().find(|all| all["Sid"] == "NeverItsOwnConsent").unwrap();
            assert_eq!(deny["Effect"], "Deny");
            // Every allowed action that can set a tag. IAM compares keys of tags without regard to case.
            assert_eq!(listed(&deny["Action"]), ["iam:CreateUser", "iam:TagUser"]);
            let keys = &deny["Condition"]["ForAnyValue:StringEqualsIgnoreCase"]["aws:TagKeys"];
            assert_eq!(*keys, json!(["awsdeploy.dev/adoptable-by"]));
        }
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
