//! What the API server refuses: the chart's admission policies, held against the rules that the operator goes by.

use std::collections::BTreeMap;

use awsdeploy::{
    api::{AwsDeployUser, AwsDeployUserClass},
    domain::{
        authorize::{self, NamespaceContext},
        desired,
        target::Target,
    },
};
use futures::future::join_all;
use k8s_openapi::api::{core::v1::Secret, rbac::v1::RoleBinding};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::test_env::{ADMISSION_LABEL, TestEnv, eventually};

/// Who can tell that a row is forbidden.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// Nobody: it is allowed.
    Allowed,
    /// API server and operator.
    Both,
    /// The operator alone.
    Operator,
}

/// Class, resource, and who sees that it is forbidden. The namespace of the test has the label `team: a`.
fn rows() -> Vec<(Value, Value, Seen)> {
    use Seen::{Allowed, Both, Operator};
    let managed = |name: &str| json!({"policies": {"managed": [name]}});
    let allowed = |patterns: &[&str]| json!({"policies": {"allowed": patterns}});
    let selector = |selector: Value| json!({"namespaces": {"selector": selector}});
    let expression = |operator: &str, values: Value| {
        selector(json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]}))
    };
    let present = |operator: &str| selector(json!({"matchExpressions": [{"key": "team", "operator": operator}]}));
    let inline = |action: &str| json!({"policies": {"inline": [{"name": "own", "document": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}}]}});
    let templates = |mode: &str, action: &str| {
        let statement =
            |resource: &str| json!({"Statement": {"Effect": "Allow", "Action": action, "Resource": resource}});
        json!({"policies": {"inline": mode, "templates": [
            {"name": "t", "document": statement("arn:aws:s3:::{bucket}/{folder}/*"), "parameters": [{"name": "bucket"}, {"name": "folder", "pattern": "a|b"}]},
            {"name": "wide", "document": statement("*")},
        ]}})
    };
    let filled = |template: &str, parameters: Value| json!({"policies": {"inline": [{"name": "own", "template": template, "parameters": parameters}]}});
    let own_without_template = || {
        let mut spec = inline("s3:*");
        spec["policies"]["inline"][0]["template"] = Value::Null;
        spec
    };
    let every = |every: &str| json!({"accessKey": {"rotation": {"every": every, "overlap": "1m"}}});
    let restart = json!({"accessKey": {"restart": [{"kind": "Deployment", "name": "uploader"}]}});
    let name = |pattern: &str| json!({"users": {"namePattern": pattern}});
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
        // Inline policies.
        (json!({}), inline("s3:*"), Both),
        (json!({"policies": {"inline": "Allow"}}), inline("s3:*"), Allowed),
        (json!({"policies": {"inline": "Allow"}}), inline("iam:*"), Operator),
        // Templates of them.
        (templates("Deny", "s3:*"), filled("t", json!({"bucket": "logs", "folder": "a"})), Both),
        (templates("TemplatesOnly", "s3:*"), inline("s3:*"), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "logs", "folder": "a"})), Allowed),
        (templates("Allow", "s3:*"), filled("t", json!({"bucket": "logs", "folder": "b"})), Allowed),
        (templates("Allow", "s3:*"), inline("s3:*"), Allowed),
        (templates("TemplatesOnly", "s3:*"), filled("u", json!({"bucket": "logs", "folder": "a"})), Both),
        (templates("Allow", "s3:*"), filled("u", json!({})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "logs"})), Both),
        (templates("Allow", "s3:*"), filled("t", json!({})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "a", "folder": "a", "more": "a"})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "a/b", "folder": "a"})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("t", json!({"bucket": "a", "folder": "ab"})), Both),
        (templates("TemplatesOnly", "s3:*"), filled("wide", json!({})), Allowed),
        (templates("TemplatesOnly", "iam:*"), filled("wide", json!({})), Operator),
        (templates("TemplatesOnly", "{folder}"), filled("t", json!({"bucket": "logs", "folder": "a"})), Operator),
        // Groups, console, names, tags.
        (json!({"groups": ["Readers"]}), json!({"groups": ["readers"]}), Allowed),
        (json!({"groups": ["readers"]}), json!({"groups": ["readers", "admins"]}), Both),
        (json!({"groups": ["r.*"]}), json!({"groups": ["readers"]}), Both),
        (json!({"groups": ["r*"]}), json!({"groups": ["readers"]}), Allowed),
        (json!({}), json!({"console": {}}), Both),
        (json!({"console": "Allow"}), json!({"console": {}}), Allowed),
        (json!({}), restart.clone(), Both),
        (json!({"restart": "Allow"}), restart, Allowed),
        (json!({}), json!({"accessKey": {"restart": []}}), Allowed),
        (name("deploy-.*"), json!({"userName": "deploy-a"}), Allowed),
        (name("deploy-.*"), json!({"userName": "x-deploy-a"}), Both),
        (name("a|b"), json!({"userName": "ab"}), Both),
        (name("deploy-.*"), json!({}), Both),
        (json!({"users": {"namePattern": "deploy-.*", "nameTemplate": "deploy-{name}"}}), json!({}), Allowed),
        (json!({"users": {"namePattern": "deploy-.*", "nameTemplate": "x{hash}"}}), json!({}), Operator),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"Team": "a"}}), Both),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"team": "b"}}), Both),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"team": "a", "own": "b"}}), Allowed),
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

/// What the operator says, by the very function that every pass asks.
fn verdict(user: &AwsDeployUser, class: &AwsDeployUserClass, namespace: &str) -> Result<(), String> {
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

/// What the API server says to a spec as it is written, nulls in it too, without making anything.
async fn try_create(env: &TestEnv, class: &str, spec: &Value) -> Result<(), String> {
    let kind = ApiResource::erase::<AwsDeployUser>(&());
    let users: Api<DynamicObject> = Api::namespaced_with(env.client.clone(), &env.namespace, &kind);
    let mut spec = spec.clone();
    spec["className"] = json!(class);
    let object = DynamicObject::new("x", &kind).data(json!({"spec": spec}));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    users.create(&dry, &object).await.map(drop).map_err(|error| error.to_string())
}

pub(crate) async fn admission_and_operator_agree_on_every_row() {
    let env = TestEnv::new().await;
    env.label_namespace(json!({"team": "a", ADMISSION_LABEL: "yes"})).await;
    let rows = rows();
    assert!(rows.len() >= 50, "the policy is asked once for each class; many are the point");
    let made = rows.iter().enumerate().map(|(number, (class, ..))| {
        let (env, name) = (&env, format!("row{number}"));
        async move { env.try_class(&name, class.clone()).await.expect("a class") }
    });
    let classes = join_all(made).await;
    // The API server hears of classes by a watch of its own.
    let both = rows.iter().enumerate().filter(|(_, row)| row.2 == Seen::Both).map(|(number, _)| number);
    for number in both {
        let refused = async || try_create(&env, &classes[number].name_any(), &rows[number].1).await.err();
        let what = format!("{:?}", rows[number]);
        eventually(&what, refused, String::new).await;
    }
    let mut different = Vec::new();
    for (number, (class, spec, seen)) in rows.iter().enumerate() {
        let name = classes[number].name_any();
        let user = resource(&env.namespace, "x", &name, spec.clone());
        let operator = verdict(&user, &classes[number], &env.namespace);
        let server = try_create(&env, &name, spec).await;
        let found = match (&operator, &server) {
            (Ok(()), Ok(())) => Some(Seen::Allowed),
            (Err(_), Err(told)) if told.contains(&name) => Some(Seen::Both),
            (Err(_), Ok(())) => Some(Seen::Operator),
            _ => None,
        };
        if found != Some(*seen) {
            different.push(format!("{class} {spec}: {operator:?} {server:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let count = env.classes().list_metadata(&ListParams::default()).await.expect("classes").items.len();
    assert!(count >= 50, "{count}");
}

/// Who asks is a matter of RBAC, what is asked for one of the class: nobody is above it, whatever their rights.
pub(crate) async fn no_requester_gets_more_than_the_class_allows() {
    let env = TestEnv::new().await;
    env.label_namespace(json!({ADMISSION_LABEL: "yes"})).await;
    let class = env.class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    let roles: Api<RoleBinding> = Api::namespaced(env.client.clone(), &env.namespace);
    let binding = json!({
        "metadata": {"name": "tenant"}, "subjects": [{"kind": "User", "name": "tenant", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aws-deploy-user-operator-edit"},
    });
    let binding = serde_json::from_value(binding).expect("a binding");
    roles.create(&PostParams::default(), &binding).await.expect("a cluster admin lets the tenant write resources");
    let spec = |policy: &str| json!({"policies": {"managed": [policy]}});
    let allowed = resource(&env.namespace, "x", &class, spec("AmazonS3FullAccess"));
    let forbidden = resource(&env.namespace, "x", &class, spec("AmazonEC2FullAccess"));
    let actors = [
        ("cluster admin", env.client.clone(), true),
        ("tenant with the role", env.as_person("tenant").await, true),
        ("tenant of another namespace", env.as_person("stranger").await, false),
        ("operator", env.as_operator().await, false),
    ];
    let ask = async |client: &Client, user: &AwsDeployUser| {
        let users: Api<AwsDeployUser> = Api::namespaced(client.clone(), &env.namespace);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        users.create(&dry, user).await.map(drop).map_err(|error| error.to_string())
    };
    for (actor, client, may_ask) in actors {
        if !may_ask {
            for user in [&allowed, &forbidden] {
                let told = ask(&client, user).await.expect_err(actor);
                assert!(told.contains("cannot create resource \"awsdeployusers\""), "{actor}: {told}");
            }
            continue;
        }
        // API server learns of class and binding a moment late.
        let by_class = async || {
            ask(&client, &forbidden).await.err().filter(|told| told.contains("does not allow AmazonEC2FullAccess"))
        };
        eventually(actor, by_class, String::new).await;
        let taken = async || ask(&client, &allowed).await.ok();
        eventually(actor, taken, String::new).await;
        let classes: Api<AwsDeployUserClass> = Api::all(client);
        let own = AwsDeployUserClass::new(
            &format!("{}-own", env.namespace),
            awsdeploy::api::AwsDeployUserClassSpec::default(),
        );
        let made = classes.create(&PostParams { dry_run: true, ..PostParams::default() }, &own).await;
        assert_eq!(made.is_ok(), actor == "cluster admin", "{actor}: only a cluster admin makes classes");
    }
}

pub(crate) async fn denied_spec_is_refused_and_existing_one_can_be_deleted() {
    let env = TestEnv::new().await;
    env.label_namespace(json!({ADMISSION_LABEL: "yes"})).await;
    let class = env.class("c", json!({"policies": {"allowed": ["AmazonS3FullAccess"]}})).await;
    let spec = |policy: &str, suspend: bool| json!({"className": class, "userName": "u", "policies": {"managed": [policy]}, "suspend": suspend});
    let refused =
        async || env.try_dry("y", spec("AmazonEC2FullAccess", false)).await.err().map(|error| error.to_string());
    let told = eventually("a refusal", refused, String::new).await;
    assert!(
        told.contains(&format!("class {class} does not allow AmazonEC2FullAccess; it allows: AmazonS3FullAccess")),
        "{told}"
    );
    env.apply("x", spec("AmazonS3FullAccess", false)).await;
    env.ready("x").await;

    env.class("c", json!({"policies": {"allowed": ["AmazonRDSFullAccess"]}})).await;
    let refused = async || {
        env.try_dry("x", json!({"className": class, "userName": "u", "policies": {"managed": ["AmazonS3FullAccess"]}, "tags": {"a": "b"}})).await.err()
    };
    eventually("a refusal", refused, String::new).await;
    env.annotate("x", "a", "b").await;
    let user = env.apply("x", spec("AmazonS3FullAccess", true)).await;
    assert!(user.spec.suspend, "revoking keys is never forbidden");
    env.until_iam("u", "suspended", |user| user.active_keys().is_empty()).await;
    assert!(env.try_apply("x", spec("AmazonS3FullAccess", false)).await.is_err(), "giving them back is");
    env.delete("x").await;
    env.gone("x").await;
    assert!(env.iam_opt("u").await.is_none());
}

pub(crate) async fn admission_refuses_operator_writes_to_foreign_secrets() {
    let env = TestEnv::new().await;
    let secret = |name: &str, kind: &str| -> Secret {
        serde_json::from_value(json!({"metadata": {"name": name}, "type": kind, "stringData": {"a": "b"}}))
            .expect("a Secret")
    };
    env.secrets().create(&PostParams::default(), &secret("theirs", "Opaque")).await.expect("somebody's Secret");
    let operator: Api<Secret> = Api::namespaced(env.as_operator().await, &env.namespace);
    // A policy that the chart has only just made may not be in force yet.
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let in_force = async || operator.create(&dry, &secret("own", "Opaque")).await.err();
    eventually("a refusal", in_force, String::new).await;
    let told =
        operator.create(&PostParams::default(), &secret("own", "Opaque")).await.expect_err("refused").to_string();
    assert!(told.contains("not owned by an AwsDeployUser"), "{told}");
    let mut token = secret("token", "kubernetes.io/service-account-token");
    token.metadata.annotations = Some([("kubernetes.io/service-account.name".to_owned(), "default".to_owned())].into());
    let told = operator.create(&PostParams::default(), &token).await.expect_err("refused").to_string();
    assert!(told.contains("type Opaque"), "{told}");
    let mut theirs = operator.get("theirs").await.expect("what RBAC cannot tell apart can be read");
    theirs.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "name": "x", "uid": "u",
        }))
        .expect("an owner"),
    ]);
    let told = operator.replace("theirs", &PostParams::default(), &theirs).await.expect_err("refused").to_string();
    assert!(told.contains("not owned by an AwsDeployUser"), "no Secret is taken over: {told}");
    assert!(operator.delete("theirs", &DeleteParams::default()).await.is_err());
    env.secrets().delete("theirs", &DeleteParams::default()).await.expect("its owner may");

    // Elsewhere it cannot even read.
    let elsewhere: Api<Secret> = Api::namespaced(env.as_operator().await, "kube-system");
    for error in [elsewhere.get("any").await.map(drop), elsewhere.list(&ListParams::default()).await.map(drop)] {
        assert!(error.expect_err("refused").to_string().contains("forbidden"));
    }
    assert!(operator.list(&ListParams::default()).await.is_err(), "nor find out what there is");
    // And what is its own goes on.
    env.apply("x", json!({"userName": "u"})).await;
    env.ready("x").await;
}
