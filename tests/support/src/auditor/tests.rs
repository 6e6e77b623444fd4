//! Planted violations: an auditor that finds nothing anywhere would be content with everything.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    audit::{Audit, Notes, Seen, loud},
    objects::{DEFAULT_OVERLAP, base64, duration, unbase64},
};
use crate::{
    aws_proxy::{Account, AccountRef, CallOutcome, CallRecord, KeySnapshot, KeyState, UserSnapshot},
    kube_proxy::KubeRecord,
};

const OLD: &str = "AKIAOLD0000000000001";
const NEW: &str = "AKIANEW0000000000002";

/// A run in which a key was made, published, replaced and retired after its overlap: all promises were kept.
struct Run {
    account: Arc<Account>,
    notes: Notes,
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

fn seen(second: i64, object: &Value) -> Seen {
    Seen { at: at(second), gone: false, name: "x".to_owned(), object: object.clone() }
}

fn key(id: &str, state: KeyState) -> KeySnapshot {
    KeySnapshot { id: id.to_owned(), state, created: at(1), accepted: state == KeyState::Active }
}

impl Run {
    fn fine() -> Self {
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
        let mut notes = Notes::default();
        notes.users.push(seen(0, &resource));
        notes.secrets.extend([seen(5, &secret(OLD, 5)), seen(20, &secret(NEW, 20))]);
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
            notes,
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

    fn promises_broken(self) -> Vec<&'static str> {
        let audit = Audit {
            notes: &self.notes,
            namespace: "deploy",
            account: &self.account,
            calls: self.calls,
            kube: self.kube,
            secrets: self.secrets,
            users: self.users,
            truths: self.truths,
            texts: self.texts,
            violations: Vec::new(),
        };
        let mut promises: Vec<_> = audit.judge(0).into_iter().map(|violation| violation.invariant).collect();
        promises.dedup();
        promises
    }
}

/// Breaks a run that is fine and tells which promises that breaks.
fn broken(how: impl FnOnce(&mut Run)) -> Vec<&'static str> {
    let mut run = Run::fine();
    how(&mut run);
    run.promises_broken()
}

fn coded(text: &str) -> Value {
    Value::from(base64(text.as_bytes()))
}

#[test]
fn a_run_that_keeps_all_promises_is_left_in_peace() {
    assert!(Run::fine().promises_broken().is_empty());
    assert!(Run::fine().notes.dead(&Run::fine().account).is_empty());
    assert!(loud(&[], &[]).is_empty());
}

#[test]
fn s1_a_published_key_that_does_not_work_is_found_while_it_lasts_and_at_the_end() {
    // An account that never heard of the key.
    assert_eq!(Run::fine().notes.dead(&Account::new()), [("x".to_owned(), NEW.to_owned())]);
    let mut excused = Run::fine().notes;
    excused.excused.insert(NEW.to_owned());
    assert!(excused.dead(&Account::new()).is_empty(), "a person has switched it off");
    let at_the_end = broken(|run| {
        run.notes.secrets.clear();
        run.secrets = vec![secret("AKIAUNKNOWN000000003", 20)];
        run.calls.retain(|call| call.action != "UpdateAccessKey" && call.action != "DeleteAccessKey");
    });
    assert!(at_the_end.contains(&"S1"), "{at_the_end:?}");
}

#[test]
fn s2_an_id_a_secret_or_a_file_of_another_key_is_found() {
    assert_eq!(broken(|run| run.secrets[0]["data"]["AWS_ACCESS_KEY_ID"] = coded(OLD)), ["S2"]);
    assert_eq!(broken(|run| run.secrets[0]["data"]["AWS_SECRET_ACCESS_KEY"] = coded(&material(OLD))), ["S2"]);
    assert_eq!(
        broken(|run| run.secrets[0]["data"]["credentials"] = coded(&format!("{OLD} {}", material(OLD)))),
        ["S2"]
    );
    let form = |name: &'static str, text: String| broken(|run| run.secrets[0]["data"][name] = coded(&text));
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
    assert_eq!(broken(empty), ["S2"]);
    let in_passing = |run: &mut Run| run.notes.secrets[0].object["data"]["AWS_SECRET_ACCESS_KEY"] = coded("half");
    assert_eq!(broken(in_passing), ["S2"], "one version of many");
}

#[test]
fn s3_a_key_that_dies_while_published_or_in_its_overlap_is_found() {
    assert_eq!(broken(|run| run.calls[3] = aws(18, "UpdateAccessKey", Some(OLD))), ["S3"], "still published");
    assert_eq!(broken(|run| run.calls[3] = aws(40, "UpdateAccessKey", Some(OLD))), ["S3"], "20 s after its successor");
    assert_eq!(broken(|run| run.calls.push(aws(61, "DeleteAccessKey", Some(NEW)))), ["S3"]);
}

#[test]
fn s4_a_write_to_what_is_not_ours_is_found_on_either_side() {
    let stranger = CallRecord { user: Some("somebody".to_owned()), ..aws(30, "AttachUserPolicy", None) };
    assert_eq!(broken(|run| run.calls.push(stranger.clone())), ["S4"]);
    let handed_over = |run: &mut Run| {
        run.calls.push(stranger);
        run.notes.consented.insert("somebody".to_owned());
    };
    assert!(broken(handed_over).is_empty(), "its owner has agreed");
    assert_eq!(broken(|run| run.kube.push(kube(3, "update", "theirs", "deploy"))), ["S4"]);
    assert_eq!(broken(|run| run.kube.push(kube(3, "create", "x", "elsewhere"))), ["S4"]);
    let in_vain = KubeRecord { committed: false, ..kube(3, "delete", "theirs", "deploy") };
    assert!(broken(|run| run.kube.push(in_vain)).is_empty(), "it was refused");
}

#[test]
fn s5_a_write_to_a_key_of_others_is_found() {
    assert_eq!(broken(|run| run.calls.push(aws(62, "DeleteAccessKey", Some("AKIAFOREIGN000000004")))), ["S5"]);
}

#[test]
fn s6_a_key_too_many_is_found() {
    assert_eq!(broken(|run| run.calls.push(aws(30, "CreateAccessKey", Some("AKIATHIRD00000000005")))), ["S6"]);
    let three = |run: &mut Run| {
        for id in [OLD, "AKIATHIRD00000000005"] {
            run.calls.push(aws(30, "CreateAccessKey", Some(id)));
            run.truths[0].keys.push(key(id, KeyState::Active));
            run.truths[0].tags.insert(format!("awsdeploy.dev/key/{id}"), "then".to_owned());
        }
    };
    assert_eq!(broken(three), ["S6"]);
}

#[test]
fn s7_a_secret_anywhere_is_found() {
    let places: [fn(&mut Run); 5] = [
        |run| run.texts.push(("a log".to_owned(), format!("made {}", material(NEW)))),
        |run| run.texts.push(("an Event".to_owned(), base64(material(OLD).as_bytes()))),
        |run| run.users[0]["status"]["conditions"][0]["message"] = Value::from(material(NEW)),
        |run| run.notes.secrets[0].object["metadata"]["annotations"]["note"] = Value::from(material(OLD)),
        |run| drop(run.calls[0].params.insert("Note".to_owned(), material(NEW))),
    ];
    for (number, place) in places.into_iter().enumerate() {
        assert_eq!(broken(place), ["S7"], "place {number}");
    }
}

#[test]
fn s8_a_user_that_outlives_its_resource_is_found() {
    let gone = |run: &mut Run| {
        let object = run.users.pop().expect("the resource");
        run.notes.users.push(Seen { gone: true, ..seen(70, &object) });
    };
    assert_eq!(broken(gone), ["S8"]);
    let with_the_user = |run: &mut Run| {
        gone(run);
        run.truths.clear();
    };
    assert!(broken(with_the_user).is_empty());
}

#[test]
fn s9_ready_over_something_else_than_declared_is_found() {
    let differences: [fn(&mut Run); 7] = [
        |run| run.truths[0].attached.clear(),
        |run| run.truths[0].attached.extend(["arn:aws:iam::aws:policy/AdministratorAccess".to_owned()]),
        |run| drop(run.truths[0].inline.insert("more".to_owned(), json!({}))),
        |run| drop(run.truths[0].tags.insert("team".to_owned(), "other".to_owned())),
        |run| run.truths[0].groups.clear(),
        |run| run.users[0]["spec"]["console"] = json!({}),
        // A key of ours that is not tagged, not published and in no journal: nobody knows it.
        |run| run.truths[0].keys.push(key(OLD, KeyState::Active)),
    ];
    for (number, difference) in differences.into_iter().enumerate() {
        assert_eq!(broken(difference), ["S9"], "difference {number}");
    }
    let not_ready = |run: &mut Run| {
        run.users[0]["status"]["conditions"][0]["status"] = Value::from("False");
        run.truths[0].attached.clear();
    };
    assert!(broken(not_ready).is_empty(), "it does not say that it is ready");
    let another_generation = |run: &mut Run| {
        run.users[0]["metadata"]["generation"] = Value::from(2);
        run.truths[0].attached.clear();
    };
    assert!(broken(another_generation).is_empty(), "it speaks of what was declared before");
    assert_eq!(broken(|run| run.truths.clear()), ["S9"], "no user at all");
}

#[test]
fn s10_a_write_in_a_quiet_time_is_found_on_either_side() {
    let promises = |aws: &[CallRecord], kube: &[KubeRecord]| -> Vec<_> {
        loud(aws, kube).into_iter().map(|violation| violation.invariant).collect()
    };
    assert_eq!(promises(&[aws(1, "TagUser", None)], &[]), ["S10"]);
    assert_eq!(promises(&[], &[kube(1, "update", "x", "deploy")]), ["S10"]);
}

#[test]
fn base64_goes_both_ways() {
    for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob+/", "Zm9vYisv")] {
        assert_eq!(base64(plain.as_bytes()), coded);
        assert_eq!(unbase64(coded), plain.as_bytes());
    }
    assert_eq!(unbase64("Zg=="), b"f");
}

#[test]
fn a_leak_is_found_in_every_disguise_and_nothing_else_is() {
    let account = Account::new();
    account.import_key(AccountRef::aws("123456789012"), "u", "AKIA1", "abc/def+ghi");
    for text in ["key=abc/def+ghi!", "YWJjL2RlZitnaGk", "body=abc%2Fdef%2Bghi&x"] {
        assert_eq!(account.leaks_in(text), ["AKIA1"], "{text}");
    }
    assert!(account.leaks_in("AKIA1 abc/def ghi").is_empty());
}

#[test]
fn durations_are_read_as_declared() {
    assert_eq!(duration("2s"), SignedDuration::from_secs(2));
    assert_eq!(duration("12h"), SignedDuration::from_hours(12));
    assert_eq!(duration("soon"), DEFAULT_OVERLAP);
}
