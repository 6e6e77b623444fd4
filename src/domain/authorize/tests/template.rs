//! Templates of inline policies: what values can and cannot change.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    NamespaceContext, check_still_allowed,
    template::{Values, builtin_values, check, could_render, describe_faults, render},
};
use crate::{
    api::class::PolicyTemplate,
    domain::{
        current_state::{Grants, IamUser},
        managed_policy::CurrentPolicies,
    },
};

fn template(document: &Value, parameters: &Value) -> PolicyTemplate {
    serde_json::from_value(json!({"name": "t", "document": document, "parameters": parameters})).unwrap()
}

fn statement(statement: &Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

/// Template with parameters and builtin placeholders.
fn folder() -> PolicyTemplate {
    template(
        &statement(&json!({
            "Sid": "Folder", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": ["arn:aws:s3:::{bucket}/{folder}/*", "arn:aws:s3:::{bucket}-{accountId}/${aws:username}/{namespace}/{name}/*"],
            "Condition": {"StringLike": {"s3:prefix": "{folder}/*", "aws:PrincipalTag/team": ["{bucket}"]}, "Bool": {"aws:SecureTransport": true}},
        })),
        &json!([{"name": "bucket"}, {"name": "folder", "pattern": "[a-z-]{1,20}|[0-9]{2}"}]),
    )
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn own() -> Values {
    builtin_values("deploy", Some("cycle"), Some("123456789012"))
}

#[test]
fn template_is_rendered_and_policy_variables_are_kept() {
    let filled = render(&folder(), &values(&[("bucket", "logs"), ("folder", "in")]), &own()).unwrap();
    let wanted = statement(&json!({
        "Sid": "Folder", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": ["arn:aws:s3:::logs/in/*", "arn:aws:s3:::logs-123456789012/${aws:username}/deploy/cycle/*"],
        "Condition": {"StringLike": {"s3:prefix": "in/*", "aws:PrincipalTag/team": ["logs"]}, "Bool": {"aws:SecureTransport": true}},
    }));
    assert_eq!(filled, wanted);
}

#[test]
fn placeholder_at_a_fixed_position_is_rejected() {
    let bucket = json!([{"name": "bucket"}]);
    let allow = |more: Value| {
        let mut whole = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::{bucket}"});
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        statement(&whole)
    };
    let mut version = allow(json!({}));
    version["Version"] = json!("{bucket}");
    for (document, parameters, expected) in [
        (allow(json!({"Effect": "{bucket}"})), &bucket, "placeholders are allowed in Resource"),
        (allow(json!({"Action": ["s3:{bucket}"]})), &bucket, "placeholders are allowed in Resource"),
        (allow(json!({"NotAction": "s3:{bucket}"})), &bucket, "placeholders are allowed in Resource"),
        (allow(json!({"Sid": "{bucket}"})), &bucket, "placeholders are allowed in Resource"),
        (allow(json!({"{bucket}": "*"})), &bucket, "placeholders are allowed in Resource"),
        (allow(json!({"Condition": {"{bucket}": {"a": "b"}}})), &bucket, "placeholders are allowed in Resource"),
        (allow(json!({"Condition": {"Bool": {"{bucket}": "b"}}})), &bucket, "placeholders are allowed in Resource"),
        (allow(json!({"Resource": {"x": "{bucket}"}})), &bucket, "placeholders are allowed in Resource"),
        (
            allow(json!({"Resource": [["{bucket}"], "{bucket}"], "Principal": {"AWS": "{bucket}"}})),
            &bucket,
            "placeholders are allowed in Resource",
        ),
        (version, &bucket, "placeholders are allowed in Resource"),
        (json!("{bucket}"), &bucket, "placeholders are allowed in Resource"),
        (
            allow(json!({"Resource": "{other}"})),
            &bucket,
            "{other} is not a parameter; parameters are bucket, namespace, name, accountId",
        ),
        (allow(json!({"Resource": "*"})), &bucket, "bucket does not occur"),
        (allow(json!({"Resource": "${bucket}"})), &bucket, "bucket does not occur"),
        (allow(json!({"Resource": "{accountId}{bucket}"})), &bucket, "{accountId} needs account.id"),
        (allow(json!({"Resource": "{bucket"})), &bucket, "a brace outside of a placeholder"),
        (allow(json!({"Resource": "{bucket}}"})), &bucket, "a brace outside of a placeholder"),
        (allow(json!({"Resource": "${aws:PrincipalTag/{bucket}}"})), &bucket, "a brace outside of a placeholder"),
        (allow(json!({"Resource": "{bucket name}"})), &bucket, "is not a placeholder"),
        (
            allow(json!({})),
            &json!([{"name": "bucket", "pattern": "a)|(b"}]),
            "pattern of bucket is not a regular expression (RE2)",
        ),
        (allow(json!({})), &json!([{"name": "bucket"}, {"name": "bucket"}]), "declared twice"),
        (allow(json!({"Resource": "{namespace}"})), &json!([{"name": "namespace"}]), "is one of namespace"),
    ] {
        let template = template(&document, parameters);
        let why = check(&template, false).unwrap_err();
        assert!(why.contains(expected), "{document}: {why}");
        assert!(render(&template, &values(&[("bucket", "a")]), &builtin_values("n", Some("x"), None)).is_err());
        assert!(
            describe_faults(&[folder(), template.clone()], true)
                .is_none_or(|faults| faults.starts_with("template t: "))
        );
    }
    assert_eq!(describe_faults(&[folder()], true), None);
    assert_eq!(describe_faults(&[folder()], false).unwrap(), "template t: {accountId} needs account.id of the class");
}

#[test]
fn values_never_contain_wildcards_or_variables() {
    let document = statement(&json!({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::{bucket}"}));
    let open = template(&document, &json!([{"name": "bucket", "pattern": "(?s).*"}]));
    for value in ["*", "a*", "?", "$", "${aws:username}", "{name}", "a\"b", "a\\", "a\nb", "", "\u{e4}"] {
        assert!(render(&open, &values(&[("bucket", value)]), &own()).is_err(), "{value:?}");
    }
    assert!(render(&open, &values(&[("bucket", "a/b:c")]), &own()).is_ok(), "what the pattern of an admin allows");
    let either = template(&document, &json!([{"name": "bucket", "pattern": "a|b"}]));
    assert!(render(&either, &values(&[("bucket", "ab")]), &own()).is_err(), "the whole value has to fit");
}

#[test]
fn rendered_documents_are_recognized() {
    let folder = folder();
    let possession = builtin_values("deploy", None, Some("123456789012"));
    let made = render(&folder, &values(&[("bucket", "a-b"), ("folder", "b-c")]), &own()).unwrap();
    assert!(could_render(&folder, &made, &possession));
    let change = |pointer: &str, value: Value| {
        let mut changed = made.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    for changed in [
        change("/Statement/0/Action", json!("s3:*")),
        change("/Statement/0/Resource/0", json!("arn:aws:s3:::*/b-c/*")),
        change("/Statement/0/Resource/0", json!("arn:aws:s3:::other/b-c/*")),
        change("/Statement/0/Resource/1", json!("arn:aws:s3:::a-b-123456789012/${aws:username}/another/cycle/*")),
        change("/Statement/0/Condition/StringLike", json!({})),
        change("/Statement/0/Effect", json!("Deny")),
        change("/Statement", json!([])),
        json!(null),
    ] {
        assert!(!could_render(&folder, &changed, &possession), "{changed}");
    }
}

/// A class that changed from `Allow` to `TemplatesOnly`.
#[test]
fn templates_only_keeps_rendered_documents_only() {
    let class = super::class(&json!({"policies": {"documents": "TemplatesOnly", "templates": [{
        "name": "t", "parameters": [{"name": "bucket"}],
        "document": {"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::{bucket}/{name}"}},
    }]}}));
    let keeps = |resource: &str| {
        let document = json!({"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": resource}});
        let grants = Grants { inline: [("own".to_owned(), document)].into(), ..Grants::default() };
        let user = IamUser {
            arn: "arn:aws:iam::123456789012:user/awsdeploy/deploy_cycle".into(),
            grants: Some(grants),
            ..IamUser::default()
        };
        check_still_allowed(
            &class,
            &user,
            &CurrentPolicies::default(),
            NamespaceContext { namespace: "deploy", labels: &BTreeMap::new(), preceding_users: 0 },
        )
    };
    assert_eq!(keeps("arn:aws:s3:::logs/cycle"), Ok(()));
    for resource in ["arn:aws:s3:::*/cycle", "arn:aws:s3:::logs/*", "*"] {
        assert_eq!(keeps(resource), Err("the class does not allow the inline policy own".to_owned()), "{resource}");
    }
}

/// JSON pointers of the strings that differ between two documents. `None` if the structure differs.
fn differences(left: &Value, right: &Value, at: &str, found: &mut Vec<String>) -> Option<()> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => {
            if left != right {
                found.push(at.to_owned());
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (number, (left, right)) in left.iter().zip(right).enumerate() {
                differences(left, right, &format!("{at}/{number}"), found)?;
            }
        }
        (Value::Object(left), Value::Object(right)) if left.keys().eq(right.keys()) => {
            for (key, left) in left {
                differences(left, &right[key], &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found)?;
            }
        }
        (left, right) if left == right => {}
        _ => return None,
    }
    Some(())
}

proptest! {
    /// Valid values change only the placeholders.
    #[test]
    fn rendering_changes_placeholders_only(bucket in "[A-Za-z0-9._-]{1,64}", folder_name in "[a-z-]{1,20}|[0-9]{2}") {
        let folder = folder();
        let filled = render(&folder, &values(&[("bucket", &bucket), ("folder", &folder_name)]), &own()).unwrap();
        let mut found = Vec::new();
        prop_assert!(differences(&folder.document, &filled, "", &mut found).is_some());
        prop_assert!(!found.is_empty());
        for pointer in found {
            let (before, after) = (folder.document.pointer(&pointer).unwrap().as_str().unwrap(), filled.pointer(&pointer).unwrap().as_str().unwrap());
            let wanted = before.replace("{namespace}", "deploy").replace("{name}", "cycle").replace("{accountId}", "123456789012");
            // Sequential replacement is correct because valid values contain no braces.
            prop_assert_eq!(wanted.replace("{bucket}", &bucket).replace("{folder}", &folder_name), after);
            prop_assert_eq!(after.matches(['*', '?', '$', ':', '{']).count(), wanted.replace("{bucket}", "").replace("{folder}", "").matches(['*', '?', '$', ':', '{']).count());
        }
        prop_assert!(could_render(&folder, &filled, &builtin_values("deploy", None, Some("123456789012"))));
    }

    /// Invalid values are rejected, whatever characters they contain.
    #[test]
    fn values_that_do_not_match_are_rejected(value in "[a-z*?$:/{}\"\\\\ -]{0,6}|\\PC{0,8}") {
        let fits = (1..=20).contains(&value.len()) && value.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            || value.len() == 2 && value.chars().all(|c| c.is_ascii_digit());
        let filled = render(&folder(), &values(&[("bucket", "b"), ("folder", &value)]), &own());
        prop_assert_eq!(filled.is_ok(), fits);
    }
}
