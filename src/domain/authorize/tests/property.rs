//! Property test: for random classes and resources, the effects are a subset of what the class allows.

use awsdeploy_testkit::iam_policy::{Decision, Policy, Request};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::*, class, target, user};
use crate::domain::{
    current_state::{CurrentState, CurrentUser, Grants, IamUser},
    desired::{Account, Desired},
    managed_policy::{CurrentPolicy, PolicyOwner, RecordedPolicy},
    operator_policy::{AwsAccount, PolicyScope, operator_policy},
    plan::{Effect, plan},
    settings::Settings,
    validate::validate,
};

const ACCOUNT: &str = "123456789012";

const POLICIES: [&str; 6] = [
    "AmazonEC2FullAccess",
    "AmazonS3FullAccess",
    "AdministratorAccess",
    "job-function/ViewOnlyAccess",
    "arn:aws:iam::123456789012:policy/deploy/a",
    "arn:aws:iam::123456789012:policy/b",
];
const PATTERNS: [&str; 8] = [
    "arn:aws:iam::aws:policy/*",
    "AmazonEC2FullAccess",
    "arn:aws:iam::aws:policy/AmazonS3FullAccess",
    "Amazon*",
    "Admin*",
    "*",
    "arn:aws:iam::123456789012:policy/deploy/*",
    "job-function/*",
];
const GROUPS: [&str; 3] = ["readers", "writers", "admins"];
const BOUNDARY: &str = "arn:aws:iam::123456789012:policy/boundary";

fn some(from: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(from.to_vec(), 0..=most)
}

/// One harmless document, and one that passes roles: the author of the class decides.
fn templates() -> Value {
    let template = |name: &str, action: &str, resource: &str| {
        let statement = json!({"Effect": "Allow", "Action": action, "Resource": resource});
        let parameters = json!([{"name": "value", "pattern": "[a-z/*]+"}]);
        json!({"name": name, "parameters": parameters, "document": {"Version": "2012-10-17", "Statement": [statement]}})
    };
    json!([
        template("read", "s3:GetObject", "arn:aws:s3:::{value}/*"),
        template("pass", "iam:PassRole", "arn:aws:iam::*:role/{value}")
    ])
}

/// At most one document, as what the resource declares.
fn declared_documents() -> impl Strategy<Value = Vec<Value>> {
    let document = documents()
        .prop_map(|documents| documents.iter().map(|document| json!({"name": "own", "document": document})).collect());
    let template = (
        prop_oneof![Just("read"), Just("pass"), Just("none")],
        prop_oneof![Just("logs"), Just("*"), Just("a/b"), Just("A")],
    );
    let template = template.prop_map(|(template, value)| {
        vec![json!({"name": "own", "template": template, "parameters": {"value": value}})]
    });
    let declared = prop_oneof![2 => document, 1 => template];
    let placement = prop_oneof![Just("Auto"), Just("Managed")];
    (declared, placement).prop_map(|(mut declared, placement): (Vec<Value>, _)| {
        for document in &mut declared {
            document["as"] = json!(placement);
        }
        declared
    })
}

fn documents() -> impl Strategy<Value = Vec<Value>> {
    let statement = (
        prop_oneof![Just("s3:*"), Just("iam:PassRole"), Just("*")],
        prop_oneof![Just("*"), Just("arn:aws:s3:::b/*"), Just("arn:aws:iam::123456789012:role/x")],
    );
    let document = statement.prop_map(|(action, resource)| {
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]})
    });
    proptest::collection::vec(document, 0..=1)
}

fn classes() -> impl Strategy<Value = Value> {
    let permission = || prop_oneof![Just("Deny"), Just("Allow")];
    let parts = (
        (some(&["deploy", "other"], 2), some(&PATTERNS, 3), some(&POLICIES, 1), some(&GROUPS, 2)),
        (prop_oneof![Just("Deny"), Just("TemplatesOnly"), Just("Allow")], permission(), any::<bool>(), any::<bool>()),
        (prop_oneof![Just("/awsdeploy/"), Just("/a/b/")], prop_oneof![Just(".*"), Just("deploy_.*"), Just("x")]),
        (
            prop_oneof![Just(json!({})), Just(json!({"team": "a"})), Just(json!({"team": "a", "cost": "b"}))],
            prop_oneof![Just(json!([])), Just(json!(["o*"]))],
        ),
    );
    parts.prop_map(
        |(
            (names, allowed, default, groups),
            (documents, console, acknowledged, limited),
            (path, name),
            (tags, tag_keys),
        )| {
            let mut class = json!({
                "namespaces": {"names": names},
                "policies": {"allowed": allowed, "default": default, "documents": documents, "templates": templates()},
                "groups": groups, "console": console, "acknowledgeAdminEquivalent": acknowledged,
                "users": {"path": path, "namePattern": name}, "tags": tags, "tagKeys": tag_keys,
            });
            if limited {
                class["permissionsBoundary"] = json!(BOUNDARY);
            }
            class
        },
    )
}

fn specs() -> impl Strategy<Value = Value> {
    let parts = (
        some(&POLICIES, 2),
        declared_documents(),
        some(&GROUPS, 2),
        prop_oneof![Just(json!({})), Just(json!({"Team": "b"})), Just(json!({"own": "c"}))],
        prop_oneof![Just(None), Just(Some("x")), Just(Some("deploy_1"))],
        any::<bool>(),
    );
    parts.prop_map(|(managed, documents, groups, tags, name, console)| {
        let mut spec =
            json!({"policies": {"managed": managed, "documents": documents}, "groups": groups, "tags": tags});
        if let Some(name) = name {
            spec["userName"] = json!(name);
        }
        if console {
            spec["console"] = json!({"passwordResetRequired": false});
        }
        spec
    })
}

/// Whether a class allows a managed policy, implemented independently of the product.
fn may_attach(rules: &Value, arn: &str) -> bool {
    let short = arn.strip_prefix("arn:aws:iam::aws:policy/").unwrap_or(arn);
    let administrator = short == "AdministratorAccess";
    let allowed =
        rules["policies"]["allowed"].as_array().unwrap().iter().any(|pattern| match pattern.as_str().unwrap() {
            "*" => true,
            "arn:aws:iam::aws:policy/*" => short != arn,
            "Amazon*" => short.starts_with("Amazon"),
            "Admin*" => administrator,
            "job-function/*" => short.starts_with("job-function/"),
            "arn:aws:iam::123456789012:policy/deploy/*" => short == "arn:aws:iam::123456789012:policy/deploy/a",
            exact => exact.ends_with(short),
        });
    allowed && (!administrator || rules["acknowledgeAdminEquivalent"] == true)
}

/// Checks one effect against the class.
fn check(effect: &Effect, desired: &Desired, rules: &Value) -> Result<(), TestCaseError> {
    match effect {
        Effect::CreateUser => {
            prop_assert_eq!(&json!(desired.path), &rules["users"]["path"]);
            prop_assert_eq!(&json!(desired.boundary), &rules["permissionsBoundary"]);
            for (key, value) in rules["tags"].as_object().unwrap() {
                prop_assert_eq!(&json!(desired.tags.get(key)), value);
            }
            prop_assert!(!desired.tags.contains_key("own") || rules["tagKeys"] == json!(["o*"]));
        }
        Effect::AttachPolicy(arn) if desired.documents.contains_key(arn) => {}
        Effect::AttachPolicy(arn) => prop_assert!(may_attach(rules, arn), "{arn}"),
        Effect::CreatePolicy(arn) => {
            let document = desired.documents[arn].document.clone();
            check(&Effect::PutInlinePolicy(String::new(), document), desired, rules)?;
        }
        Effect::PutInlinePolicy(_, document) => {
            prop_assert_ne!(&rules["policies"]["documents"], "Deny");
            let text = document.to_string();
            let made =
                ["arn:aws:s3:::logs/*", "arn:aws:s3:::a/b/*", "arn:aws:iam::*:role/logs", "arn:aws:iam::*:role/a/b"];
            let made = made.iter().any(|resource| document["Statement"][0]["Resource"] == *resource)
                && ["s3:GetObject", "iam:PassRole"].iter().any(|action| document["Statement"][0]["Action"] == *action);
            let limited = rules["acknowledgeAdminEquivalent"] == true || !rules["permissionsBoundary"].is_null();
            prop_assert!(made || (rules["policies"]["documents"] == "Allow" && limited), "{text}");
        }
        Effect::AddToGroup(group) => prop_assert!(rules["groups"].as_array().unwrap().contains(&json!(group))),
        Effect::WritePassword | Effect::ApplyPassword => prop_assert_eq!(&rules["console"], "Allow"),
        Effect::PutBoundary(arn) => prop_assert_eq!(&json!(arn), &rules["permissionsBoundary"]),
        _ => {}
    }
    Ok(())
}

/// IAM requests of an effect, implemented independently of the product. Empty for effects without IAM calls.
fn requests(effect: &Effect, desired: &Desired, current: &CurrentState) -> Vec<Request> {
    let name = &desired.target.user_name;
    let (arn, boundary) = match &current.iam {
        CurrentUser::Found(user) => (user.arn.clone(), user.boundary.clone()),
        CurrentUser::Absent => (format!("arn:aws:iam::{ACCOUNT}:user{}{name}", desired.path), desired.boundary.clone()),
    };
    let limited =
        |boundary: &Option<String>| Vec::from_iter(boundary.clone().map(|arn| ("iam:PermissionsBoundary", vec![arn])));
    let ask = |action: &str, more: Vec<(&'static str, Vec<String>)>| {
        let context = [limited(&boundary), more].concat();
        vec![Request::new(&format!("iam:{action}"), &arn, context).unwrap()]
    };
    let keys = |tags: Vec<String>| vec![("aws:TagKeys", tags)];
    let join = |action: &str, group: &str| {
        vec![Request::new(&format!("iam:{action}"), &format!("arn:aws:iam::{ACCOUNT}:group/{group}"), []).unwrap()]
    };
    match effect {
        Effect::CreateUser => ask("CreateUser", keys(desired.tags.keys().cloned().collect())),
        Effect::TagUser(tags) => ask("TagUser", keys(tags.keys().cloned().collect())),
        Effect::UntagUser(tags) => ask("UntagUser", keys(tags.iter().cloned().collect())),
        Effect::PutBoundary(arn) => {
            let context = limited(&Some(arn.clone()));
            vec![Request::new("iam:PutUserPermissionsBoundary", &user_arn(current), context).unwrap()]
        }
        Effect::AttachPolicy(policy) => ask("AttachUserPolicy", vec![("iam:PolicyARN", vec![policy.clone()])]),
        Effect::DetachPolicy(policy) => ask("DetachUserPolicy", vec![("iam:PolicyARN", vec![policy.clone()])]),
        Effect::CreatePolicy(policy) => vec![Request::new("iam:CreatePolicy", policy, []).unwrap()],
        Effect::PutInlinePolicy(..) => ask("PutUserPolicy", vec![]),
        Effect::DeleteInlinePolicy(_) => ask("DeleteUserPolicy", vec![]),
        Effect::AddToGroup(group) => join("AddUserToGroup", group),
        Effect::RemoveFromGroup(group) => join("RemoveUserFromGroup", group),
        Effect::ApplyPassword => [ask("CreateLoginProfile", vec![]), ask("UpdateLoginProfile", vec![])].concat(),
        Effect::RemovePassword => ask("DeleteLoginProfile", vec![]),
        Effect::CreateKey { .. } => ask("CreateAccessKey", vec![]),
        Effect::TagKey(id) => ask("TagUser", keys(vec![id.clone()])),
        Effect::DeactivateKey(..) => ask("UpdateAccessKey", vec![]),
        Effect::DeleteKey(..) => ask("DeleteAccessKey", vec![]),
        Effect::RecordUser | Effect::AddFinalizer | Effect::WritePassword => vec![],
        other => panic!("{other} is not known here"),
    }
}

fn user_arn(current: &CurrentState) -> String {
    let CurrentUser::Found(user) = &current.iam else { panic!("no user") };
    user.arn.clone()
}

/// Executes effects on user and grants.
fn perform(effect: &Effect, desired: &Desired, current: &mut CurrentState) -> bool {
    if matches!(effect, Effect::RecordUser) {
        current.hints.tag_keys.extend(desired.declared_tag_keys().cloned());
        let recorded = desired.documents.keys().map(|arn| (arn.clone(), RecordedPolicy::default()));
        current.hints.policies.extend(recorded);
        return true;
    }
    if matches!(effect, Effect::CreateUser) {
        let name = desired.target.user_name.clone();
        current.iam = CurrentUser::Found(IamUser {
            arn: format!("arn:aws:iam::123456789012:user{}{name}", desired.path),
            name,
            tags: desired.tags.clone(),
            boundary: desired.boundary.clone(),
            grants: Some(Grants::default()),
            ..IamUser::default()
        });
        return true;
    }
    if let Effect::CreatePolicy(arn) = effect {
        let declared = &desired.documents[arn];
        let policy = CurrentPolicy {
            arn: arn.clone(),
            id: "ANPA1".into(),
            owner: PolicyOwner::Ours,
            default_version: "v1".into(),
            documents: [("v1".to_owned(), declared.digest)].into(),
            content: Some(declared.document.clone()),
            attachments: 0,
            versions: None,
            holders: None,
        };
        current.policies.found.insert(arn.clone(), policy);
        return true;
    }
    let CurrentUser::Found(user) = &mut current.iam else { return false };
    let grants = user.grants.get_or_insert_default();
    match effect {
        Effect::TagUser(tags) => user.tags.extend(tags.clone()),
        Effect::UntagUser(keys) => user.tags.retain(|key, _| !keys.contains(key)),
        Effect::PutBoundary(arn) => user.boundary = Some(arn.clone()),
        Effect::AttachPolicy(arn) => _ = grants.attached.insert(arn.clone()),
        Effect::DetachPolicy(arn) => _ = grants.attached.remove(arn),
        Effect::PutInlinePolicy(name, document) => _ = grants.inline.insert(name.clone(), document.clone()),
        Effect::DeleteInlinePolicy(name) => _ = grants.inline.remove(name),
        Effect::AddToGroup(group) => _ = grants.groups.insert(group.clone()),
        Effect::RemoveFromGroup(group) => _ = grants.groups.remove(group),
        // Password and key come last: all grants are complete.
        _ => return false,
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// For random classes and resources, and any manually attached policies: the effects are a subset of
    /// what the class allows, and afterwards the class would revoke nothing.
    #[test]
    fn effects_never_exceed_the_class(
        rules in classes(), spec in specs(), drift in some(&POLICIES, 2), joined in some(&GROUPS, 1),
    ) {
        let (user, class) = (user(&spec), class(&rules));
        let target = target(&user, &class);
        let context = NamespaceContext { namespace: "deploy", labels: &BTreeMap::new(), preceding_users: 0 };
        let Ok(authorization) = authorize(&user, &target, &class, context) else { return Ok(()) };
        prop_assert!(rules["namespaces"]["names"].as_array().unwrap().contains(&json!("deploy")));
        let account = Account { partition: "aws".into(), id: ACCOUNT.into(), users_may_change_passwords: false };
        let home = AwsAccount { partition: "aws".into(), id: ACCOUNT.into() };
        let layer = Policy::parse(&operator_policy(&home, &[PolicyScope::from_class(&class.spec)])).unwrap();
        let Ok(desired) = validate(&authorization.user, &target, &authorization.grant, &account, &Settings::default()) else {
            return Ok(());
        };
        let mut current = CurrentState::empty(Timestamp::UNIX_EPOCH);
        let mut drifted = false;
        for _ in 0..60 {
            let plan = plan(&desired, &current, Timestamp::UNIX_EPOCH, &Settings::default());
            for effect in &plan.effects {
                check(effect, &desired, &rules)?;
            }
            let next = plan.effects.first();
            // The printed IAM policy for the class allows every request.
            for request in next.into_iter().flat_map(|effect| requests(effect, &desired, &current)) {
                prop_assert_eq!(layer.evaluate(&request), Decision::Allowed, "{:?}", request);
            }
            if next.is_some_and(|effect| perform(effect, &desired, &mut current)) {
                continue;
            }
            if std::mem::replace(&mut drifted, true) {
                let CurrentUser::Found(user) = &current.iam else { panic!("no user") };
                prop_assert_eq!(check_still_allowed(&class, user, &current.policies, context), Ok(()));
                return Ok(());
            }
            if let CurrentUser::Found(IamUser { grants: Some(grants), boundary, .. }) = &mut current.iam {
                grants.attached.extend(drift.iter().map(|name| crate::domain::policy::managed_arn(name, "aws")));
                grants.groups.extend(joined.iter().map(|group| (*group).to_owned()));
                *boundary = None;
            }
        }
        prop_assert!(false, "no end");
    }
}
