//! The CRD schemas: descriptions and validation.

use serde_json::{Value, json};

use crate::test_env::TestEnv;

fn crds() -> [Value; 2] {
    let all = awsdeploy::api::crds_yaml().expect("the CRDs are written");
    all.map(|(_, yaml)| serde_saphyr::from_str(&yaml).expect("the CRD is YAML"))
}

pub(crate) async fn every_crd_field_has_a_description() {
    fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            // Kubernetes describes conditions, the API server metadata.
            if name == "metadata" || path.contains(".conditions.") {
                continue;
            }
            if field["description"].as_str().is_none_or(str::is_empty)
                && !["apiVersion", "kind"].contains(&name.as_str())
            {
                missing.push(path.clone());
            }
            walk(&path, field, missing);
            walk(&path, &field["items"], missing);
        }
    }
    let mut missing = Vec::new();
    for crd in crds() {
        walk("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut missing);
    }
    missing.retain(|path| path != ".status" && path != ".spec");
    assert!(missing.is_empty(), "fields without a description: {missing:?}");
}

#[allow(clippy::too_many_lines, reason = "a table: one line per rule of the schema")]
pub(crate) async fn schema_errors_state_the_allowed_values() {
    let env = TestEnv::new().await;
    for (spec, text) in [
        (json!({"userName": "a b"}), "letters, digits and + = , . @ _ - only, and no spaces"),
        (json!({"userName": "a".repeat(65)}), "64"),
        (json!({"policies": {"managed": ["arn:aws:iam::1:role/x y"]}}), "AmazonEC2FullAccess"),
        (
            json!({"policies": {"documents": [{"name": "a", "document": {}}, {"name": "a", "document": {}}]}}),
            "uplicate",
        ),
        (json!({"policies": {"documents": [{"name": "a"}]}}), "either document or template"),
        (
            json!({"policies": {"documents": [{"name": "a", "template": "t", "document": {}}]}}),
            "either document or template",
        ),
        (
            json!({"policies": {"documents": [{"name": "a", "document": {}, "parameters": {"a": "b"}}]}}),
            "needs template",
        ),
        (
            json!({"policies": {"documents": [{"name": "a", "template": "t", "parameters": {"a": "b*"}}]}}),
            "parameters[a]",
        ),
        (json!({"tags": {"aws:x": "y"}}), "reserved by AWS"),
        (json!({"tags": {"AwsDeploy.dev/cluster": "y"}}), "used by this operator"),
        (json!({"accessKey": {"useCase": "Fun"}}), "ThirdPartyService"),
        (json!({"accessKey": {"region": "useast1"}}), "such as us-east-1"),
        (json!({"accessKey": {"description": "for Cycle, production"}}), "no commas"),
        (json!({"accessKey": {"rotation": {"every": "30 days"}}}), "such as 30d, 12h, 90m or 1h30m"),
        (json!({"accessKey": {"rotation": {"overlap": "0h0m"}}}), "a duration is above zero"),
        (json!({"accessKey": {"rotation": {"overlap": "one day"}}}), "such as 30d, 12h, 90m or 1h30m"),
        (json!({"groups": ["deployers", "a b"]}), "groups[1]"),
        (json!({"tags": {"team": "a,b"}}), "tags[team]"),
        (json!({"credentials": "Paused"}), "Revoked"),
        (json!({"accessKey": {"rotation": {"every": "30d", "schedule": "0 3 1 * *"}}}), "either every or schedule"),
        (json!({"accessKey": {"rotation": {"timeZone": "UTC"}}}), "timeZone needs schedule"),
        (json!({"accessKey": {"rotation": {"every": "monthly"}}}), "every"),
        (json!({"accessKey": {"secret": {"labels": {"awsdeploy.dev/role": "x"}}}}), "set by this operator"),
        (
            json!({"accessKey": {"secret": {"formats": ["SesSmtp"]}}}),
            "Environment, CredentialsFile, Csv and ProcessJson",
        ),
        (json!({"accessKey": {"handover": [{"name": "Cycle.Hub", "within": "7d"}]}}), "handover[0].name"),
        (json!({"accessKey": {"handover": [{"name": "hub"}]}}), "handover[0].within"),
        (
            json!({"accessKey": {"handover": [{"name": "hub", "within": "7d"}, {"name": "hub", "within": "1d"}]}}),
            "uplicate",
        ),
        (json!({"accessKey": {"secret": {"formats": []}}}), "at least one of"),
        (json!({"accessKey": {"secret": {"formats": ["Csv", "Csv"]}}}), "uplicate"),
        (json!({"accessKey": {"secret": {"formats": ["Xml"]}}}), "ProcessJson"),
        (json!({"accessKey": {"secret": {"template": {"a b": "x"}}}}), "letters, digits, hyphens"),
        (json!({"accessKey": {"secret": {"template": {"..x": "x"}}}}), "does not begin with two dots"),
        (json!({"accessKey": {"secret": {"template": {"x": "y".repeat(4_097)}}}}), "4096"),
        (
            json!({"accessKey": {"secret": {"template": {"AWS_ACCESS_KEY_ID": "x"}}}}),
            "hold the access key in the formats",
        ),
        (json!({"accessKey": {"secret": {"labels": {"x": "y".repeat(64)}}}}), "63"),
        (json!({"accessKey": {"secret": {"annotations": {"x": "y".repeat(1_025)}}}}), "1024"),
        (json!({"accessKey": {"secret": {"annotations": {"x".repeat(318): "y"}}}}), "at most 317 characters"),
        (json!({"deletionPolicy": "Never"}), "Retain"),
        (json!({"polices": {}}), "polices"),
    ] {
        let error = env.try_apply("x", spec.clone()).await.expect_err(&format!("{spec} is refused")).to_string();
        assert!(error.contains(text), "{spec}: {error}");
    }
    for (spec, text) in [
        (json!({"account": {"id": "12"}}), "twelve digits"),
        (json!({"namespaces": {"names": ["a b"]}}), "names"),
        (json!({"namespaces": {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}), "need values"),
        (json!({"users": {"path": "deploy"}}), "path"),
        (json!({"users": {"path": "/team*/"}}), "wildcards and variables"),
        (json!({"users": {"path": "/${aws:username}/"}}), "wildcards and variables"),
        (json!({"users": {"nameTemplate": "{namespace}"}}), "two resources would share one IAM user name"),
        (json!({"users": {"nameTemplate": "{name}-{team}"}}), "nameTemplate"),
        (json!({"users": {"namePattern": "("}}), "namePattern"),
        (json!({"policies": {"allowed": ["arn:aws:iam::*:policy/own"]}}), "allowed"),
        (json!({"policies": {"default": ["Amazon*"]}}), "default"),
        (json!({"policies": {"documents": "Templates"}}), "TemplatesOnly"),
        (json!({"policies": {"documents": "Allow"}}), "set permissionsBoundary, or acknowledgeAdminEquivalent: true"),
        (
            json!({"policies": {"templates": [{"name": "t", "document": {}, "parameters": [{"name": "namespace"}]}]}}),
            "set by the operator",
        ),
        (
            json!({"policies": {"templates": [{"name": "t", "document": {}, "parameters": [{"name": "a", "pattern": "("}]}]}}),
            "not a regular expression",
        ),
        (
            json!({"policies": {"templates": [{"name": "t", "document": {}}, {"name": "t", "document": {}}]}}),
            "uplicate",
        ),
        (json!({"permissionsBoundary": "PowerUserAccess"}), "permissionsBoundary"),
        (json!({"rotation": {"minEvery": "Never"}}), "minEvery"),
        (json!({"tags": {"aws:x": "y"}}), "reserved by AWS"),
        (json!({"tags": {"a!": "y"}}), "letters, digits"),
        (json!({"onRevoked": "Explode"}), "Deactivate"),
        (json!({"console": true}), "console"),
    ] {
        let error = env
            .try_apply_class_without_permissions("bad", spec.clone())
            .await
            .expect_err(&format!("{spec} is refused"))
            .to_string();
        assert!(error.contains(text), "{spec}: {error}");
    }
    let class = env.apply_class("fixed", json!({"users": {"path": "/a/"}})).await;
    for spec in [
        json!({"users": {"path": "/b/"}}),
        json!({}),
        json!({"account": {"id": "123456789012"}, "users": {"path": "/a/"}}),
    ] {
        let error =
            env.try_apply_class_without_permissions("fixed", spec.clone()).await.expect_err("immutable").to_string();
        assert!(error.contains("immutable"), "{class}: {spec}: {error}");
    }
    env.try_apply("x", json!({"userName": "a"})).await.expect("a valid spec");
    for spec in [json!({"userName": "b"}), json!({})] {
        let error = env.try_apply("x", spec.clone()).await.expect_err("immutable").to_string();
        assert!(error.contains("immutable"), "{spec}: {error}");
    }
}

/// A new name would be a Secret beside the one that consumers mount.
pub(crate) async fn name_of_the_secret_is_immutable() {
    let env = TestEnv::new().await;
    let named = |name: &str| json!({"accessKey": {"secret": {"name": name}}});
    env.try_apply("named", named("a")).await.expect("a valid spec");
    env.try_apply("unnamed", json!({})).await.expect("a valid spec");
    for (resource, spec) in [
        ("named", named("b")),
        ("named", json!({"accessKey": {}})),
        ("named", json!({})),
        ("unnamed", named("a")),
        ("unnamed", json!({"console": {}, "accessKey": {"secret": {"name": "a"}}})),
    ] {
        let error = env.try_apply(resource, spec.clone()).await.expect_err("immutable").to_string();
        assert!(error.contains("accessKey.secret.name is immutable"), "{spec}: {error}");
    }
    for spec in [named("a"), json!({"console": {}}), json!({"console": {}, "accessKey": {}})] {
        env.try_apply("named", spec.clone()).await.unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
}

/// Such a field could make the operator a confused deputy.
pub(crate) async fn tenant_spec_has_no_namespace_or_address_field() {
    fn walk(path: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let (path, lower) = (format!("{path}.{name}"), name.to_lowercase());
            if ["namespace", "url", "endpoint", "host", "server"].iter().any(|word| lower.contains(word)) {
                found.push(path.clone());
            }
            walk(&path, field, found);
            walk(&path, &field["items"], found);
        }
    }
    let [users, _] = crds();
    let mut found = Vec::new();
    walk("", &users["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut found);
    assert!(found.is_empty(), "{found:?}");
}

pub(crate) async fn printer_columns_are_as_documented() {
    let columns = crds().map(|crd| {
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().expect("columns");
        let shown = columns.iter().filter(|column| column["priority"].as_i64().unwrap_or(0) == 0);
        shown.filter_map(|column| column["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    });
    assert_eq!(
        columns[0],
        ["Ready", "Reason", "User", "Secret", "Key-Age", "Next-Rotation", "Previous-Key-Until", "Age"]
    );
    assert_eq!(columns[1], ["Default", "Ready", "Reason", "Account", "Users", "Boundary", "Age"]);
}
