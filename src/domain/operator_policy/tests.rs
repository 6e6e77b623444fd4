//! Compares the policy with the authorization reference of IAM and evaluates it with the test kit.

use awsdeploy_testkit::iam_policy::{Decision, Policy, Request, authorization_reference};

use super::*;

const ACCOUNT: &str = "123456789012";
const BOUNDARY: &str = "arn:aws:iam::123456789012:policy/deploy-boundary";
const DOCUMENT: &str = "arn:aws:iam::123456789012:policy/awsdeploy/u/u+s3";
const USER: &str = "arn:aws:iam::123456789012:user/awsdeploy/u";

fn home() -> AwsAccount {
    AwsAccount { partition: "aws".into(), id: ACCOUNT.into() }
}

fn scope() -> PolicyScope {
    PolicyScope {
        path: "/awsdeploy/".into(),
        boundary: Some(BOUNDARY.into()),
        groups: vec!["deployers".into()],
        policies: None,
        administrators: true,
        documents: true,
        console: true,
    }
}

fn unlimited() -> PolicyScope {
    PolicyScope { boundary: None, groups: vec![], path: "/".into(), ..scope() }
}

/// Policy for classes given as manifests.
fn of_classes(classes: &[Value]) -> Value {
    let classes = classes.iter().map(|class| serde_json::from_value(class.clone()).unwrap());
    let scopes: Vec<PolicyScope> =
        classes.map(|class: AwsDeployUserClassSpec| PolicyScope::from_class(&class)).collect();
    operator_policy(&home(), &scopes)
}

/// Whether the policy allows the operator this request.
fn allows(policy: &Value, action: &str, resource: &str, context: &[(&str, &str)]) -> bool {
    let context = context.iter().map(|(key, value)| (*key, vec![(*value).to_owned()]));
    let request = Request::new(action, resource, context).unwrap();
    Policy::parse(policy).unwrap().evaluate(&request) == Decision::Allowed
}

fn user(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:user/{name}")
}

#[test]
fn policy_denies_what_the_class_does_not_allow() {
    let policy = of_classes(&[json!({
        "users": {"path": "/awsdeploy/"}, "groups": ["readers"], "permissionsBoundary": BOUNDARY,
        "policies": {"allowed": ["AmazonEC2*", "arn:aws:iam::123456789012:policy/deploy/*"]},
    })]);
    let boundary = ("iam:PermissionsBoundary", BOUNDARY);
    let attach = |arn: &str| {
        let policy_arn = ("iam:PolicyARN", arn);
        (
            allows(&policy, "iam:AttachUserPolicy", USER, &[boundary, policy_arn]),
            allows(&policy, "iam:AttachUserPolicy", USER, &[policy_arn]),
        )
    };
    assert_eq!(attach("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), (true, false), "with the boundary only");
    assert_eq!(attach("arn:aws:iam::123456789012:policy/deploy/a"), (true, false));
    assert_eq!(attach("arn:aws:iam::aws:policy/AdministratorAccess"), (false, false));
    assert_eq!(attach("arn:aws:iam::123456789012:policy/other"), (false, false));
    let other = ("iam:PermissionsBoundary", "arn:aws:iam::aws:policy/AdministratorAccess");
    let (admin, group) = (user("ci-admin"), |name: &str| format!("arn:aws:iam::{ACCOUNT}:group/{name}"));
    for (action, resource, context, allowed) in [
        ("iam:CreateUser", USER, vec![boundary], true),
        ("iam:CreateUser", USER, vec![], false),
        ("iam:CreateUser", USER, vec![other], false),
        ("iam:CreateUser", &admin, vec![boundary], false),
        ("iam:PutUserPermissionsBoundary", USER, vec![boundary], true),
        ("iam:PutUserPermissionsBoundary", USER, vec![other], false),
        ("iam:DeleteUserPermissionsBoundary", USER, vec![boundary], false),
        ("iam:PutUserPolicy", USER, vec![boundary], false),
        // Revoking permissions must work without the boundary.
        ("iam:DetachUserPolicy", USER, vec![], true),
        ("iam:DeleteUserPolicy", USER, vec![], true),
        ("iam:DetachUserPolicy", &admin, vec![boundary], false),
        ("iam:CreateLoginProfile", USER, vec![], false),
        ("iam:DeleteLoginProfile", USER, vec![], true),
        ("iam:CreateAccessKey", USER, vec![], true),
        ("iam:CreateAccessKey", &admin, vec![], false),
        ("iam:UpdateUser", USER, vec![boundary], false),
        ("iam:DeleteAccessKey", &admin, vec![], false),
        ("iam:TagUser", &admin, vec![], false),
        ("iam:TagUser", USER, vec![("aws:TagKeys", "team")], true),
        ("iam:TagUser", USER, vec![("aws:TagKeys", well_known::TAG_ADOPTABLE_BY)], false),
        ("iam:TagUser", USER, vec![("aws:TagKeys", "AwsDeploy.dev/Adoptable-By")], false),
        ("iam:AddUserToGroup", &group("readers"), vec![], true),
        ("iam:AddUserToGroup", &group("teams/a/readers"), vec![], true),
        ("iam:AddUserToGroup", &group("teams/nonreaders"), vec![], false),
        ("iam:AddUserToGroup", &group("admins"), vec![], false),
        ("iam:CreateRole", "arn:aws:iam::123456789012:role/x", vec![boundary], false),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/x", vec![], false),
        ("iam:CreatePolicyVersion", BOUNDARY, vec![], false),
        // Documents were allowed before: what is left of them can be removed, and nothing be written.
        ("iam:CreatePolicy", DOCUMENT, vec![], false),
        ("iam:CreatePolicyVersion", DOCUMENT, vec![], false),
        ("iam:SetDefaultPolicyVersion", DOCUMENT, vec![], false),
        ("iam:ListPolicies", "*", vec![], true),
        ("iam:GetPolicyVersion", DOCUMENT, vec![], true),
        ("iam:DeletePolicy", DOCUMENT, vec![], true),
        ("iam:DeletePolicy", BOUNDARY, vec![], false),
        ("sts:AssumeRole", "arn:aws:iam::123456789012:role/x", vec![], false),
    ] {
        assert_eq!(allows(&policy, action, resource, &context), allowed, "{action} {resource} {context:?}");
    }
}

/// Even if its name has the form of a policy of a document, or another policy of the role allows it.
#[test]
fn boundary_and_policies_of_others_are_never_written() {
    const BELOW: &str = "arn:aws:iam::123456789012:policy/awsdeploy/limits/a+b";
    let class = json!({
        "users": {"path": "/awsdeploy/"}, "permissionsBoundary": BELOW,
        "policies": {"documents": "Allow"}, "acknowledgeAdminEquivalent": true,
    });
    let mut policy = of_classes(&[class]);
    let all = json!({"Sid": "All", "Effect": "Allow", "Action": "iam:*", "Resource": "*"});
    policy["Statement"].as_array_mut().unwrap().push(all);
    for action in ["CreatePolicy", "CreatePolicyVersion", "SetDefaultPolicyVersion", "TagPolicy", "DeletePolicy"] {
        let action = format!("iam:{action}");
        assert!(allows(&policy, &action, DOCUMENT, &[]), "{action}");
        for resource in [BELOW, "arn:aws:iam::123456789012:policy/awsdeploy/u/s3", "arn:aws:iam::123456789012:policy/x"]
        {
            assert!(!allows(&policy, &action, resource, &[]), "{action} {resource}");
        }
    }
    assert!(allows(&policy, "iam:GetPolicy", BELOW, &[]));
}

#[test]
fn open_class_needs_the_acknowledgement_for_administrators() {
    let open = |acknowledged: bool| {
        of_classes(&[json!({
            "policies": {"allowed": ["*"], "documents": "Allow"}, "console": "Allow",
            "acknowledgeAdminEquivalent": acknowledged,
        })])
    };
    for (action, policy, wanted) in [
        ("iam:AttachUserPolicy", "arn:aws:iam::123456789012:policy/x", [true, true]),
        ("iam:AttachUserPolicy", "arn:aws:iam::aws:policy/AdministratorAccess", [false, true]),
        ("iam:AttachUserPolicy", "arn:aws:iam::aws:policy/AdministratorAccess-Amplify", [false, true]),
        ("iam:AttachUserPolicy", "arn:aws:iam::aws:policy/PowerUserAccess", [false, true]),
        ("iam:DetachUserPolicy", "arn:aws:iam::aws:policy/AdministratorAccess", [true, true]),
        ("iam:PutUserPolicy", "", [false, true]),
        ("iam:CreateLoginProfile", "", [true, true]),
    ] {
        let context = [("iam:PolicyARN", policy)];
        let found = [false, true].map(|acknowledged| allows(&open(acknowledged), action, USER, &context));
        assert_eq!(found, wanted, "{action} {policy}");
    }
}

/// Documents of single classes cannot be combined, because each denies other paths.
#[test]
fn policy_of_several_classes_keeps_their_scopes_apart() {
    const LOW: &str = "arn:aws:iam::123456789012:policy/low";
    let limited = |boundary: &str| ("iam:PermissionsBoundary", boundary.to_owned());
    let policy = of_classes(&[
        json!({"users": {"path": "/a/"}, "policies": {"allowed": ["S3"]}, "permissionsBoundary": BOUNDARY}),
        json!({"users": {"path": "/a/"}, "policies": {"allowed": ["RDS"], "documents": "Allow"}, "permissionsBoundary": BOUNDARY}),
        json!({"users": {"path": "/a/b/"}, "policies": {"allowed": ["EC2"]}, "permissionsBoundary": LOW, "console": "Allow"}),
        json!({"users": {"path": "/free/"}, "policies": {"allowed": ["AdministratorAccess"]}, "acknowledgeAdminEquivalent": true}),
    ]);
    for (action, name, boundary, managed, wanted) in [
        ("iam:CreateUser", "a/u", Some(BOUNDARY), "", true),
        ("iam:CreateUser", "a/u", None, "", false),
        ("iam:CreateUser", "a/b/u", Some(LOW), "", true),
        ("iam:CreateUser", "a/b/u", None, "", false),
        ("iam:CreateUser", "free/u", None, "", true),
        ("iam:CreateUser", "other/u", Some(BOUNDARY), "", false),
        ("iam:PutUserPermissionsBoundary", "a/b/u", Some(LOW), "", true),
        ("iam:AttachUserPolicy", "a/u", Some(BOUNDARY), "S3", true),
        ("iam:AttachUserPolicy", "a/u", Some(BOUNDARY), "RDS", true),
        ("iam:AttachUserPolicy", "a/u", Some(BOUNDARY), "EC2", false),
        ("iam:AttachUserPolicy", "a/u", None, "S3", false),
        ("iam:AttachUserPolicy", "a/b/u", Some(LOW), "EC2", true),
        ("iam:AttachUserPolicy", "a/u", Some(BOUNDARY), "AdministratorAccess", false),
        ("iam:AttachUserPolicy", "free/u", None, "AdministratorAccess", true),
        ("iam:PutUserPolicy", "a/u", Some(BOUNDARY), "", true),
        ("iam:PutUserPolicy", "free/u", None, "", false),
        ("iam:CreateLoginProfile", "a/b/u", Some(LOW), "", true),
        ("iam:CreateLoginProfile", "a/u", Some(BOUNDARY), "", false),
        ("iam:CreateAccessKey", "free/u", None, "", true),
        ("iam:CreateAccessKey", "elsewhere/u", None, "", false),
    ] {
        let mut context = Vec::from_iter(boundary.map(limited));
        context.push(("iam:PolicyARN", format!("arn:aws:iam::aws:policy/{managed}")));
        let context: Vec<(&str, &str)> = context.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(allows(&policy, action, &user(name), &context), wanted, "{action} {name} {boundary:?} {managed}");
    }
}

fn listed(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect(),
        value => value.as_str().map(str::to_owned).into_iter().collect(),
    }
}

#[test]
fn every_action_supports_its_resources_and_condition_keys() {
    for scope in [scope(), unlimited()] {
        for statement in operator_policy(&home(), &[scope])["Statement"].as_array().unwrap() {
            for name in listed(&statement["Action"]) {
                let action = authorization_reference::action(&name).unwrap_or_else(|| panic!("{name}"));
                let given = [listed(&statement["Resource"]), listed(&statement["NotResource"])].concat();
                let is_supported = |given: &&String| given.contains(&format!(":{}/", action.resource.kind()));
                let mut narrow = given.iter().filter(|given| *given != "*");
                // What is denied is denied outside of users and policies at once.
                if statement.get("NotResource").is_some() {
                    assert!(narrow.any(|given| is_supported(&given)), "{name}");
                } else {
                    assert!(narrow.all(|given| is_supported(&given)), "{name}");
                }
                if statement["Effect"] == "Allow" && action.resource != authorization_reference::Resource::Any {
                    assert!(!given.contains(&"*".to_owned()), "{name} is allowed on everything");
                }
                let conditions = statement["Condition"].as_object().into_iter().flat_map(|all| all.values());
                for key in conditions.flat_map(|keys| keys.as_object().unwrap().keys()) {
                    assert!(action.has_condition_key(key), "{name} knows no condition key {key}");
                }
            }
        }
    }
}

#[test]
fn with_a_boundary_every_grant_requires_it() {
    let policy = operator_policy(&home(), &[scope()]);
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
        !allowed_actions(&operator_policy(&home(), &[PolicyScope { boundary: None, ..scope() }]))
            .contains("iam:PutUserPermissionsBoundary")
    );
    assert!(
        !allowed_actions(&operator_policy(&home(), &[PolicyScope { groups: vec![], ..scope() }]))
            .contains("iam:AddUserToGroup")
    );
}

#[test]
fn operator_cannot_consent_to_adoption_itself() {
    for scope in [scope(), unlimited()] {
        let policy = operator_policy(&home(), &[scope]);
        let deny =
            policy["Statement"].as_array().unwrap().iter().find(|all| all["Sid"] == "DenyAdoptionConsent").unwrap();
        assert_eq!(deny["Effect"], "Deny");
        // Every allowed action that can set a tag. IAM ignores the case of tag keys.
        assert_eq!(listed(&deny["Action"]), ["iam:CreateUser", "iam:TagUser"]);
        let keys = &deny["Condition"]["ForAnyValue:StringEqualsIgnoreCase"]["aws:TagKeys"];
        assert_eq!(*keys, json!(["awsdeploy.dev/adoptable-by"]));
    }
}

#[test]
fn writes_are_limited_to_the_path_and_partition() {
    let home = AwsAccount { partition: "aws-cn".into(), ..home() };
    let policy = operator_policy(&home, &[PolicyScope { path: "/a/b/".into(), ..scope() }]).to_string();
    assert!(policy.contains(r#""NotResource":["arn:aws-cn:iam::123456789012:user/a/b/*","#), "{policy}");
    assert!(!policy.contains("arn:aws:iam::123456789012:user"), "{policy}");
}

#[test]
fn path_with_wildcards_or_variables_is_literal() {
    let policy =
        operator_policy(&home(), &[PolicyScope { path: "/a*/${aws:username}/?/".into(), ..scope() }]).to_string();
    assert!(policy.contains("user/a${*}/${$}{aws:username}/${?}/*\""), "{policy}");
}

#[test]
fn documents_are_written_only_if_a_class_allows_them() {
    let templates = json!([{"name": "t", "document": {}}]);
    for (class, wanted) in [
        (json!({"policies": {"templates": templates}}), false),
        (json!({"policies": {"documents": "TemplatesOnly"}}), false),
        (json!({"policies": {"documents": "Allow"}}), false),
        (json!({"policies": {"documents": "TemplatesOnly", "templates": templates}}), true),
        (json!({"policies": {"documents": "Allow"}, "permissionsBoundary": BOUNDARY}), true),
    ] {
        assert_eq!(
            allowed_actions(&of_classes(std::slice::from_ref(&class))).contains("iam:PutUserPolicy"),
            wanted,
            "{class}"
        );
    }
}

#[test]
fn managed_policies_are_changed_only_in_the_folder_of_a_user() {
    let boundary = ("iam:PermissionsBoundary", BOUNDARY);
    let own = format!("arn:aws:iam::{ACCOUNT}:policy/awsdeploy/u/u+own");
    let policy = of_classes(&[
        json!({"policies": {"documents": "Allow"}, "permissionsBoundary": BOUNDARY}),
        json!({"users": {"path": "/other/"}, "policies": {"allowed": ["S3"]}}),
    ]);
    let found = |action: &str, path: &str| {
        allows(&policy, &format!("iam:{action}"), &format!("arn:aws:iam::{ACCOUNT}:policy/{path}"), &[])
    };
    for action in WRITE_DOCUMENTS.iter().chain(REMOVE_DOCUMENTS) {
        assert!(found(action, "awsdeploy/u/u+own"), "{action}");
        // A policy that a person made below the path, such as a boundary, has no folder of a user.
        for other in ["awsdeploy/boundary", "awsdeploy/u/boundary", "u/u+own"] {
            assert!(!found(action, other), "{action} {other}");
        }
        // Of a class that allows no documents, and may have allowed some before.
        assert_eq!(found(action, "other/u/u+own"), REMOVE_DOCUMENTS.contains(action), "{action}");
    }
    let attach = |arn: &str, context: &[(&str, &str)]| {
        allows(&policy, "iam:AttachUserPolicy", USER, &[context, &[("iam:PolicyARN", arn)]].concat())
    };
    assert!(attach(&own, &[boundary]) && !attach(&own, &[]), "with the boundary only");
    assert!(!attach(&format!("arn:aws:iam::{ACCOUNT}:policy/awsdeploy/boundary"), &[boundary]));
    assert!(!attach(&format!("arn:aws:iam::{ACCOUNT}:policy/other/u/u+own"), &[boundary]));
    let denied = of_classes(&[json!({"policies": {"allowed": ["*"]}})]);
    let allowed = allowed_actions(&denied);
    let is_allowed = |action: &str| allowed.contains(&format!("iam:{action}"));
    assert!(
        !WRITE_DOCUMENTS.iter().any(|action| is_allowed(action))
            && REMOVE_DOCUMENTS.iter().all(|action| is_allowed(action))
    );
}

#[test]
fn policy_fits_into_one_managed_policy() {
    let size = crate::domain::policy::counted_characters(&operator_policy(&home(), &[scope()]));
    assert!(size <= 6144, "{size}");
}
