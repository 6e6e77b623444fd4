//! What a tenant asks for beyond its class, in the spec. Admission refuses it; where the class was wider when it was asked for,
//! the operator does.

use awsdeploy::api::{ConditionType, Reason};
use serde_json::{Value, json};

use crate::{
    arena::{ADMIN, Arena, POLICY},
    tenant::{Apply, Kind},
    test_env::{EnvOptions, TestEnv, eventually},
};

/// Changes of an allowed spec, one per way to get more.
fn requests(arena: &Arena) -> Vec<(&'static str, Value)> {
    let own = |action: &str, resource: &str| {
        let statement = json!({"Effect": "Allow", "Action": action, "Resource": resource});
        json!({"policies": {"documents": [{"name": "own", "document": {"Version": "2012-10-17", "Statement": [statement]}}]}})
    };
    let secret = |change: Value| json!({"accessKey": {"secret": change}});
    let mut requests = vec![
        ("an existing user", json!({"userName": ADMIN})),
        ("a user of another tenant", json!({"userName": arena.victim.name})),
        ("the name of another namespace", json!({"userName": format!("{}_next", arena.other)})),
        ("an administrator policy", json!({"policies": {"managed": ["AdministratorAccess"]}})),
        ("a policy of the account", json!({"policies": {"managed": ["arn:aws:iam::123456789012:policy/admin"]}})),
        (
            "the policy of a document of another tenant",
            json!({"policies": {"managed": [policy_of(&arena.victim.name)]}}),
        ),
        ("a group", json!({"groups": ["admins"]})),
        ("a tag of an ABAC policy", json!({"tags": {"Department": "finance-admin"}})),
        ("a class of another tenant", json!({"className": arena.other_class})),
        ("a cluster secret of Argo CD", secret(json!({"labels": {"argocd.argoproj.io/secret-type": "cluster"}}))),
        ("a replicated Secret", secret(json!({"annotations": {"replicator.v1.mittwald.de/replicate-to": "*"}}))),
        ("data for another controller", secret(json!({"template": {"server": "https://example.com"}}))),
        ("a restart", json!({"accessKey": {"restart": [{"kind": "Deployment", "name": "x"}]}})),
    ];
    // Documents that a weighing of actions and resources took for harmless.
    for (action, resource) in [
        ("iam:PassRole", "arn:aws:iam::*:role/a*"),
        ("sts:AssumeRole", "arn:aws:iam::*:role/Z*"),
        ("iam:*", "arn:aws:iam::123456789012:user/${aws:PrincipalTag/x}*"),
        ("iam:*", "arn:aws:iam::${aws:PrincipalAccount}:user/x"),
        ("iam:CreateRole", "arn:aws:iam::123456789012:role/own-*"),
        ("iam:CreateAccessKey", "arn:aws:iam::123456789012:user/ci-admin"),
        ("iam:UpdateLoginProfile", "arn:aws:iam::123456789012:user/ci-admin"),
        ("sso:*", "*"),
        ("organizations:*", "*"),
        ("cloudformation:*", "*"),
        ("lambda:*", "*"),
        ("ssm:*", "*"),
        ("iam:TagUser", "*"),
        ("s3:GetObject", "arn:aws:s3:::mine/*"),
    ] {
        requests.push(("a document", own(action, resource)));
    }
    requests
}

/// The managed policy of a document of this user.
fn policy_of(user: &str) -> String {
    format!("arn:aws:iam::123456789012:policy/awsdeploy/{user}/{user}+own")
}

/// A template that takes the place of a format: the schema refuses it, whatever the class allows.
fn template_of_a_format() -> Value {
    json!({"accessKey": {"secret": {"formats": ["CredentialsFile"], "template": {"AWS_ACCESS_KEY_ID": "x"}}}})
}

fn merged(mut spec: Value, change: &Value) -> Value {
    for (field, value) in change.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

pub(crate) async fn requests_beyond_the_class_are_refused() {
    let arena = Arena::new().await;
    let mut passed = Vec::new();
    for (number, (what, change)) in requests(&arena).into_iter().enumerate() {
        let spec = merged(arena.spec(), &change);
        for way in [Apply::ClientSide, Apply::ServerSide] {
            let name = format!("r{number}");
            match arena.tenant.apply_as(way, Kind::User, &name, &json!({}), &json!({ "spec": spec })).await {
                Err(refused) if refused.is_forbidden() => {}
                other => passed.push(format!("{what} ({way:?}): {other:?}")),
            }
        }
    }
    assert!(passed.is_empty(), "admission let pass:\n{}", passed.join("\n"));
    // An update is admitted as little as a creation.
    arena.create("a").await;
    let beyond_the_schema = ("the key of a format", template_of_a_format());
    for (what, change) in requests(&arena).into_iter().chain([beyond_the_schema]) {
        let refused = arena.tenant.patch(Kind::User, "a", &json!({ "spec": change })).await;
        assert!(refused.is_err(), "{what}");
    }
    arena.assert_harmless().await;
}

/// Without admission, as on a cluster whose policies were removed, and for a resource that was admitted before.
pub(crate) async fn operator_refuses_what_admission_let_pass() {
    let arena = Arena::new().await;
    arena.env.label_namespace(json!({"admission": null})).await;
    let requests = requests(&arena);
    let position = arena.env.aws.log().position();
    for (number, (what, change)) in requests.iter().enumerate() {
        let (name, spec) = (format!("r{number}"), merged(arena.spec(), change));
        let content = json!({ "spec": spec });
        let applied = async || arena.tenant.apply(Kind::User, &name, &json!({}), &content).await.ok();
        eventually("admission is off", applied, || (*what).to_owned()).await;
        let user = arena.env.wait_for_condition(&name, ConditionType::Ready, "False", None).await;
        let ready = crate::test_env::condition(&user, ConditionType::Ready).expect("Ready");
        let refused = [Reason::NotAllowed, Reason::InvalidSpec].iter().any(|reason| reason.as_str() == ready.reason);
        assert!(refused, "{what}: {ready:?}");
        assert!(!arena.tenant.exists(Kind::Secret, &name).await, "{what}");
        arena.tenant.delete(Kind::User, &name).await.expect("deleted");
    }
    let calls = arena.env.aws.log().calls_since(position);
    let for_tenant = calls.iter().filter(|call| call.mutating);
    assert_eq!(for_tenant.count(), 0, "nothing is created for a refused request: {calls:#?}");
    arena.assert_harmless().await;
}

/// The ambiguous `{namespace}-{name}` let one namespace take the name that another will need.
pub(crate) async fn names_of_two_namespaces_never_collide() {
    let arena = Arena::new().await;
    // With `-` as separator, `x` in `a-b` and `b-x` in `a` would be the same user.
    let name = format!("x-{}", arena.other);
    arena.create(&name).await;
    let users = arena.env.inspector().user_names().await.expect("the account can be read");
    let own: Vec<&String> = users.iter().filter(|user| user.contains(&name)).collect();
    assert_eq!(own, [&arena.user_name(&name)], "the namespace is a part of its own: {users:?}");
    arena.assert_harmless().await;
}

pub(crate) async fn unserved_resource_causes_no_aws_call() {
    let arena = Arena::new().await;
    arena.env.label_namespace(json!({"admission": null})).await;
    let position = arena.env.aws.log().position();
    let spec = json!({"className": "no-such-class", "credentials": "Revoked", "policies": {"managed": [POLICY]}});
    for number in 0..10 {
        let applied = async || {
            let metadata = json!({"annotations": {"awsdeploy.dev/rotate": number.to_string()}});
            arena.tenant.apply(Kind::User, "x", &metadata, &json!({ "spec": spec })).await.ok()
        };
        eventually("the resource is written", applied, String::new).await;
        arena.env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::NotAllowed)).await;
    }
    let calls = arena.env.aws.log().calls_since(position);
    let own = format!("{}_", arena.tenant.namespace);
    let named = calls.iter().filter(|call| call.params.values().any(|value| value.starts_with(&own)));
    assert_eq!(named.count(), 0, "{calls:#?}");
    arena.assert_harmless().await;
}

/// Two clusters, or two resources, whose marks an AWS admin or a tenant's key copied: the class decides.
pub(crate) async fn copied_marks_give_no_user_without_adoption() {
    let env = TestEnv::with_options(EnvOptions { arguments: vec!["--cluster-id=it"], ..EnvOptions::default() }).await;
    let marks = [
        ("awsdeploy.dev/cluster", "it"),
        ("awsdeploy.dev/namespace", env.namespace.as_str()),
        ("awsdeploy.dev/name", "x"),
        ("awsdeploy.dev/uid", "another"),
    ];
    env.aws.manual_changes().create_tagged_user("u", &marks).await.expect("a user with three of four marks");
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::NotOwned)).await;
    let writes = env.aws.log().select(|call| call.mutating && call.user.as_deref() == Some("u"));
    assert!(writes.is_empty(), "{writes:#?}");
}

/// A class that allows every policy by name allows none of another resource's document, in any spelling, and no name of a resource
/// or a document leads to one.
pub(crate) async fn policy_of_another_resource_is_never_attached() {
    let env = TestEnv::new().await;
    let statement = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let document = json!({"Version": "2012-10-17", "Statement": [statement]});
    let owned = json!({"name": "own", "document": document, "as": "Managed"});
    env.apply("victim", json!({"userName": "victim", "policies": {"documents": [owned]}})).await;
    env.wait_ready("victim").await;
    let arn = format!("arn:aws:iam::{}:policy/awsdeploy/victim/victim+own", env.account.id());
    let before = env.inspector().policy(&arn).await.expect("a read");
    assert!(before.is_some());
    let position = env.aws.log().position();
    for (name, named) in [("a", arn.clone()), ("b", arn.replace("victim+", "VICTIM+"))] {
        env.apply(name, json!({"userName": name, "policies": {"managed": [named]}})).await;
        let user = env.wait_for_condition(name, ConditionType::Ready, "False", Some(Reason::NotAllowed)).await;
        let text = crate::test_env::message(&user, ConditionType::Ready);
        assert!(text.contains("policies.documents"), "{text}");
    }
    // The separator is no part of a document's name; a user of any name has a path of its own.
    let forged = json!({"userName": "c", "policies": {"documents": [{"name": "x+own", "document": document}]}});
    env.try_apply("c", forged).await.expect_err("the schema refuses the name");
    env.apply("d", json!({"userName": "victim+own", "policies": {"documents": [owned]}})).await;
    env.wait_ready("d").await;
    assert_eq!(env.inspector().policy(&arn).await.expect("a read"), before);
    let writes = env.aws.log().calls_since(position).into_iter().filter(|call| call.mutating);
    let named = writes.filter(|call| call.params.values().any(|value| value.eq_ignore_ascii_case(&arn)));
    assert_eq!(named.count(), 0);
}
