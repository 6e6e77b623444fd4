//! Authorization: tables of classes and resources, and a property test that no effect exceeds the class.

mod property;
mod revocation;
mod template;

use serde_json::{Value, json};

use super::*;
use crate::domain::desired;

fn user(spec: &Value) -> AwsDeployUser {
    serde_json::from_value(json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": "cycle", "namespace": "deploy", "uid": "u1"}, "spec": spec,
    }))
    .unwrap()
}

/// A class for the namespace of the tests.
fn class(spec: &Value) -> AwsDeployUserClass {
    let mut spec = spec.clone();
    if spec["namespaces"].is_null() {
        spec["namespaces"] = json!({"names": ["deploy"]});
    }
    serde_json::from_value(json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass",
        "metadata": {"name": "c", "generation": 3}, "spec": spec,
    }))
    .unwrap()
}

fn target(user: &AwsDeployUser, class: &AwsDeployUserClass) -> Target {
    Target::from_resource(user, "cluster").unwrap().with_user_name(user, Some(&class.spec.users.name_template))
}

fn ask(spec: &Value, rules: &Value) -> Result<Authorization, Vec<Violation>> {
    let (user, class) = (user(spec), class(rules));
    authorize(
        &user,
        &target(&user, &class),
        &class,
        NamespaceContext { namespace: "deploy", labels: &BTreeMap::new(), preceding_users: 0 },
    )
}

fn denial(spec: &Value, rules: &Value) -> String {
    ask(spec, rules).map_or_else(|violations| desired::describe_violations(&violations), |_| "allowed".to_owned())
}

#[test]
fn authorization_follows_the_table() {
    let managed = |name: &str| json!({"policies": {"managed": [name]}});
    let own = |document: Value| json!({"policies": {"documents": [{"name": "own", "document": document}]}});
    let harmless = json!({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]});
    let mighty = json!({"Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]});
    let templates = json!([{"name": "read", "parameters": [{"name": "bucket"}], "document": {"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::{bucket}/*"}}}]);
    let only_templates = json!({"policies": {"documents": "TemplatesOnly", "templates": templates}});
    let from_template = |values: &str| {
        let values: Value = serde_json::from_str(values).unwrap();
        json!({"policies": {"documents": [{"name": "own", "template": "read", "parameters": values}]}})
    };
    let every = |every: &str| json!({"accessKey": {"rotation": {"every": every}}});
    let secret = |content: Value| json!({"accessKey": {"secret": content}});
    let restart = json!({"accessKey": {"restart": [{"kind": "Deployment", "name": "uploader"}]}});
    let handover = |within: &str| json!({"accessKey": {"handover": [{"name": "hub", "within": within}]}});
    for (spec, rules, wanted) in [
        (json!({}), json!({}), "allowed"),
        (json!({}), json!({"namespaces": {}}), "does not serve namespace deploy; it serves: none"),
        (json!({}), json!({"namespaces": {"names": ["a", "b"]}}), "it serves: a, b"),
        (managed("AmazonEC2FullAccess"), json!({}), "does not allow AmazonEC2FullAccess; it allows: none"),
        (managed("AmazonEC2FullAccess"), json!({"policies": {"allowed": ["AmazonEC2*"]}}), "allowed"),
        (managed("AdministratorAccess"), json!({"policies": {"allowed": ["*"]}}), "acknowledgeAdminEquivalent"),
        (
            managed("AdministratorAccess"),
            json!({"policies": {"allowed": ["*"]}, "acknowledgeAdminEquivalent": true}),
            "allowed",
        ),
        (managed("AdministratorAccess"), json!({"acknowledgeAdminEquivalent": true}), "it allows: none"),
        (
            managed("arn:aws:iam::123456789012:policy/awsdeploy/u/u+d"),
            json!({"policies": {"allowed": ["*"]}, "acknowledgeAdminEquivalent": true}),
            "has the name of a policy that the operator makes for a document",
        ),
        (
            managed("arn:aws:iam::123456789012:policy/awsdeploy/boundary"),
            json!({"policies": {"allowed": ["*"]}}),
            "allowed",
        ),
        (own(harmless.clone()), json!({}), "does not allow policy documents, but own is declared"),
        (own(harmless.clone()), json!({"policies": {"documents": "Allow"}}), "neither permissionsBoundary nor"),
        (own(harmless.clone()), json!({"policies": {"documents": "Allow"}, "permissionsBoundary": "b"}), "allowed"),
        (from_template("{}"), json!({"policies": {"templates": templates}}), "does not allow policy documents"),
        (
            own(harmless.clone()),
            only_templates.clone(),
            "from its templates only, but own has one of its own; templates: read(bucket)",
        ),
        (from_template(r#"{"bucket": "logs"}"#), only_templates.clone(), "allowed"),
        (
            from_template(r#"{"bucket": "logs"}"#),
            json!({"policies": {"documents": "Allow", "templates": templates}}),
            "allowed",
        ),
        (
            from_template(r#"{"bucket": "logs"}"#),
            json!({"policies": {"documents": "TemplatesOnly"}}),
            "has no template read for own; templates: none",
        ),
        (
            from_template("{}"),
            only_templates.clone(),
            "template read needs the parameter bucket, which must match [A-Za-z0-9._-]{1,64}",
        ),
        (
            from_template(r#"{"bucket": "a", "more": "b"}"#),
            only_templates.clone(),
            "has no parameter more; it is read(bucket)",
        ),
        (from_template(r#"{"bucket": "*"}"#), only_templates.clone(), "values have 1 to 256 letters"),
        (
            from_template(r#"{"bucket": "a/b"}"#),
            only_templates.clone(),
            r#"is "a/b"; it must match [A-Za-z0-9._-]{1,64}"#,
        ),
        (
            json!({"policies": {"documents": [{"name": "own"}]}}),
            only_templates.clone(),
            "needs either document or template",
        ),
        (
            json!({"policies": {"documents": [{"name": "own", "template": "read", "document": harmless}]}}),
            json!({"policies": {"documents": "Allow", "templates": templates}}),
            "needs either document or template",
        ),
        (
            from_template(r#"{"bucket": "a"}"#),
            json!({"policies": {"documents": "TemplatesOnly", "templates": [{"name": "read", "document": {"Statement": {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::*:role/*"}}}]}}),
            "has no parameter bucket",
        ),
        // The author of the class wrote the template.
        (
            from_template("{}"),
            json!({"policies": {"documents": "TemplatesOnly", "templates": [{"name": "read", "document": {"Statement": {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::*:role/*"}}}]}}),
            "allowed",
        ),
        (
            from_template("{}"),
            json!({"policies": {"documents": "TemplatesOnly", "templates": [{"name": "read", "document": {"Statement": {"Effect": "{effect}"}}}]}}),
            "template read is invalid",
        ),
        (own(mighty), json!({"policies": {"documents": "Allow"}, "acknowledgeAdminEquivalent": true}), "allowed"),
        (json!({"groups": ["Readers"]}), json!({"groups": ["readers"]}), "allowed"),
        (json!({"groups": ["admins"]}), json!({"groups": ["readers"]}), "it allows: readers"),
        (json!({"console": {}}), json!({}), "does not allow access to the console"),
        (json!({"console": {}}), json!({"console": "Allow"}), "allowed"),
        (restart.clone(), json!({}), "does not allow restarts of workloads"),
        (restart.clone(), json!({"restart": "Allow"}), "allowed"),
        (restart.clone(), json!({"restart": "Allow", "restartTargets": ["Deployment/up*"]}), "allowed"),
        (restart, json!({"restart": "Allow", "restartTargets": ["StatefulSet/*"]}), "it allows: StatefulSet/*"),
        (json!({"accessKey": {"restart": []}}), json!({}), "allowed"),
        (json!({"userName": "ci-admin"}), json!({"users": {"namePattern": "deploy-.*"}}), "it must match deploy-.*"),
        (json!({"userName": "xdeploy-a"}), json!({"users": {"namePattern": "deploy-.*"}}), "it must match"),
        (json!({"userName": "deploy-a"}), json!({"users": {"namePattern": "deploy-.*"}}), "allowed"),
        (json!({"userName": "a"}), json!({"users": {"namePattern": "a|b"}}), "allowed"),
        (json!({"userName": "ab"}), json!({"users": {"namePattern": "a|b"}}), "it must match"),
        (json!({}), json!({"users": {"namePattern": "("}}), "so that no name matches"),
        (json!({"userName": "other_cycle"}), json!({}), "allows no userName"),
        (
            json!({"userName": "other_cycle"}),
            json!({"users": {"namePattern": "{namespace}_.*"}}),
            "must match deploy_.*",
        ),
        (json!({"userName": "deploy_a"}), json!({"users": {"namePattern": "{namespace}_.*"}}), "allowed"),
        (json!({}), json!({"users": {"namePattern": "{namespace}_.*"}}), "allowed"),
        (json!({"tags": {"Team": "b"}}), json!({"tags": {"team": "a"}}), "sets the tag team to \"a\"; remove Team"),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"team": "a"}}), "allowed"),
        (
            json!({"tags": {"Department": "finance-admin"}}),
            json!({}),
            "does not allow the tag Department; it allows: none",
        ),
        (json!({"tags": {"Department": "a"}}), json!({"tagKeys": ["team*"]}), "it allows: team*"),
        (json!({"tags": {"Team/Cost": "a"}}), json!({"tagKeys": ["team*"]}), "allowed"),
        (
            secret(json!({"labels": {"argocd.argoproj.io/secret-type": "cluster"}})),
            json!({}),
            "it allows app.kubernetes.io/name",
        ),
        (secret(json!({"labels": {"app.kubernetes.io/part-of": "argocd"}})), json!({}), "does not allow the label"),
        (secret(json!({"labels": {"app.kubernetes.io/name": "a"}})), json!({}), "allowed"),
        (secret(json!({"labels": {"team": "a"}})), json!({"secrets": {"labelKeys": ["te*"]}}), "allowed"),
        (
            secret(json!({"annotations": {"replicator/replicate-to": "*"}})),
            json!({}),
            "the annotation replicator/replicate-to",
        ),
        (secret(json!({"annotations": {"a/b": ""}})), json!({"secrets": {"annotationKeys": ["a/*"]}}), "allowed"),
        (
            secret(json!({"template": {"server": "x"}})),
            json!({}),
            "a template for the data key server; it allows: none",
        ),
        (secret(json!({"template": {"cloud": "x"}})), json!({"secrets": {"templateKeys": ["cloud"]}}), "allowed"),
        (
            secret(json!({"name": "db"})),
            json!({"secrets": {"namePattern": "aws-.*"}}),
            "the Secret name \"db\"; it must match aws-.*",
        ),
        (json!({}), json!({"secrets": {"namePattern": "aws-.*"}}), "the Secret name \"cycle\""),
        (secret(json!({"name": "aws-a"})), json!({"secrets": {"namePattern": "aws-.*"}}), "allowed"),
        (
            json!({"console": {"secretName": "db"}}),
            json!({"console": "Allow", "secrets": {"namePattern": "aws-.*"}}),
            "spec.console.secretName: class c does not allow the Secret name \"db\"",
        ),
        (every("1h"), json!({"rotation": {"minEvery": "1d"}}), "the shortest interval of class c is 1d"),
        (every("31d"), json!({"rotation": {"maxEvery": "30d"}}), "the longest interval of class c is 30d"),
        (every("Never"), json!({"rotation": {"maxEvery": "30d"}}), "every: Never is not allowed"),
        (every("Never"), json!({}), "allowed"),
        (
            handover("8d"),
            json!({"rotation": {"maxHandover": "7d"}}),
            "wait 8d for hub; the longest time of class c is 7d",
        ),
        (handover("7d"), json!({"rotation": {"maxHandover": "7d"}}), "allowed"),
        (handover("60d"), json!({}), "allowed"),
        (handover("1d"), json!({"rotation": {"maxHandover": "0.0s"}}), "has an invalid maxHandover"),
        (json!({}), json!({"rotation": {"maxEvery": "30d"}}), "allowed"),
        (json!({}), json!({"rotation": {"minEvery": "0.0s"}}), "has an invalid minEvery"),
        (
            json!({"accessKey": {"rotation": {"schedule": "0 * * 1 *"}}}),
            json!({"rotation": {"maxEvery": "30d"}}),
            "the longest interval of class c is 30d",
        ),
    ] {
        let denial = denial(&spec, &rules);
        assert!(denial.contains(wanted), "{spec} {rules}: {denial}");
    }
}

#[test]
fn class_completes_only_missing_fields() {
    let rules = json!({
        "policies": {"allowed": ["A", "B"], "default": ["A"]}, "tags": {"team": "a"},
        "rotation": {"default": {"every": "30d", "overlap": "2h", "holdWhileUsed": "3d"}},
    });
    let bare = ask(&json!({}), &rules).unwrap().user.spec;
    assert_eq!((bare.policies.managed, bare.tags["team"].as_str()), (vec!["A".to_owned()], "a"));
    let rotation = bare.access_key.unwrap().rotation;
    assert_eq!((rotation.every.as_deref(), rotation.hold_while_used), (Some("30d"), Some("3d".into())));
    let full = json!({
        "policies": {"managed": ["B"]}, "accessKey": {"rotation": {"schedule": "0 3 1 * *", "overlap": "1h"}},
    });
    let full = ask(&full, &rules).unwrap().user.spec;
    assert_eq!(full.access_key.as_ref().unwrap().rotation.hold_while_used, None, "its interval may be shorter");
    assert_eq!(full.policies.managed, ["B"]);
    assert_eq!(
        (full.access_key.clone().unwrap().rotation.every, full.access_key.unwrap().rotation.overlap),
        (None, Some("1h".into()))
    );
    let close =
        ask(&json!({}), &json!({"rotation": {"maxEvery": "7d"}})).unwrap().user.spec.access_key.unwrap().rotation.every;
    assert_eq!(close.as_deref(), Some("7d"));
    let far = ask(&json!({}), &json!({"rotation": {"minEvery": "120d"}}))
        .unwrap()
        .user
        .spec
        .access_key
        .unwrap()
        .rotation
        .every;
    assert_eq!(far.as_deref(), Some("120d"));
}

#[test]
fn existing_user_keeps_its_name() {
    let template = |user: &AwsDeployUser| {
        Target::from_resource(user, "cluster")
            .unwrap()
            .with_user_name(user, Some("t-{namespace}-{name}-{hash}"))
            .user_name
    };
    let mut user = user(&json!({}));
    let fresh = template(&user);
    assert!(fresh.starts_with("t-deploy-cycle-") && fresh.len() == "t-deploy-cycle-".len() + 8, "{fresh}");
    user.metadata.annotations = Some([("awsdeploy.dev/user-name".to_owned(), "victim".to_owned())].into());
    assert_eq!(template(&user), fresh, "a tenant can write annotations");
    let mut declared = user.clone();
    declared.spec.user_name = Some("declared".into());
    assert_eq!(template(&declared), "declared");
    for mut user in [user, declared] {
        user.status = serde_json::from_value(json!({"user": {"name": "made", "account": "a"}})).unwrap();
        assert_eq!(template(&user), "made", "the recorded name is the only one");
    }
}

#[test]
fn quota_counts_admitted_and_older_resources() {
    let resource = |uid: &str, second: u32, made: bool| -> AwsDeployUser {
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "spec": {},
            "metadata": {"name": uid, "namespace": "deploy", "uid": uid, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
                // Tenants can write this annotation.
                "finalizers": ["awsdeploy.dev/iam-user"]},
            "status": if made { json!({"user": {"name": "n", "account": "a"}}) } else { json!({}) },
        }))
        .unwrap()
    };
    let asking = resource("m", 5, false);
    let precedes = |other: &AwsDeployUser, user: &AwsDeployUser| precedes(other, user, "c");
    assert!(precedes(&resource("a", 1, false), &asking));
    assert!(!precedes(&resource("z", 9, false), &asking));
    assert!(precedes(&resource("z", 9, true), &asking));
    assert!(precedes(&resource("a", 5, false), &asking) && !precedes(&resource("z", 5, false), &asking));
    assert!(!precedes(&asking, &asking));
    let allowed_by = |class: &str, uid: &str, second: u32| {
        let mut user = resource(uid, second, true);
        let recorded = serde_json::from_value(json!({"name": class, "generation": 1, "onRevoked": "Freeze"})).unwrap();
        user.status.as_mut().unwrap().class = Some(recorded);
        user
    };
    // A user of another class waits like a new one.
    assert!(precedes(&allowed_by("c", "z", 9), &allowed_by("other", "m", 5)));
    assert!(precedes(&allowed_by("other", "z", 9), &asking), "it brings a user");
    assert!(precedes(&allowed_by("other", "a", 1), &allowed_by("other", "m", 5)), "one after the other");
    assert!(!precedes(&asking, &allowed_by("other", "z", 9)), "a resource without a user precedes no other");
    assert!(!precedes(&resource("a", 1, true), &allowed_by("c", "m", 5)));
    let (user, class) = (user(&json!({})), class(&json!({"users": {"maxPerNamespace": 2}})));
    let ask = |before| {
        authorize(
            &user,
            &target(&user, &class),
            &class,
            NamespaceContext { namespace: "deploy", labels: &BTreeMap::new(), preceding_users: before },
        )
    };
    assert!(ask(1).is_ok());
    assert!(desired::describe_violations(&ask(2).unwrap_err()).contains("allows 2 users per namespace"));
}

#[test]
fn regular_expression_longer_than_any_accepted_is_refused() {
    assert_eq!(matches_whole(&"a".repeat(MAX_PATTERN_BYTES), "a"), Ok(false));
    let error = matches_whole(&"a".repeat(MAX_PATTERN_BYTES + 1), "a").expect_err("a refusal");
    assert!(error.contains("longer than 4096 bytes"), "{error}");
}
