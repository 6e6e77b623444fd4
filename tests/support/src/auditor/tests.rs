//! Each test plants a violation, so that an auditor that detects nothing fails.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    audit::{Audit, Observations, ObservedVersion, idle_writes},
    objects::{DEFAULT_OVERLAP, base64, duration, unbase64},
};
use crate::{
    aws_proxy::{Account, AccountRef, CallOutcome, CallRecord, KeySnapshot, KeyState, UserSnapshot},
    kube_proxy::KubeRecord,
};

const OLD: &str = "AKIAOLD0000000000001";
const NEW: &str = "AKIANEW0000000000002";

/// A run without violations, in which a key was created, published, replaced and retired after its overlap.
struct Run {
    account: Arc<Account>,
    observations: Observations,
    calls: Vec<CallRecord>,
    kube: Vec<KubeRecord>,
    secrets: Vec<Value>,
    users: Vec<Value>,
    truths: Vec<UserSnapshot>,
    texts: Vec<(String, String)>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn material(id: &str) -> String {
    format!("{id}/material+of/this+key")
}

fn secret(id: &str, published: i64) -> Value {
    let coded = |text: &str| base64(text.as_bytes());
    let file = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {}\n", material(id));
    json!({
        "metadata": {"name": "x", "annotations": {
            "awsdeploy.dev/access-key-id": id, "awsdeploy.dev/published-at": at(published).to_string()}},
        "data": {"AWS_ACCESS_KEY_ID": coded(id), "AWS_SECRET_ACCESS_KEY": coded(&material(id)), "credentials": coded(&file)},
    })
}

fn aws(second: i64, action: &str, key: Option<&str>) -> CallRecord {
    CallRecord {
        seq: u64::try_from(second).expect("a number"),
        started: at(second),
        latency: None,
        service: "iam",
        action: action.to_owned(),
        user: Some("u".to_owned()),
        access_key: key.map(str::to_owned),
        caller_key: None,
        mutating: true,
        committed: true,
        outcome: CallOutcome::Answered,
        status: Some(200),
        error: None,
        rules: Vec::new(),
        params: [("Status".to_owned(), "Inactive".to_owned())].into(),
    }
}

fn kube(seq: u64, verb: &'static str, name: &str, namespace: &str) -> KubeRecord {
    KubeRecord {
        seq,
        started: at(0),
        verb,
        resource: "secrets".to_owned(),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        mutating: true,
        committed: true,
        status: Some(200),
    }
}

fn seen(second: i64, object: &Value) -> ObservedVersion {
    ObservedVersion { at: at(second), deleted: false, name: "x".to_owned(), object: object.clone() }
}

fn key(id: &str, state: KeyState) -> KeySnapshot {
    KeySnapshot { id: id.to_owned(), state, created: at(1), accepted: state == KeyState::Active }
}

impl Run {
    fn correct() -> Self {
        let account = Account::new();
        for id in [OLD, NEW] {
            account.import_key(AccountRef::aws("123456789012"), "u", id, &material(id));
        }
        let resource = json!({
            "metadata": {"name": "x", "uid": "uid-1", "generation": 1},
            "spec": {"policies": {"managed": ["ReadOnlyAccess"]}, "tags": {"team": "payments"}, "groups": ["deployers"],
                     "accessKey": {"rotation": {"overlap": "30s"}}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]},
        });
        let mut observations = Observations::default();
        observations.users.push(seen(0, &resource));
        observations.secrets.extend([seen(5, &secret(OLD, 5)), seen(20, &secret(NEW, 20))]);
        let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let truth = UserSnapshot {
            name: "u".to_owned(),
            id: "AIDA1".to_owned(),
            arn: "arn:aws:iam::123456789012:user/u".to_owned(),
            path: "/".to_owned(),
            created: at(1),
            tags: [
                tag("awsdeploy.dev/uid", "uid-1"),
                tag("team", "payments"),
                tag(&format!("awsdeploy.dev/key/{NEW}"), "then"),
            ]
            .into(),
            attached: ["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()].into(),
            inline: std::collections::BTreeMap::new(),
            groups: ["deployers".to_owned()].into(),
            boundary: None,
            keys: vec![key(NEW, KeyState::Active)],
            login_profile: None,
            service_credentials: std::collections::BTreeSet::new(),
        };
        Self {
            account,
            observations,
            calls: vec![
                aws(1, "CreateUser", None),
                aws(3, "CreateAccessKey", Some(OLD)),
                aws(15, "CreateAccessKey", Some(NEW)),
                aws(51, "UpdateAccessKey", Some(OLD)),
                aws(60, "DeleteAccessKey", Some(OLD)),
            ],
            kube: vec![kube(1, "create", "x", "deploy"), kube(2, "update", "x", "deploy")],
            secrets: vec![secret(NEW, 20)],
            users: vec![resource],
            truths: vec![truth],
            texts: vec![("the log".to_owned(), format!("published {NEW}"))],
        }
    }

    fn violated_invariants(self) -> Vec<&'static str> {
        let audit = Audit {
            observations: &self.observations,
            namespace: "deploy",
            operator_namespace: "operator",
            account: &self.account,
            calls: self.calls,
            kube: self.kube,
            secrets: self.secrets,
            journals: Vec::new(),
            users: self.users,
            truths: self.truths,
            texts: self.texts,
            violations: Vec::new(),
        };
        let mut invariants: Vec<_> = audit.evaluate(0).into_iter().map(|violation| violation.invariant).collect();
        invariants.dedup();
        invariants
    }
}

/// Changes a correct run and returns the violated invariants.
fn violated(change: impl FnOnce(&mut Run)) -> Vec<&'static str> {
    let mut run = Run::correct();
    change(&mut run);
    run.violated_invariants()
}

fn coded(text: &str) -> Value {
    Value::from(base64(text.as_bytes()))
}

#[test]
fn correct_run_has_no_violations() {
    assert!(Run::correct().violated_invariants().is_empty());
    assert!(Run::correct().observations.inactive_published_keys(&Run::correct().account).is_empty());
    assert!(idle_writes(&[], &[]).is_empty());
}

#[test]
fn s1_detects_inactive_published_key_during_run_and_at_end() {
    // An account without the key.
    assert_eq!(
        Run::correct().observations.inactive_published_keys(&Account::new()),
        [("x".to_owned(), NEW.to_owned())]
    );
    let mut ignoring = Run::correct().observations;
    ignoring.ignored_keys.insert(NEW.to_owned());
    assert!(ignoring.inactive_published_keys(&Account::new()).is_empty(), "the test deactivated it");
    let at_the_end = violated(|run| {
        run.observations.secrets.clear();
        run.secrets = vec![secret("AKIAUNKNOWN000000003", 20)];
        run.calls.retain(|call| call.action != "UpdateAccessKey" && call.action != "DeleteAccessKey");
    });
    assert!(at_the_end.contains(&"S1"), "{at_the_end:?}");
}

#[test]
fn s2_an_id_a_secret_or_a_file_of_another_key_is_found() {
    assert_eq!(violated(|run| run.secrets[0]["data"]["AWS_ACCESS_KEY_ID"] = coded(OLD)), ["S2"]);
    assert_eq!(violated(|run| run.secrets[0]["data"]["AWS_SECRET_ACCESS_KEY"] = coded(&material(OLD))), ["S2"]);
    assert_eq!(
        violated(|run| run.secrets[0]["data"]["credentials"] = coded(&format!("{OLD} {}", material(OLD)))),
        ["S2"]
    );
    let form = |name: &'static str, text: String| violated(|run| run.secrets[0]["data"][name] = coded(&text));
    for (id, of, found) in [(NEW, NEW, vec![]), (OLD, OLD, vec!["S2"]), (NEW, OLD, vec!["S2"])] {
        let value = material(of);
        assert_eq!(
            form("accessKeys.csv", format!("\u{feff}Access key ID,Secret access key\r\n{id},{value}\r\n")),
            found
        );
        assert_eq!(form("configure-import.csv", format!("User Name,...\n\"a,b\",{id},{value}\n")), found);
        let json = serde_json::json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": value});
        assert_eq!(form("credentials.json", json.to_string()), found);
    }
    let empty = |run: &mut Run| run.secrets[0]["data"] = serde_json::json!({});
    assert_eq!(violated(empty), ["S2"]);
    let in_passing =
        |run: &mut Run| run.observations.secrets[0].object["data"]["AWS_SECRET_ACCESS_KEY"] = coded("half");
    assert_eq!(violated(in_passing), ["S2"], "one version of many");
}

#[test]
fn s3_finds_key_deactivated_while_published_or_in_overlap() {
    assert_eq!(violated(|run| run.calls[3] = aws(18, "UpdateAccessKey", Some(OLD))), ["S3"], "still published");
    assert_eq!(
        violated(|run| run.calls[3] = aws(40, "UpdateAccessKey", Some(OLD))),
        ["S3"],
        "20 s after its successor"
    );
    assert_eq!(violated(|run| run.calls.push(aws(61, "DeleteAccessKey", Some(NEW)))), ["S3"]);
}

#[test]
fn s4_a_write_to_what_is_not_ours_is_found_on_either_side() {
    let stranger = CallRecord { user: Some("foreign".to_owned()), ..aws(30, "AttachUserPolicy", None) };
    assert_eq!(violated(|run| run.calls.push(stranger.clone())), ["S4"]);
    let adopted = |run: &mut Run| {
        run.calls.push(stranger);
        run.observations.adoptable_users.insert("foreign".to_owned());
    };
    assert!(violated(adopted).is_empty(), "the user is tagged for adoption");
    assert_eq!(violated(|run| run.kube.push(kube(3, "update", "theirs", "deploy"))), ["S4"]);
    assert_eq!(violated(|run| run.kube.push(kube(3, "create", "x", "elsewhere"))), ["S4"]);
    assert_eq!(violated(|run| run.kube.push(kube(3, "create", "x", "operator"))), ["S4"]);
    assert!(violated(|run| run.kube.push(kube(3, "create", "awsdeploy-journal-1", "operator"))).is_empty());
    let refused = KubeRecord { committed: false, ..kube(3, "delete", "theirs", "deploy") };
    assert!(violated(|run| run.kube.push(refused)).is_empty(), "the call was refused");
}

#[test]
fn s5_detects_write_to_foreign_key() {
    assert_eq!(violated(|run| run.calls.push(aws(62, "DeleteAccessKey", Some("AKIAFOREIGN000000004")))), ["S5"]);
}

#[test]
fn s6_detects_too_many_keys() {
    assert_eq!(violated(|run| run.calls.push(aws(30, "CreateAccessKey", Some("AKIATHIRD00000000005")))), ["S6"]);
    let three = |run: &mut Run| {
        for id in [OLD, "AKIATHIRD00000000005"] {
            run.calls.push(aws(30, "CreateAccessKey", Some(id)));
            run.truths[0].keys.push(key(id, KeyState::Active));
            run.truths[0].tags.insert(format!("awsdeploy.dev/key/{id}"), "then".to_owned());
        }
    };
    assert_eq!(violated(three), ["S6"]);
}

#[test]
fn s7_detects_leaked_secret_in_every_source() {
    let places: [fn(&mut Run); 5] = [
        |run| run.texts.push(("a log".to_owned(), format!("made {}", material(NEW)))),
        |run| run.texts.push(("an Event".to_owned(), base64(material(OLD).as_bytes()))),
        |run| run.users[0]["status"]["conditions"][0]["message"] = Value::from(material(NEW)),
        |run| run.observations.secrets[0].object["metadata"]["annotations"]["note"] = Value::from(material(OLD)),
        |run| drop(run.calls[0].params.insert("Note".to_owned(), material(NEW))),
    ];
    for (number, place) in places.into_iter().enumerate() {
        assert_eq!(violated(place), ["S7"], "place {number}");
    }
}

#[test]
fn s8_detects_user_that_outlives_its_resource() {
    let gone = |run: &mut Run| {
        let object = run.users.pop().expect("the resource");
        run.observations.users.push(ObservedVersion { deleted: true, ..seen(70, &object) });
    };
    assert_eq!(violated(gone), ["S8"]);
    let with_the_user = |run: &mut Run| {
        gone(run);
        run.truths.clear();
    };
    assert!(violated(with_the_user).is_empty());
}

#[test]
fn s9_detects_ready_with_drift() {
    let differences: [fn(&mut Run); 7] = [
        |run| run.truths[0].attached.clear(),
        |run| run.truths[0].attached.extend(["arn:aws:iam::aws:policy/AdministratorAccess".to_owned()]),
        |run| drop(run.truths[0].inline.insert("more".to_owned(), json!({}))),
        |run| drop(run.truths[0].tags.insert("team".to_owned(), "other".to_owned())),
        |run| run.truths[0].groups.clear(),
        |run| run.users[0]["spec"]["console"] = json!({}),
        // A key of the operator that is not tagged, not published and in no journal.
        |run| run.truths[0].keys.push(key(OLD, KeyState::Active)),
    ];
    for (number, difference) in differences.into_iter().enumerate() {
        assert_eq!(violated(difference), ["S9"], "difference {number}");
    }
    let not_ready = |run: &mut Run| {
        run.users[0]["status"]["conditions"][0]["status"] = Value::from("False");
        run.truths[0].attached.clear();
    };
    assert!(violated(not_ready).is_empty(), "the resource is not Ready");
    let another_generation = |run: &mut Run| {
        run.users[0]["metadata"]["generation"] = Value::from(2);
        run.truths[0].attached.clear();
    };
    assert!(violated(another_generation).is_empty(), "the condition is of an older generation");
    assert_eq!(violated(|run| run.truths.clear()), ["S9"], "the user does not exist");
}

#[test]
fn s10_detects_idle_writes_to_aws_and_kubernetes() {
    let invariants = |aws: &[CallRecord], kube: &[KubeRecord]| -> Vec<_> {
        idle_writes(aws, kube).into_iter().map(|violation| violation.invariant).collect()
    };
    assert_eq!(invariants(&[aws(1, "TagUser", None)], &[]), ["S10"]);
    assert_eq!(invariants(&[], &[kube(1, "update", "x", "deploy")]), ["S10"]);
}

#[test]
fn base64_round_trips() {
    for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob+/", "Zm9vYisv")] {
        assert_eq!(base64(plain.as_bytes()), coded);
        assert_eq!(unbase64(coded), plain.as_bytes());
    }
    assert_eq!(unbase64("Zg=="), b"f");
}

#[test]
fn leaks_are_found_in_every_encoding() {
    let account = Account::new();
    account.import_key(AccountRef::aws("123456789012"), "u", "AKIA1", "abc/def+ghi");
    for text in ["key=abc/def+ghi!", "YWJjL2RlZitnaGk", "body=abc%2Fdef%2Bghi&x"] {
        assert_eq!(account.leaks_in(text), ["AKIA1"], "{text}");
    }
    assert!(account.leaks_in("AKIA1 abc/def ghi").is_empty());
}

#[test]
fn durations_are_parsed() {
    assert_eq!(duration("2s"), SignedDuration::from_secs(2));
    assert_eq!(duration("12h"), SignedDuration::from_hours(12));
    assert_eq!(duration("soon"), DEFAULT_OVERLAP);
}
