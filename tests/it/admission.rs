//! The admission policies of the chart, compared with the operator's own authorization.

use std::collections::BTreeMap;

use awsdeploy::{
    api::{AwsDeployUser, AwsDeployUserClass, well_known},
    domain::{
        authorize::{self, NamespaceContext},
        desired,
        target::Target,
    },
};
use futures::future::join_all;
use k8s_openapi::api::{
    core::v1::Secret,
    events::v1::Event,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{ADMISSION_LABEL, OPERATOR_NAMESPACE, TestEnv, eventually};

/// Which layer denies a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// No layer.
    Allowed,
    /// API server and operator.
    Both,
    /// Only the operator: CEL cannot express the rule.
    Operator,
}

/// Spec of the class, spec of the resource, and the layer that denies it. The namespace has the label `team: a`.
fn rows() -> Vec<(Value, Value, Expected)> {
    use Expected::{Allowed, Both, Operator};
    let boundary = "arn:aws:iam::123456789012:policy/b";
    let managed = |name: &str| json!({"policies": {"managed": [name]}});
    let allowed = |patterns: &[&str]| json!({"policies": {"allowed": patterns}});
    let selector = |selector: Value| json!({"namespaces": {"selector": selector}});
    let expression = |operator: &str, values: Value| {
        selector(json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]}))
    };
    let present = |operator: &str| selector(json!({"matchExpressions": [{"key": "team", "operator": operator}]}));
    let own = |action: &str| json!({"policies": {"documents": [{"name": "own", "document": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}}]}});
    let templates = |mode: &str, action: &str| {
        let statement =
            |resource: &str| json!({"Statement": {"Effect": "Allow", "Action": action, "Resource": resource}});
        json!({"permissionsBoundary": boundary, "policies": {"documents": mode, "templates": [
            {"name": "t", "document": statement("arn:aws:s3:::{bucket}/{folder}/*"), "parameters": [{"name": "bucket"}, {"name": "folder", "pattern": "a|b"}]},
            {"name": "wide", "document": statement("*")},
        ]}})
    };
    let filled = |template: &str, parameters: Value| json!({"policies": {"documents": [{"name": "own", "template": template, "parameters": parameters}]}});
    let own_without_template = || {
        let mut spec = own("s3:*");
        spec["policies"]["documents"][0]["template"] = Value::Null;
        spec
    };
    let every = |every: &str| json!({"accessKey": {"rotation": {"every": every, "overlap": "1m"}}});
    let restart = json!({"accessKey": {"restart": [{"kind": "Deployment", "name": "uploader"}]}});
    let handover = |within: &str| json!({"accessKey": {"handover": [{"name": "hub", "within": within}]}});
    let name = |pattern: &str| json!({"users": {"namePattern": pattern}});
    let secret = |content: Value| json!({"accessKey": {"secret": content}});
    let secrets = |rules: Value| json!({"secrets": rules});
    let restart_of = |targets: &[&str]| json!({"restart": "Allow", "restartTargets": targets});
    vec![
        // Namespaces.
        (json!({}), json!({}), Allowed),
        (json!({"namespaces": {}}), json!({}), Both),
        (json!({"namespaces": {"names": ["other"]}}), json!({}), Both),
        (json!({"namespaces": {"names": ["*"]}}), json!({}), Allowed),
        (selector(json!({"matchLabels": {"team": "a"}})), json!({}), Allowed),
        (selector(json!({"matchLabels": {"team": "b"}})), json!({}), Both),
        (selector(json!({"matchLabels": {"team": "a", "more": "x"}})), json!({}), Both),
        (selector(json!({})), json!({}), Both),
        (expression("In", json!(["a", "b"])), json!({}), Allowed),
        (expression("In", json!(["b"])), json!({}), Both),
        (expression("NotIn", json!(["a"])), json!({}), Both),
        (expression("NotIn", json!(["b"])), json!({}), Allowed),
        (present("Exists"), json!({}), Allowed),
        (present("DoesNotExist"), json!({}), Both),
        // Managed policies.
        (json!({}), managed("AmazonEC2FullAccess"), Both),
        (allowed(&["AmazonEC2FullAccess"]), managed("AmazonEC2FullAccess"), Allowed),
        (allowed(&["AmazonEC2FullAccess"]), managed("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), Allowed),
        (allowed(&["arn:aws-cn:iam::aws:policy/AmazonEC2*"]), managed("AmazonEC2FullAccess"), Allowed),
        (allowed(&["AmazonEC2FullAccess"]), managed("AmazonEC2FullAccessX"), Both),
        (allowed(&["Amazon.C2FullAccess"]), managed("AmazonEC2FullAccess"), Both),
        (allowed(&["A+B"]), managed("AAB"), Both),
        (allowed(&["A+B"]), managed("A+B"), Allowed),
        (allowed(&["deploy*"]), managed("arn:aws:iam::123456789012:policy/deploy"), Both),
        (allowed(&["*deploy"]), managed("arn:aws:iam::123456789012:policy/deploy"), Both),
        (allowed(&["*"]), managed("arn:aws:iam::123456789012:policy/deploy"), Allowed),
        (allowed(&["arn:aws:iam::aws:policy/*"]), managed("arn:aws:iam::123456789012:policy/deploy"), Both),
        (allowed(&["arn:aws:iam::aws:policy/*"]), managed("job-function/ViewOnlyAccess"), Allowed),
        (allowed(&["arn:aws:iam::aws:policy/*"]), managed("AdministratorAccess"), Both),
        (allowed(&["arn:aws:iam::123456789012:policy/a/*"]), managed("arn:aws:iam::123456789012:policy/a/b"), Allowed),
        (allowed(&["arn:aws:iam::123456789012:policy/a/*"]), managed("arn:aws:iam::123456789013:policy/a/b"), Both),
        (json!({"policies": {"allowed": ["A"], "default": ["B"]}}), json!({}), Both),
        (json!({"policies": {"allowed": ["A"], "default": ["B"]}}), managed("A"), Allowed),
        // Policies of documents of other resources.
        (allowed(&["*"]), managed("arn:aws:iam::123456789012:policy/awsdeploy/u/u+d"), Both),
        (allowed(&["arn:aws:iam::123456789012:policy/a/*"]), managed("arn:aws:iam::123456789012:policy/a/U/u+d"), Both),
        (allowed(&["*"]), managed("arn:aws:iam::123456789012:policy/u/u+d"), Both),
        (allowed(&["*"]), managed("arn:aws:iam::123456789012:policy/awsdeploy/boundary"), Allowed),
        (allowed(&["*"]), managed("arn:aws:iam::123456789012:policy/awsdeploy/u/v+d"), Allowed),
        // Administrators.
        (allowed(&["*"]), managed("AdministratorAccess"), Both),
        (allowed(&["*"]), managed("arn:aws:iam::aws:policy/administratoraccess-amplify"), Both),
        (allowed(&["*"]), managed("IAMFullAccess"), Both),
        (allowed(&["*"]), managed("arn:aws:iam::123456789012:policy/AdministratorAccess"), Allowed),
        (
            json!({"policies": {"allowed": ["*"]}, "acknowledgeAdminEquivalent": true}),
            managed("AdministratorAccess"),
            Allowed,
        ),
        (json!({"acknowledgeAdminEquivalent": true}), managed("AdministratorAccess"), Both),
        // Documents.
        (json!({}), own("s3:*"), Both),
        (json!({"policies": {"documents": "Allow"}, "acknowledgeAdminEquivalent": true}), own("iam:*"), Allowed),
        (json!({"policies": {"documents": "Allow"}, "permissionsBoundary": boundary}), own("iam:*"), Allowed),
        // Templates of them.
        (templates("Deny", "s3:*"), filled("t", json!({"bucket": "logs", "folder": "a"})), Both),
        (templates("TemplatesOnly", "s3:*"), own("s3:*"), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "logs", "folder": "a"})), Allowed),
        (templates("Allow", "s3:*"), filled("t", json!({"bucket": "logs", "folder": "b"})), Allowed),
        (templates("Allow", "s3:*"), own("s3:*"), Allowed),
        (templates("TemplatesOnly", "s3:*"), filled("u", json!({"bucket": "logs", "folder": "a"})), Both),
        (templates("Allow", "s3:*"), filled("u", json!({})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "logs"})), Both),
        (templates("Allow", "s3:*"), filled("t", json!({})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "a", "folder": "a", "more": "a"})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "a/b", "folder": "a"})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "a", "folder": "ab"})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("wide", json!({})), Allowed),
        (templates("TemplatesOnly", "iam:*"), filled("wide", json!({})), Allowed),
        (templates("TemplatesOnly", "{folder}"), filled("t", json!({"bucket": "logs", "folder": "a"})), Operator),
        // Groups, console, names, tags.
        (json!({"groups": ["Readers"]}), json!({"groups": ["readers"]}), Allowed),
        (json!({"groups": ["readers"]}), json!({"groups": ["readers", "admins"]}), Both),
        (json!({"groups": ["r.*"]}), json!({"groups": ["readers"]}), Both),
        (json!({"groups": ["r*"]}), json!({"groups": ["readers"]}), Allowed),
        (json!({}), json!({"console": {}}), Both),
        (json!({"console": "Allow"}), json!({"console": {}}), Allowed),
        (json!({}), restart.clone(), Both),
        (json!({"restart": "Allow"}), restart.clone(), Allowed),
        (restart_of(&["Deployment/up*"]), restart.clone(), Allowed),
        (restart_of(&["*"]), restart.clone(), Allowed),
        (restart_of(&["StatefulSet/*", "Deployment/up"]), restart, Both),
        (json!({}), json!({"accessKey": {"restart": []}}), Allowed),
        (name("deploy-.*"), json!({"userName": "deploy-a"}), Allowed),
        (name("deploy-.*"), json!({"userName": "x-deploy-a"}), Both),
        (name("a|b"), json!({"userName": "ab"}), Both),
        (name("deploy-.*"), json!({}), Both),
        (name("{namespace}_.*"), json!({}), Allowed),
        (name("{namespace}_.*"), json!({"userName": "other_x"}), Both),
        (json!({"users": {"namePattern": null}}), json!({"userName": "other_x"}), Both),
        (json!({"users": {"namePattern": null}}), json!({}), Allowed),
        (json!({"users": {"namePattern": "deploy-.*", "nameTemplate": "deploy-{name}"}}), json!({}), Allowed),
        (json!({"users": {"namePattern": "deploy-.*", "nameTemplate": "x{hash}"}}), json!({}), Operator),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"Team": "a"}}), Both),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"team": "b"}}), Both),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"team": "a", "own": "b"}}), Both),
        (json!({"tags": {"team": "a"}, "tagKeys": ["own"]}), json!({"tags": {"team": "a", "own": "b"}}), Allowed),
        (json!({}), json!({"tags": {"Department": "finance-admin"}}), Both),
        (json!({"tagKeys": ["*"]}), json!({"tags": {"Department": "finance-admin"}}), Allowed),
        (json!({"tagKeys": ["a.c", "cost*"]}), json!({"tags": {"Cost/Center": "b"}}), Allowed),
        (json!({"tagKeys": ["a.c", "cost*"]}), json!({"tags": {"abc": "b"}}), Both),
        // Secrets.
        (json!({}), secret(json!({"labels": {"app.kubernetes.io/name": "a"}})), Allowed),
        (json!({}), secret(json!({"labels": {"argocd.argoproj.io/secret-type": "cluster"}})), Both),
        (json!({}), secret(json!({"annotations": {"replicator/replicate-to": "all"}})), Both),
        (json!({}), secret(json!({"template": {"server": "x"}})), Both),
        (secrets(json!({"labelKeys": ["team", "a.example/*"]})), secret(json!({"labels": {"team": "a"}})), Allowed),
        (
            secrets(json!({"labelKeys": ["team", "a.example/*"]})),
            secret(json!({"labels": {"a.example/b": "a"}})),
            Allowed,
        ),
        (secrets(json!({"labelKeys": ["team", "a.example/*"]})), secret(json!({"labels": {"a-example/b": "a"}})), Both),
        (secrets(json!({"annotationKeys": ["a/*"]})), secret(json!({"annotations": {"a/b": "c"}})), Allowed),
        (secrets(json!({"annotationKeys": ["a/*"]})), secret(json!({"annotations": {"b/a": "c"}})), Both),
        (secrets(json!({"templateKeys": ["cloud"]})), secret(json!({"template": {"cloud": "x"}})), Allowed),
        (secrets(json!({"templateKeys": ["cloud"]})), secret(json!({"template": {"cloud": "x", "url": "y"}})), Both),
        (secrets(json!({"namePattern": "aws-.*"})), json!({}), Both),
        (secrets(json!({"namePattern": "aws-.*"})), secret(json!({"name": "aws-a"})), Allowed),
        (secrets(json!({"namePattern": "aws-.*"})), secret(json!({"name": "db"})), Both),
        (
            json!({"console": "Allow", "secrets": {"namePattern": "aws-.*"}}),
            json!({"console": {"secretName": "aws-a"}}),
            Allowed,
        ),
        (json!({"console": "Allow", "secrets": {"namePattern": "x"}}), json!({"console": {}, "accessKey": {}}), Both),
        // Rotation.
        (json!({"rotation": {"maxEvery": "30d"}}), every("30d"), Allowed),
        (json!({"rotation": {"maxEvery": "30d"}}), every("5w"), Both),
        (json!({"rotation": {"maxEvery": "30d"}}), every("Never"), Both),
        (json!({"rotation": {"maxEvery": "30d"}}), every("30d12h"), Operator),
        (json!({"rotation": {"minEvery": "2h"}}), every("119m"), Both),
        (json!({"rotation": {"minEvery": "2h"}}), every("120m"), Allowed),
        (
            json!({"rotation": {"maxEvery": "30d"}}),
            json!({"accessKey": {"rotation": {"schedule": "0 3 1 1 *"}}}),
            Operator,
        ),
        (json!({"rotation": {"maxEvery": "30d"}}), json!({}), Allowed),
        // Handover.
        (json!({}), handover("60d"), Allowed),
        (json!({"rotation": {"maxHandover": "7d"}}), handover("168h"), Allowed),
        (json!({"rotation": {"maxHandover": "7d"}}), handover("169h"), Both),
        (json!({"rotation": {"maxHandover": "7d"}}), handover("7d1h"), Operator),
        (json!({"rotation": {"maxHandover": null}}), handover("60d"), Allowed),
        // Null is the same as absent.
        (json!({}), json!({"userName": null, "console": null, "accessKey": null}), Allowed),
        (name("deploy-.*"), json!({"userName": null}), Both),
        (
            json!({"rotation": {"minEvery": "2h", "maxEvery": "100d"}}),
            json!({"accessKey": {"rotation": {"every": null, "schedule": null, "overlap": null}}}),
            Allowed,
        ),
        (json!({"rotation": {"minEvery": null, "maxEvery": null}}), every("52w"), Allowed),
        (templates("TemplatesOnly", "s3:*"), own_without_template(), Both),
        (templates("Allow", "s3:*"), own_without_template(), Allowed),
    ]
}

fn resource(namespace: &str, name: &str, class: &str, mut spec: Value) -> AwsDeployUser {
    spec["className"] = json!(class);
    serde_json::from_value(json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    }))
    .expect("a resource")
}

/// The decision of the operator, by the function that every reconcile calls.
fn operator_decision(user: &AwsDeployUser, class: &AwsDeployUserClass, namespace: &str) -> Result<(), String> {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned()), (ADMISSION_LABEL.to_owned(), "yes".to_owned())]);
    let mut user = user.clone();
    user.metadata.uid = Some("u".to_owned());
    let target = Target::from_resource(&user, "cluster")
        .expect("names")
        .with_user_name(&user, Some(&class.spec.users.name_template));
    let facts = NamespaceContext { namespace, labels: &labels, preceding_users: 0 };
    authorize::authorize(&user, &target, class, facts)
        .map(drop)
        .map_err(|violations| desired::describe_violations(&violations))
}

/// The decision of the API server by a dry run; the spec is sent with its nulls.
async fn server_decision(env: &TestEnv, class: &str, spec: &Value) -> Result<(), String> {
    let kind = ApiResource::erase::<AwsDeployUser>(&());
    let users: Api<DynamicObject> = Api::namespaced_with(env.client.clone(), &env.namespace, &kind);
    let mut spec = spec.clone();
    spec["className"] = json!(class);
    let object = DynamicObject::new("x", &kind).data(json!({"spec": spec}));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    users.create(&dry, &object).await.map(drop).map_err(|error| error.to_string())
}

/// The one refusal that no class lifts, so that it names none.
const OF_DOCUMENTS: &str = "has the name of a policy that the operator makes for a document";

pub(crate) async fn admission_and_operator_agree_on_every_row() {
    let env = TestEnv::new().await;
    env.label_namespace(json!({"team": "a", ADMISSION_LABEL: "yes"})).await;
    let rows = rows();
    assert!(rows.len() >= 50, "many classes are needed, as admission is evaluated for each");
    let classes = rows.iter().enumerate().map(|(number, (class, ..))| {
        let (env, name) = (&env, format!("row{number}"));
        async move { env.try_apply_class(&name, class.clone()).await.expect("a class") }
    });
    let classes = join_all(classes).await;
    // The API server caches classes by a watch and learns of them late.
    let both = rows.iter().enumerate().filter(|(_, row)| row.2 == Expected::Both).map(|(number, _)| number);
    for number in both {
        let refused = async || server_decision(&env, &classes[number].name_any(), &rows[number].1).await.err();
        let what = format!("{:?}", rows[number]);
        eventually(&what, refused, String::new).await;
    }
    let mut different = Vec::new();
    for (number, (class, spec, expected)) in rows.iter().enumerate() {
        let name = classes[number].name_any();
        let user = resource(&env.namespace, "x", &name, spec.clone());
        let operator = operator_decision(&user, &classes[number], &env.namespace);
        let server = server_decision(&env, &name, spec).await;
        let found = match (&operator, &server) {
            (Ok(()), Ok(())) => Some(Expected::Allowed),
            (Err(_), Err(text)) if text.contains(&name) || text.contains(OF_DOCUMENTS) => Some(Expected::Both),
            (Err(_), Ok(())) => Some(Expected::Operator),
            _ => None,
        };
        if found != Some(*expected) {
            different.push(format!("{class} {spec}: {operator:?} {server:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let count = env.classes().list_metadata(&ListParams::default()).await.expect("classes").items.len();
    assert!(count >= 50, "{count}");
}

/// RBAC decides who may write resources; the class limits what every requester may ask for.
pub(crate) async fn no_requester_gets_more_than_the_class_allows() {
    let env = TestEnv::new().await;
    env.label_namespace(json!({ADMISSION_LABEL: "yes"})).await;
    let class = env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    let roles: Api<RoleBinding> = Api::namespaced(env.client.clone(), &env.namespace);
    let binding = json!({
        "metadata": {"name": "tenant"}, "subjects": [{"kind": "User", "name": "tenant", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aws-deploy-user-operator-edit"},
    });
    let binding = serde_json::from_value(binding).expect("a binding");
    roles.create(&PostParams::default(), &binding).await.expect("the tenant may write resources");
    let spec = |policy: &str| json!({"policies": {"managed": [policy]}});
    let allowed = resource(&env.namespace, "x", &class, spec("AmazonS3FullAccess"));
    let forbidden = resource(&env.namespace, "x", &class, spec("AmazonEC2FullAccess"));
    let actors = [
        ("cluster admin", env.client.clone(), true),
        ("tenant with the role", env.client_as("tenant").await, true),
        ("tenant of another namespace", env.client_as("stranger").await, false),
        ("operator", env.operator_client().await, false),
    ];
    let dry_run_create = async |client: &Client, user: &AwsDeployUser| {
        let users: Api<AwsDeployUser> = Api::namespaced(client.clone(), &env.namespace);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        users.create(&dry, user).await.map(drop).map_err(|error| error.to_string())
    };
    for (actor, client, may_create) in actors {
        if !may_create {
            for user in [&allowed, &forbidden] {
                let text = dry_run_create(&client, user).await.expect_err(actor);
                assert!(text.contains("cannot create resource \"awsdeployusers\""), "{actor}: {text}");
            }
            continue;
        }
        // The API server caches class and binding and learns of them late.
        let by_class = async || {
            dry_run_create(&client, &forbidden)
                .await
                .err()
                .filter(|text| text.contains("does not allow AmazonEC2FullAccess"))
        };
        eventually(actor, by_class, String::new).await;
        let accepted = async || dry_run_create(&client, &allowed).await.ok();
        eventually(actor, accepted, String::new).await;
        let classes: Api<AwsDeployUserClass> = Api::all(client);
        let own = AwsDeployUserClass::new(
            &format!("{}-own", env.namespace),
            awsdeploy::api::AwsDeployUserClassSpec::default(),
        );
        let created = classes.create(&PostParams { dry_run: true, ..PostParams::default() }, &own).await;
        assert_eq!(created.is_ok(), actor == "cluster admin", "{actor}: only a cluster admin may create classes");
    }
}

pub(crate) async fn denied_spec_is_refused_and_existing_one_can_be_deleted() {
    let env = TestEnv::new().await;
    env.label_namespace(json!({ADMISSION_LABEL: "yes"})).await;
    let class = env.apply_class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    let spec = |policy: &str, credentials: &str| json!({"className": class, "userName": "u", "policies": {"managed": [policy]}, "credentials": credentials});
    let refused = async || {
        env.dry_run_apply("y", spec("AmazonEC2FullAccess", "Active")).await.err().map(|error| error.to_string())
    };
    let text = eventually("a refusal", refused, String::new).await;
    assert!(
        text.contains(&format!("class {class} does not allow AmazonEC2FullAccess; it allows: AmazonS3FullAccess")),
        "{text}"
    );
    env.apply("x", spec("AmazonS3FullAccess", "Active")).await;
    env.wait_ready("x").await;

    env.apply_class("c", json!({"policies": {"allowed": ["AmazonRDSFullAccess"]}})).await;
    let refused = async || {
        env.dry_run_apply("x", json!({"className": class, "userName": "u", "policies": {"managed": ["AmazonS3FullAccess"]}, "tags": {"a": "b"}})).await.err()
    };
    eventually("a refusal", refused, String::new).await;
    let error = env
        .dry_run_apply("x", spec("AmazonEC2FullAccess", "Revoked"))
        .await
        .expect_err("a revocation changes nothing else");
    assert!(error.to_string().contains("does not allow AmazonEC2FullAccess"), "{error}");
    env.annotate("x", "a", "b").await;
    let user = env.apply("x", spec("AmazonS3FullAccess", "Revoked")).await;
    assert!(user.spec.credentials_revoked(), "a revocation is never refused");
    env.wait_for_iam("u", "revoked", |user| user.active_keys().is_empty()).await;
    assert!(env.try_apply("x", spec("AmazonS3FullAccess", "Active")).await.is_err(), "resuming is refused");
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert!(env.iam_opt("u").await.is_none());
}

pub(crate) async fn admission_refuses_operator_writes_to_foreign_secrets() {
    let env = TestEnv::new().await;
    let secret = |name: &str, kind: &str| -> Secret {
        serde_json::from_value(json!({"metadata": {"name": name}, "type": kind, "stringData": {"a": "b"}}))
            .expect("a Secret")
    };
    env.secrets().create(&PostParams::default(), &secret("theirs", "Opaque")).await.expect("an unmanaged Secret");
    let operator: Api<Secret> = Api::namespaced(env.operator_client().await, &env.namespace);
    // A policy that was just created may not be enforced yet.
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let in_force = async || operator.create(&dry, &secret("own", "Opaque")).await.err();
    eventually("a refusal", in_force, String::new).await;
    let text =
        operator.create(&PostParams::default(), &secret("own", "Opaque")).await.expect_err("refused").to_string();
    assert!(text.contains("not owned by an AwsDeployUser"), "{text}");
    let mut token = secret("token", "kubernetes.io/service-account-token");
    token.metadata.annotations = Some([("kubernetes.io/service-account.name".to_owned(), "default".to_owned())].into());
    let text = operator.create(&PostParams::default(), &token).await.expect_err("refused").to_string();
    assert!(text.contains("a type other than Opaque"), "{text}");
    let mut theirs = operator.get("theirs").await.expect("RBAC cannot restrict reads by owner");
    theirs.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "name": "x", "uid": "u",
        }))
        .expect("an owner"),
    ]);
    let text = operator.replace("theirs", &PostParams::default(), &theirs).await.expect_err("refused").to_string();
    assert!(text.contains("not owned by an AwsDeployUser"), "no Secret is taken over: {text}");
    assert!(operator.delete("theirs", &DeleteParams::default()).await.is_err());
    env.secrets().delete("theirs", &DeleteParams::default()).await.expect("its owner may");

    // In other namespaces it cannot even read.
    let elsewhere: Api<Secret> = Api::namespaced(env.operator_client().await, "kube-system");
    for error in [elsewhere.get("any").await.map(drop), elsewhere.list(&ListParams::default()).await.map(drop)] {
        assert!(error.expect_err("refused").to_string().contains("forbidden"));
    }
    assert!(operator.list(&ListParams::default()).await.is_err(), "it cannot list Secrets either");
    // Its own Secrets remain writable.
    env.apply("x", json!({"userName": "u"})).await;
    env.wait_ready("x").await;
}

pub(crate) async fn operator_writes_only_its_own_secrets_in_its_namespace() {
    let env = TestEnv::new().await;
    let secret = |name: &str, owner: Value| -> Secret {
        let labels = json!({"app.kubernetes.io/managed-by": "aws-deploy-user-operator"});
        let metadata = json!({"name": name, "labels": labels, "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata, "type": "Opaque"})).expect("a Secret")
    };
    let operator: Api<Secret> = Api::namespaced(env.operator_client().await, OPERATOR_NAMESPACE);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let refusal = async |secret: Secret| operator.create(&dry, &secret).await.err().map(|error| error.to_string());
    // A policy that was just created may not be enforced yet.
    let in_force = async || refusal(secret("token", json!([]))).await;
    let text = eventually("a refusal", in_force, String::new).await;
    assert!(text.contains("named awsdeploy-journal-*"), "{text}");
    let owner = json!([{"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "name": "x", "uid": "u", "controller": true}]);
    assert!(refusal(secret("awsdeploy-journal-u", owner)).await.is_some_and(|text| text.contains("without an owner")));
    assert_eq!(refusal(secret("awsdeploy-journal-u", json!([]))).await, None, "a journal");
    assert!(refusal(secret("awsdeploy-other", json!([]))).await.is_some_and(|text| text.contains("create only")));
    // A stolen token of the operator neither replaces nor deletes the MAC key. This operator has created it.
    let key = well_known::INTEGRITY_KEY_SECRET;
    let refused = refusal(secret(key, json!([]))).await;
    assert!(refused.is_some_and(|text| text.contains("already exists")), "it may create the MAC key");
    let stored = operator.get(key).await.expect("the MAC key");
    let replaced = operator.replace(key, &dry, &stored).await.expect_err("refused").to_string();
    assert!(replaced.contains("create only"), "{replaced}");
    let delete = DeleteParams { dry_run: true, ..DeleteParams::default() };
    assert!(operator.delete(key, &delete).await.expect_err("refused").to_string().contains("create only"));
}

pub(crate) async fn operator_secret_keeps_its_owner_and_its_label() {
    let env = TestEnv::new().await;
    let owner = env.apply("x", json!({"credentials": "Revoked"})).await.controller_owner_ref(&()).expect("an owner");
    let owner = serde_json::to_value(owner).expect("JSON");
    let another = |field: &str, value: Value| {
        let mut owner = owner.clone();
        owner[field] = value;
        owner
    };
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "uid": "u"});
    let secret = |change: Value| -> Secret {
        let mut metadata = json!({
            "name": "own", "ownerReferences": [owner],
            "labels": {"app.kubernetes.io/managed-by": "aws-deploy-user-operator", "awsdeploy.dev/role": "published"},
        });
        for (field, value) in change.as_object().expect("an object") {
            metadata[field] = value.clone();
        }
        serde_json::from_value(json!({"metadata": metadata, "data": {"a": "Yg=="}})).expect("a Secret")
    };
    let operator: Api<Secret> = Api::namespaced(env.operator_client().await, &env.namespace);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let create =
        async |change: Value| operator.create(&dry, &secret(change)).await.map(drop).map_err(|error| error.to_string());
    let in_force = async || create(json!({"ownerReferences": []})).await.err();
    eventually("a refusal", in_force, String::new).await;
    for (change, text) in [
        (json!({"ownerReferences": [another("controller", json!(false))]}), "not owned by an AwsDeployUser"),
        (json!({"ownerReferences": [another("kind", json!("ConfigMap"))]}), "not owned by an AwsDeployUser"),
        // The garbage collector would keep it for this owner.
        (json!({"ownerReferences": [owner, config_map]}), "not owned by an AwsDeployUser"),
        (json!({"finalizers": ["example.com/never"]}), "another owner or finalizer"),
        (json!({"labels": {"argocd.argoproj.io/secret-type": "cluster"}}), "without its label"),
    ] {
        let refused = create(change.clone()).await.expect_err("refused");
        assert!(refused.contains(text), "{change}: {refused}");
    }
    operator.create(&PostParams::default(), &secret(json!({}))).await.expect("a Secret of the resource");

    let released = json!({"ownerReferences": []});
    let mut changed = secret(released.clone());
    changed.data.get_or_insert_default().clear();
    let annotated =
        json!({"ownerReferences": [], "annotations": {"replicator.v1.mittwald.de/replicate-to": "kube-system"}});
    for (replacement, text) in [
        (secret(json!({"ownerReferences": [another("uid", json!("v"))]})), "another owner or finalizer"),
        (secret(json!({"ownerReferences": [owner, config_map]})), "another owner or finalizer"),
        (secret(json!({"finalizers": ["example.com/never"]})), "another owner or finalizer"),
        (secret(json!({"ownerReferences": [], "labels": {}})), "without its label"),
        (secret(annotated), "content of a Secret whose owner"),
        (changed, "content of a Secret whose owner"),
    ] {
        let refused = operator.replace("own", &dry, &replacement).await.expect_err("refused").to_string();
        assert!(refused.contains(text), "{refused}");
    }
    operator.replace("own", &dry, &secret(released)).await.expect("deletionPolicy: Retain releases it unchanged");
}

pub(crate) async fn operator_publishes_events_about_its_resources_only() {
    let env = TestEnv::new().await;
    let client = env.operator_client().await;
    let publish = async |namespace: &str, api_version: &str, kind: &str| {
        let event: Event = serde_json::from_value(json!({
            "metadata": {"generateName": "x"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Warning",
            "reason": "Failed", "action": "Reconcile", "reportingController": "test", "reportingInstance": "test",
            "regarding": {"apiVersion": api_version, "kind": kind, "name": "x", "namespace": namespace},
        }))
        .expect("an Event");
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        events.create(&dry, &event).await.map(drop).map_err(|error| error.to_string())
    };
    let in_force = async || publish("kube-system", "v1", "Pod").await.err();
    let text = eventually("a refusal", in_force, String::new).await;
    assert!(text.contains("about anything but AwsDeployUsers"), "{text}");
    assert!(publish(&env.namespace, "v1", "Secret").await.is_err());
    assert!(publish(&env.namespace, "example.com/v1", "AwsDeployUser").await.is_err());
    publish(&env.namespace, "awsdeploy.dev/v1alpha1", "AwsDeployUser").await.expect("its own kind");
}

/// The tenant has all verbs on the whole API group in its namespace.
pub(crate) async fn tenant_cannot_write_the_records_of_the_operator() {
    let env = TestEnv::new().await;
    env.apply("x", json!({})).await;
    env.wait_ready("x").await;
    let role: Role = serde_json::from_value(json!({
        "metadata": {"name": "owner"}, "rules": [{"apiGroups": ["awsdeploy.dev"], "resources": ["*"], "verbs": ["*"]}],
    }))
    .expect("a role");
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "owner"}, "subjects": [{"kind": "User", "name": "owner", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "owner"},
    }))
    .expect("a binding");
    let (roles, bindings) =
        (Api::namespaced(env.client.clone(), &env.namespace), Api::namespaced(env.client.clone(), &env.namespace));
    roles.create(&PostParams::default(), &role).await.expect("a role");
    bindings.create(&PostParams::default(), &binding).await.expect("a binding");
    let users: Api<AwsDeployUser> = Api::namespaced(env.client_as("owner").await, &env.namespace);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let create = async |metadata: Value| {
        let mut user = resource(&env.namespace, "y", "default", json!({}));
        user.metadata.finalizers = serde_json::from_value(metadata["finalizers"].clone()).expect("finalizers");
        user.metadata.labels = serde_json::from_value(metadata["labels"].clone()).expect("labels");
        user.metadata.annotations = serde_json::from_value(metadata["annotations"].clone()).expect("annotations");
        users.create(&dry, &user).await.map(drop).map_err(|error| error.to_string())
    };
    let may_create = async || create(json!({"annotations": {"awsdeploy.dev/rotate": "1"}})).await.ok();
    eventually("the role is effective", may_create, String::new).await;
    let finalizer = "finalizers awsdeploy.dev/...";
    for (metadata, text) in [
        (json!({"finalizers": ["awsdeploy.dev/iam-user"]}), finalizer),
        (json!({"annotations": {"awsdeploy.dev/user-name": "victim"}}), "annotations awsdeploy.dev/..."),
        (json!({"labels": {"awsdeploy.dev/user": "victim"}}), "labels awsdeploy.dev/..."),
    ] {
        let refused = create(metadata.clone()).await.expect_err("refused");
        assert!(refused.contains(text), "{metadata}: {refused}");
    }
    let patch = async |users: &Api<AwsDeployUser>, change: &Value| {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        users.patch("x", &params, &Patch::Merge(change)).await.map(drop).map_err(|error| error.to_string())
    };
    let no_finalizer = json!({"metadata": {"finalizers": []}});
    let refused = patch(&users, &no_finalizer).await.expect_err("refused");
    assert!(refused.contains(finalizer), "{refused}");
    let status = json!({"status": {"user": {"name": "victim"}}});
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let refused = users.patch_status("x", &params, &Patch::Merge(&status)).await.expect_err("refused").to_string();
    assert!(refused.contains("only the operator writes the status"), "{refused}");
    let requests = json!({"awsdeploy.dev/rotate": "2", "awsdeploy.dev/reset-password": "2", "awsdeploy.dev/retry": "2", "awsdeploy.dev/paused": "true", "handover.awsdeploy.dev/hub": "AKIA1", "example.com/a": "b"});
    patch(&users, &json!({"metadata": {"annotations": requests}})).await.expect("requests are for everyone");
    patch(&env.users(), &no_finalizer).await.expect("a cluster admin may remove a finalizer after an uninstall");
}
