use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::well_known,
    domain::{
        desired::{DEFAULT_OVERLAP, DEFAULT_ROTATION_INTERVAL, describe_violations},
        schedule::RotationSchedule,
    },
};

#[allow(clippy::needless_pass_by_value, reason = "json! in the call")]
fn user(spec: serde_json::Value) -> AwsDeployUser {
    serde_json::from_value(json!({
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
        "metadata": {"name": "cycle", "namespace": "deploy", "uid": "u1"}, "spec": spec,
    }))
    .unwrap()
}

fn check(spec: serde_json::Value) -> Result<Desired, Vec<Violation>> {
    let user = user(spec);
    let target = Target::from_resource(&user, "cluster").unwrap();
    let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: false };
    validate(&user, &target, &Grant::minimal(), &account, &Settings::default())
}

fn message(spec: serde_json::Value) -> String {
    describe_violations(&check(spec).unwrap_err())
}

#[test]
fn empty_spec_declares_a_key_with_90_day_rotation() {
    let desired = check(json!({})).unwrap();
    assert_eq!(desired.target.user_name, "deploy_cycle");
    assert_eq!(desired.target.secret_name, "cycle");
    assert_eq!(desired.target.journal_name, "awsdeploy-journal-u1");
    let key = desired.key.unwrap();
    assert_eq!((key.schedule, key.overlap), (RotationSchedule::Every(DEFAULT_ROTATION_INTERVAL), DEFAULT_OVERLAP));
    assert_eq!(desired.tags.len(), 5);
}

#[test]
fn console_alone_declares_no_access_key() {
    assert!(check(json!({"console": {}})).unwrap().key.is_none());
    assert!(check(json!({"console": {}, "accessKey": {}})).unwrap().key.is_some());
    assert!(check(json!({"accessKey": {}})).unwrap().console.is_none());
    // Without a key, its default Secret name is free.
    assert!(check(json!({"console": {"secretName": "cycle"}})).is_ok());
    assert!(message(json!({"console": {"secretName": "cycle"}, "accessKey": {}})).contains("set a different name"));
    let mut leaving = user(json!({"console": {"secretName": "old"}}));
    leaving.status = Some(crate::api::AwsDeployUserStatus { secret_name: Some("old".into()), ..Default::default() });
    let target = Target::from_resource(&leaving, "cluster").unwrap();
    assert_eq!(target.secret_name, "old", "the Secret of an earlier key is read");
    let account = Account { partition: "aws".into(), id: "1".into(), users_may_change_passwords: false };
    let settings = Settings::default();
    assert!(validate(&leaving, &target, &Grant::minimal(), &account, &settings).is_err());
}

#[test]
fn adoption_needs_consent_of_the_class() {
    let consent = |spec, adoption| {
        let user = user(spec);
        let target = Target::from_resource(&user, "cluster").unwrap();
        let account = Account { partition: "aws".into(), id: "1".into(), users_may_change_passwords: false };
        let grant = Grant { adoption, ..Grant::minimal() };
        validate(&user, &target, &grant, &account, &Settings::default()).unwrap().adoption
    };
    assert_eq!(consent(json!({}), true), Consent::NotRequested);
    assert_eq!(consent(json!({"adoption": "Never"}), true), Consent::NotRequested);
    assert_eq!(consent(json!({"adoption": "IfTagged"}), false), Consent::NotPermitted);
    assert_eq!(consent(json!({"adoption": "IfTagged"}), true), Consent::Permitted);
    let mut long = user(json!({"adoption": "IfTagged"}));
    long.metadata.name = Some("x".repeat(200));
    let target = Target::from_resource(&long, &"c".repeat(50)).unwrap();
    let account = Account { partition: "aws".into(), id: "1".into(), users_may_change_passwords: false };
    let message =
        describe_violations(&validate(&long, &target, &Grant::minimal(), &account, &Settings::default()).unwrap_err());
    assert!(message.contains("258 characters") && message.contains("IAM allows 256"), "{message}");
}

#[test]
fn documented_guides_are_valid() {
    let desired = check(json!({
        "userName": "cycle-prod", "policies": {"managed": ["AmazonEC2FullAccess"]}, "tags": {"team": "payments"},
        "accessKey": {"useCase": "ThirdPartyService", "description": "Cycle hub", "region": "us-east-1"},
    }))
    .unwrap();
    assert_eq!(desired.attached, BTreeSet::from(["arn:aws:iam::aws:policy/AmazonEC2FullAccess".to_owned()]));
    assert_eq!(desired.tags[well_known::TAG_USE_CASE], "ThirdPartyService");
    assert_eq!(desired.secret.annotations[well_known::ANNOTATION_DESCRIPTION], "Cycle hub");
}

#[test]
fn violations_state_the_exceeded_limit() {
    for (spec, expected) in [
        (json!({"userName": "a".repeat(65)}), "has 65 characters, IAM allows 64"),
        (json!({"userName": "a b"}), "' '"),
        (
            json!({"policies": {"managed": (0..11).map(|n| format!("P{n}")).collect::<Vec<_>>()}}),
            "11 managed policies are declared, the account allows 10",
        ),
        (json!({"policies": {"managed": ["AWSCompromisedKeyQuarantineV3"]}}), "cannot be declared"),
        (
            json!({"policies": {"documents": [{"name": "a", "document": document(2_048), "as": "Inline"}]}}),
            "IAM allows 2048",
        ),
        (json!({"tags": {"team!": "a"}}), "letters, digits, spaces"),
        (json!({"tags": {"AwsDeploy.dev/adoptable-by": "a"}}), "used by this operator"),
        (json!({"tags": {"Team": "a", "team": "b"}}), "differ only in case"),
        (
            json!({"tags": (0..40).map(|n| (format!("t{n}"), "v".to_owned())).collect::<BTreeMap<_, _>>()}),
            "declare at most 36",
        ),
        (json!({"accessKey": {"secret": {"formats": ["Csv", "SesSmtp"]}}}), "SesSmtp needs accessKey.region"),
        (json!({"accessKey": {"secret": {"template": {"cloud": "{{ secretKey }}"}}}}), "is not a value"),
        (json!({"accessKey": {"rotation": {"every": "30m", "overlap": "5m"}}}), "--min-rotation-interval"),
        (json!({"accessKey": {"rotation": {"every": "12h"}}}), "the default overlap of 1d"),
        (json!({"accessKey": {"rotation": {"every": "12h", "overlap": "12h"}}}), "overlap of 12h must be shorter"),
        (json!({"accessKey": {"rotation": {"schedule": "0 3,5 * * *", "overlap": "3h"}}}), "between two rotations, 2h"),
        (
            json!({"accessKey": {"rotation": {"every": "7d", "overlap": "1d", "holdWhileUsed": "6d"}}}),
            "overlap plus holdWhileUsed, 7d, must be shorter than the time between two rotations, 7d: an IAM user can have two access keys",
        ),
        (json!({"accessKey": {"rotation": {"every": "7d", "holdWhileUsed": "0s"}}}), "is not a duration"),
        (
            json!({"accessKey": {"rotation": {"every": "7d", "overlap": "1d", "holdWhileUsed": "5d"}, "handover": [{"name": "a", "within": "1d"}, {"name": "b", "within": "6d"}]}}),
            "accessKey.handover: overlap plus the longest within of handover, 7d, must be shorter than the time between two rotations, 7d",
        ),
        (json!({"accessKey": {"handover": [{"name": "a", "within": "0s"}]}}), "within of a: \"0s\" is not a duration"),
        (
            json!({"accessKey": {"handover": [{"name": "a", "within": "1d"}, {"name": "a", "within": "2d"}]}}),
            "accessKey.handover: a is declared twice",
        ),
        (
            json!({"accessKey": {"handover": (0..9).map(|n| json!({"name": format!("c{n}"), "within": "1d"})).collect::<Vec<_>>()}}),
            "9 consumers are declared, 8 are allowed",
        ),
        (
            json!({"accessKey": {"restart": [{"kind": "DaemonSet", "name": "a"}, {"kind": "DaemonSet", "name": "a"}]}}),
            "accessKey.restart: DaemonSet a is declared twice",
        ),
        (
            json!({"accessKey": {"restart": (0..11).map(|n| json!({"kind": "Deployment", "name": format!("d{n}")})).collect::<Vec<_>>()}}),
            "11 workloads are declared, 10 are allowed",
        ),
        (json!({"accessKey": {"rotation": {"schedule": "nonsense", "overlap": "1h"}}}), "five fields"),
        (json!({"accessKey": {"rotation": {"schedule": "0 3 * * *", "timeZone": "Nowhere", "overlap": "1h"}}}), "IANA"),
    ] {
        let message = message(spec);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn windows_must_open_once_per_interval() {
    let rotation = |every: &str, windows: serde_json::Value| json!({"accessKey": {"rotation": {"every": every, "overlap": "1h", "windows": windows}}});
    let saturdays = || json!([{"schedule": "0 2 * * 6", "duration": "4h"}]);
    let desired = check(rotation("7d", saturdays())).unwrap();
    assert_eq!(desired.key.unwrap().windows.0[0].duration, SignedDuration::from_hours(4));
    for (spec, expected) in [
        (rotation("2d", saturdays()), "no window opens for 7d, but keys are rotated every 2d"),
        (rotation("Never", saturdays()), "every: Never schedules none"),
        (rotation("7d", json!([{"schedule": "0 2 * * 6", "duration": "0s"}])), "is not a duration"),
        (rotation("7d", json!([{"schedule": "Saturdays", "duration": "4h"}])), "five fields"),
        (rotation("7d", json!([{"schedule": "0 2 * * 6", "duration": "4h", "timeZone": "Bern"}])), "IANA"),
    ] {
        let message = message(spec);
        assert!(message.contains("accessKey.rotation.windows") && message.contains(expected), "{message}");
    }
    // A window that is longer than the time until its next start is always open.
    assert!(check(rotation("2d", json!([{"schedule": "0 * * * *", "duration": "2h"}]))).is_ok());
}

#[test]
fn overlap_ends_before_the_next_rotation() {
    let spec = |overlap: &str| {
        json!({"accessKey": {"rotation": {"schedule": "0 12 1 * *", "overlap": overlap,
            "windows": [{"schedule": "0 2 14,25 * *", "duration": "4h"}, {"schedule": "0 11 1 2-12 *", "duration": "4h"}]}}})
    };
    assert!(check(spec("18d")).is_ok());
    // In January the rotation waits for the 14th, in February it begins on the 1st.
    assert!(message(spec("19d")).contains("must be shorter than the time between two rotations, 18d 10h"));
}

#[test]
fn all_violations_are_reported_at_once() {
    let violations =
        check(json!({"userName": "a".repeat(65), "accessKey": {"rotation": {"schedule": "nonsense"}}})).unwrap_err();
    assert_eq!(violations.len(), 2);
}

#[test]
fn manual_rotation_does_not_limit_the_overlap() {
    let spec = json!({"accessKey": {
        "rotation": {"every": "Never", "overlap": "400d", "holdWhileUsed": "400d"}, "handover": [{"name": "a", "within": "400d"}],
    }});
    assert!(check(spec).is_ok());
}

#[test]
fn extensions_of_the_overlap_are_not_added_up() {
    let spec = json!({"accessKey": {
        "rotation": {"every": "7d", "overlap": "1d", "holdWhileUsed": "5d"}, "handover": [{"name": "a", "within": "5d"}],
    }});
    assert_eq!(check(spec).unwrap().key.unwrap().handover[0].within, SignedDuration::from_hours(5 * 24));
}

#[test]
fn invalid_secret_metadata_is_found_before_a_key_exists() {
    let secret = |part: serde_json::Value| json!({"accessKey": {"secret": part}});
    for (part, expected) in [
        (json!({"labels": {"team": "a b"}}), "\"a b\" is not a label value"),
        (json!({"labels": {"team": "-a"}}), "is not a label value"),
        (json!({"labels": {"team": "a".repeat(64)}}), "is not a label value"),
        (json!({"labels": {"te am": "a"}}), "\"te am\" is not a label key"),
        (json!({"labels": {"Team.example/a": "a"}}), "is not a label key"),
        (json!({"labels": {"a/b/c": "a"}}), "is not a label key"),
        (json!({"annotations": {"/a": ""}}), "is not an annotation key"),
        (json!({"annotations": {"a": "x".repeat(200_000)}}), "limit of 131072"),
    ] {
        let found = message(secret(part));
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let good = json!({
        "labels": {"team": "", "Team_1": "A.b-c", "my.example/a": "1"},
        "annotations": {"reloader.example/match": "any text, of any kind"},
    });
    assert!(check(secret(good)).is_ok());
    let mut user = user(json!({}));
    user.metadata.annotations = Some([(well_known::ANNOTATION_ROTATE.to_owned(), "x".repeat(1_025))].into());
    let target = Target::from_resource(&user, "cluster").unwrap();
    let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: false };
    let desired = validate(&user, &target, &Grant::minimal(), &account, &Settings::default()).unwrap();
    let request = desired.key.unwrap().rotate_request.unwrap();
    assert!(request.starts_with("sha256:") && request.len() < 100, "{request}");
}

#[test]
fn character_that_iam_refuses_is_named_with_its_policy() {
    let with = |action: &str| {
        let statement = json!({"Effect": "Allow", "Action": action, "Resource": "*"});
        let document = json!({"Version": "2012-10-17", "Statement": [statement]});
        json!({"policies": {"documents": [{"name": "own", "document": document}]}})
    };
    let refused = message(with("s3:Get\u{2011}Object"));
    assert!(refused.contains("the document own contains") && refused.contains("U+2011"), "{refused}");
    assert!(refused.contains("s3:Get"), "the text around it: {refused}");
    assert!(check(with("s3:Getü-Object")).is_ok(), "U+00FC is allowed");
}

#[test]
fn policy_for_service_linked_roles_is_named() {
    let refused = message(json!({"policies": {"managed": ["aws-service-role/AWSSupportServiceRolePolicy"]}}));
    assert!(
        refused.contains("policy/aws-service-role/AWSSupportServiceRolePolicy is for service-linked roles"),
        "{refused}"
    );
    assert!(check(json!({"policies": {"managed": ["service-role/AWSLambdaRole"]}})).is_ok());
}

#[test]
fn long_default_name_is_answered_by_what_works() {
    let mut user = user(json!({}));
    user.metadata.name = Some("n".repeat(64));
    let target = Target::from_resource(&user, "cluster").unwrap();
    let account = Account { partition: "aws".into(), id: "1".into(), users_may_change_passwords: false };
    let refused = validate(&user, &target, &Grant::minimal(), &account, &Settings::default()).unwrap_err();
    let refused = describe_violations(&refused);
    assert!(refused.contains("has 71 characters") && refused.contains("create it under a shorter name"), "{refused}");
}

/// A document with a Sid of this size.
fn document(size: usize) -> Value {
    let statement = json!({"Sid": "x".repeat(size), "Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

#[test]
fn managed_document_needs_the_current_version() {
    let declared = |version: Option<&str>, placement: &str, size: usize| {
        let mut document = document(size);
        document.as_object_mut().unwrap().remove("Version");
        document.as_object_mut().unwrap().extend(version.map(|version| ("Version".to_owned(), json!(version))));
        json!({"policies": {"documents": [{"name": "own", "document": document, "as": placement}]}})
    };
    for version in [None, Some("2008-10-17")] {
        assert!(check(declared(version, "Auto", 10)).is_ok(), "IAM accepts it inline: {version:?}");
        for (placement, size) in [("Managed", 10), ("Auto", 3_000)] {
            let refused = message(declared(version, placement, size));
            assert!(refused.contains("the document own: Version: it becomes a managed policy"), "{refused}");
        }
    }
    assert!(check(declared(Some("2012-10-17"), "Managed", 10)).is_ok());
}

#[test]
fn documents_are_placed_named_and_counted() {
    let declared = |name: &str, size: usize| json!({"name": name, "document": document(size)});
    let spec = |managed: usize, documents: &[Value]| {
        let managed: Vec<String> = (0..managed).map(|number| format!("P{number}")).collect();
        json!({"policies": {"managed": managed, "documents": documents}})
    };
    let desired = check(spec(9, &[declared("small", 100), declared("large", 6_000)])).unwrap();
    assert_eq!(desired.inline.keys().collect::<Vec<_>>(), ["small"]);
    let arns: Vec<_> = desired.documents.keys().map(String::as_str).collect();
    assert_eq!(arns, ["arn:aws:iam::123456789012:policy/awsdeploy/deploy_cycle/deploy_cycle+large"]);
    for (spec, parts) in [
        (spec(10, &[declared("large", 6_000)]), ["11 managed policies would be attached, 1 of them", "(large)"]),
        (spec(0, &[declared("huge", 6_144)]), ["the document huge has", "IAM allows 6144"]),
        (spec(0, &[declared("a", 1), declared("A", 1)]), ["differ at most in case", "\"A\""]),
    ] {
        let refused = message(spec);
        for part in parts {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
}

#[test]
fn path_that_policies_cannot_have_is_named() {
    let checked = |path: &str| {
        let spec = json!({"policies": {"documents": [{"name": "d", "document": document(3_000)}]}});
        let user = user(spec);
        let target = Target::from_resource(&user, "cluster").unwrap();
        let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: false };
        let grant = Grant { path: path.to_owned(), ..Grant::minimal() };
        let refused = validate(&user, &target, &grant, &account, &Settings::default());
        refused.map_or_else(|violations| describe_violations(&violations), |_| String::new())
    };
    assert_eq!(checked("/a.b/c+d/"), "");
    assert!(checked("/a!/").contains("contains '!'"), "{}", checked("/a!/"));
    assert!(checked(&format!("/{}/", "a".repeat(505))).contains("IAM allows 512"));
}
