//! Classes and resources, told apart by tables; and for random ones, that nothing is done in AWS that the class does not allow.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::class::OnRevoked,
    domain::{
        console::ConsoleSecret,
        desired::{self, Account, Desired},
        plan::{self, Effect, Revoked, Why, plan},
        settings::Settings,
        world::{AccessKey, Grants, Iam, IamUser, JournalSeen, Published, Reported, World},
    },
};

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
    Target::of(user, "cluster").unwrap().named(user, Some(&class.spec.users.name_template))
}

fn ask(spec: &Value, rules: &Value) -> Result<Authorization, Vec<Violation>> {
    let (user, class) = (user(spec), class(rules));
    authorize(&user, &target(&user, &class), &class, Facts { namespace: "deploy", labels: &BTreeMap::new(), before: 0 })
}

fn told(spec: &Value, rules: &Value) -> String {
    ask(spec, rules).map_or_else(|violations| desired::tell(&violations), |_| "allowed".to_owned())
}

#[test]
fn the_rows_of_the_table_hold() {
    let managed = |name: &str| json!({"policies": {"managed": [name]}});
    let inline = |document: Value| json!({"policies": {"inline": [{"name": "own", "document": document}]}});
    let harmless = json!({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]});
    let mighty = json!({"Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]});
    let every = |every: &str| json!({"accessKey": {"rotation": {"every": every}}});
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
        (inline(harmless.clone()), json!({}), "does not allow inline policies, and own is one"),
        (inline(harmless), json!({"policies": {"inline": "Allow"}}), "allowed"),
        (inline(mighty.clone()), json!({"policies": {"inline": "Allow"}}), "allows iam:*"),
        (inline(mighty), json!({"policies": {"inline": "Allow"}, "acknowledgeAdminEquivalent": true}), "allowed"),
        (json!({"groups": ["Readers"]}), json!({"groups": ["readers"]}), "allowed"),
        (json!({"groups": ["admins"]}), json!({"groups": ["readers"]}), "it allows: readers"),
        (json!({"console": {}}), json!({}), "does not allow access to the console"),
        (json!({"console": {}}), json!({"console": "Allow"}), "allowed"),
        (json!({"userName": "ci-admin"}), json!({"users": {"namePattern": "deploy-.*"}}), "it has to fit deploy-.*"),
        (json!({"userName": "xdeploy-a"}), json!({"users": {"namePattern": "deploy-.*"}}), "it has to fit"),
        (json!({"userName": "deploy-a"}), json!({"users": {"namePattern": "deploy-.*"}}), "allowed"),
        (json!({"userName": "a"}), json!({"users": {"namePattern": "a|b"}}), "allowed"),
        (json!({"userName": "ab"}), json!({"users": {"namePattern": "a|b"}}), "it has to fit"),
        (json!({}), json!({"users": {"namePattern": "("}}), "cannot be used, so no name fits"),
        (json!({"tags": {"Team": "b"}}), json!({"tags": {"team": "a"}}), "sets the tag team to \"a\"; leave Team out"),
        (json!({"tags": {"team": "a"}}), json!({"tags": {"team": "a"}}), "allowed"),
        (every("1h"), json!({"rotation": {"minEvery": "1d"}}), "1d at the shortest"),
        (every("31d"), json!({"rotation": {"maxEvery": "30d"}}), "30d at the longest"),
        (every("Never"), json!({"rotation": {"maxEvery": "30d"}}), "so Never is not allowed"),
        (every("Never"), json!({}), "allowed"),
        (json!({}), json!({"rotation": {"maxEvery": "30d"}}), "allowed"),
        (json!({}), json!({"rotation": {"minEvery": "0.0s"}}), "minEvery that cannot be used"),
        (
            json!({"accessKey": {"rotation": {"schedule": "0 * * 1 *"}}}),
            json!({"rotation": {"maxEvery": "30d"}}),
            "30d at the longest",
        ),
    ] {
        let told = told(&spec, &rules);
        assert!(told.contains(wanted), "{spec} {rules}: {told}");
    }
}

#[test]
fn a_class_completes_what_is_left_out_and_nothing_else() {
    let rules = json!({
        "policies": {"allowed": ["A", "B"], "default": ["A"]}, "tags": {"team": "a"},
        "rotation": {"default": {"every": "30d", "overlap": "2h"}},
    });
    let bare = ask(&json!({}), &rules).unwrap().user.spec;
    assert_eq!((bare.policies.managed, bare.tags["team"].as_str()), (vec!["A".to_owned()], "a"));
    assert_eq!(bare.access_key.unwrap().rotation.every.as_deref(), Some("30d"));
    let full = json!({
        "policies": {"managed": ["B"]}, "accessKey": {"rotation": {"schedule": "0 3 1 * *", "overlap": "1h"}},
    });
    let full = ask(&full, &rules).unwrap().user.spec;
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
fn a_user_keeps_the_name_it_was_made_with() {
    let template = |user: &AwsDeployUser| {
        Target::of(user, "cluster").unwrap().named(user, Some("t-{namespace}-{name}-{hash}")).user_name
    };
    let mut user = user(&json!({}));
    let fresh = template(&user);
    assert!(fresh.starts_with("t-deploy-cycle-") && fresh.len() == "t-deploy-cycle-".len() + 8, "{fresh}");
    user.metadata.annotations = Some([("awsdeploy.dev/user-name".to_owned(), "noted".to_owned())].into());
    assert_eq!(template(&user), "noted");
    user.status = serde_json::from_value(json!({"user": {"name": "made", "arn": "a", "id": "i"}})).unwrap();
    assert_eq!(template(&user), "made", "an annotation is no way to leave a user behind");
    user.spec.user_name = Some("declared".into());
    assert_eq!(template(&user), "declared");
}

#[test]
fn the_limit_counts_those_with_a_user_and_those_that_are_older() {
    let resource = |uid: &str, second: u32, made: bool| -> AwsDeployUser {
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "spec": {},
            "metadata": {"name": uid, "namespace": "deploy", "uid": uid, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
                // Whoever writes a resource can write this too.
                "finalizers": ["awsdeploy.dev/iam-user"]},
            "status": if made { json!({"user": {"name": "n", "arn": "a", "id": "i"}}) } else { json!({}) },
        }))
        .unwrap()
    };
    let asking = resource("m", 5, false);
    assert!(comes_before(&resource("a", 1, false), &asking));
    assert!(!comes_before(&resource("z", 9, false), &asking));
    assert!(comes_before(&resource("z", 9, true), &asking));
    assert!(comes_before(&resource("a", 5, false), &asking) && !comes_before(&resource("z", 5, false), &asking));
    assert!(!comes_before(&asking, &asking));
    let (user, class) = (user(&json!({})), class(&json!({"users": {"maxPerNamespace": 2}})));
    let ask = |before| {
        authorize(
            &user,
            &target(&user, &class),
            &class,
            Facts { namespace: "deploy", labels: &BTreeMap::new(), before },
        )
    };
    assert!(ask(1).is_ok());
    assert!(desired::tell(&ask(2).unwrap_err()).contains("allows 2 users in a namespace"));
}

// --- revocation -----------------------------------------------------------------------------

fn found(attached: &[&str]) -> IamUser {
    let user = user(&json!({}));
    let target = Target::of(&user, "cluster").unwrap();
    IamUser {
        name: target.user_name.clone(),
        arn: "arn:aws:iam::123456789012:user/awsdeploy/deploy-cycle".into(),
        id: "AIDA1".into(),
        tags: target.owner.tags(),
        keys: vec![AccessKey { id: "K1".into(), active: true, created_at: Timestamp::UNIX_EPOCH }],
        grants: Some(Grants { attached: attached.iter().map(|arn| (*arn).to_owned()).collect(), ..Grants::default() }),
        ..IamUser::default()
    }
}

#[test]
fn what_a_user_has_decides_how_far_a_revocation_goes() {
    const S3: &str = "arn:aws:iam::aws:policy/S3";
    let on = |mut rules: Value| {
        rules["onRevoked"] = json!("Delete");
        class(&rules)
    };
    let facts = Facts { namespace: "deploy", labels: &BTreeMap::new(), before: 0 };
    let how = |class: Option<&AwsDeployUserClass>, user: &IamUser| {
        revocation(class, Some(OnRevoked::Deactivate), false, user, facts).how
    };
    let s3 = json!({"policies": {"allowed": ["S3"]}});
    assert_eq!(how(Some(&on(s3.clone())), &found(&[S3])), OnRevoked::Freeze, "only the change is refused");
    assert_eq!(
        how(Some(&on(s3.clone())), &found(&[S3, "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3"])),
        OnRevoked::Freeze
    );
    let begun = revocation(Some(&on(s3.clone())), None, true, &found(&[]), facts).how;
    assert_eq!(begun, OnRevoked::Delete, "a revocation is not over when what it was for is gone");
    assert_eq!(how(None, &found(&[S3])), OnRevoked::Deactivate, "what the class said when it was there");
    let login = IamUser { login: Some(true), ..found(&[]) };
    let inline = IamUser {
        grants: Some(Grants { inline: [("a".to_owned(), json!({}))].into(), ..Grants::default() }),
        ..found(&[])
    };
    let group = IamUser { grants: Some(Grants { groups: ["g".to_owned()].into(), ..Grants::default() }), ..found(&[]) };
    let elsewhere = IamUser { arn: "arn:aws:iam::123456789012:user/x".into(), ..found(&[]) };
    for (rules, user) in [
        (json!({}), found(&[S3])),
        (json!({"namespaces": {"names": ["other"]}}), found(&[])),
        (json!({"policies": {"allowed": ["*"]}}), found(&["arn:aws:iam::aws:policy/AdministratorAccess"])),
        (json!({}), login),
        (json!({}), inline),
        (json!({}), group),
        (json!({}), elsewhere),
        (json!({"users": {"namePattern": "other"}}), found(&[])),
        (json!({"permissionsBoundary": "arn:aws:iam::123456789012:policy/b"}), found(&[])),
    ] {
        assert_eq!(how(Some(&on(rules.clone())), &user), OnRevoked::Delete, "{rules}");
    }
}

fn world(user: Option<IamUser>) -> World {
    World {
        iam: user.map_or(Iam::Absent, Iam::Found),
        keys_read_at: Some(Timestamp::UNIX_EPOCH),
        grants_live: true,
        published: Published::Missing,
        journal: JournalSeen::None,
        console: ConsoleSecret::Missing,
        verification: None,
        last_used: BTreeMap::new(),
        last_used_failed: false,
        gone: BTreeSet::new(),
        reported: Reported::default(),
        finalizer: true,
        user_sync_failed: false,
        no_user: None,
    }
}

/// All effects of a revocation, each taken for done.
fn revoke(how: OnRevoked, suspend: bool, mut user: IamUser, foreign: bool) -> Vec<Effect> {
    let target = Target::of(&self::user(&json!({})), "cluster").unwrap();
    let revoked = Revoked {
        revocation: Revocation { how, why: None },
        suspend,
        overlap: crate::domain::desired::DEFAULT_OVERLAP,
    };
    if !foreign {
        user.tags.insert("awsdeploy.dev/key/K1".into(), "t".into());
    }
    let mut world = world(Some(user));
    let mut done = Vec::new();
    for _ in 0..20 {
        let plan = plan::revoked(&target, &revoked, &world, Timestamp::UNIX_EPOCH, &Settings::default());
        let Some(effect) = plan.effects.into_iter().next() else { return done };
        let Iam::Found(user) = &mut world.iam else { panic!("{effect} without a user") };
        match &effect {
            Effect::DeactivateKey(id, _) => {
                user.keys.iter_mut().filter(|key| key.id == *id).for_each(|key| key.active = false);
            }
            Effect::DeleteKey(id, _) => user.keys.retain(|key| key.id != *id),
            Effect::RemovePassword => user.login = Some(false),
            Effect::DetachPolicy(arn) => _ = user.grants.as_mut().unwrap().attached.remove(arn),
            Effect::DeleteUser => world.iam = Iam::Absent,
            other => panic!("{other}"),
        }
        done.push(effect);
    }
    panic!("no end: {done:?}");
}

#[test]
fn a_revocation_only_takes_and_takes_what_it_says() {
    let user = || IamUser { login: Some(true), ..found(&["arn:aws:iam::aws:policy/S3"]) };
    let deactivate = |why| Effect::DeactivateKey("K1".into(), why);
    assert_eq!(revoke(OnRevoked::Freeze, false, user(), false), []);
    assert_eq!(
        revoke(OnRevoked::Freeze, true, user(), false),
        [deactivate(Why::Suspended), Effect::RemovePassword],
        "who revokes keys by hand is not stopped"
    );
    assert_eq!(revoke(OnRevoked::Deactivate, false, user(), false), [deactivate(Why::Revoked), Effect::RemovePassword]);
    assert_eq!(
        revoke(OnRevoked::Delete, false, user(), false),
        [
            deactivate(Why::Revoked),
            Effect::RemovePassword,
            Effect::DetachPolicy("arn:aws:iam::aws:policy/S3".into()),
            Effect::DeleteKey("K1".into(), Why::Cleanup),
            Effect::DeleteUser,
        ]
    );
    assert_eq!(
        revoke(OnRevoked::Delete, false, user(), true),
        [Effect::RemovePassword, Effect::DetachPolicy("arn:aws:iam::aws:policy/S3".into())],
        "a key of somebody else keeps the user, and nothing that it could do"
    );
}

#[test]
fn nothing_of_somebody_elses_user_is_touched() {
    let target = Target::of(&user(&json!({})), "cluster").unwrap();
    let revoked = Revoked {
        revocation: Revocation { how: OnRevoked::Delete, why: None },
        suspend: true,
        overlap: crate::domain::desired::DEFAULT_OVERLAP,
    };
    let world = world(Some(IamUser { tags: BTreeMap::new(), ..found(&["arn:aws:iam::aws:policy/S3"]) }));
    assert_eq!(plan::revoked(&target, &revoked, &world, Timestamp::UNIX_EPOCH, &Settings::default()).effects, []);
}

// --- the property ---------------------------------------------------------------------------

const POLICIES: [&str; 6] = [
    "AmazonEC2FullAccess",
    "AmazonS3FullAccess",
    "AdministratorAccess",
    "job-function/ViewOnlyAccess",
    "arn:aws:iam::123456789012:policy/deploy/a",
    "arn:aws:iam::123456789012:policy/b",
];
const PATTERNS: [&str; 7] = [
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
        (permission(), permission(), any::<bool>(), any::<bool>()),
        (prop_oneof![Just("/awsdeploy/"), Just("/a/b/")], prop_oneof![Just(".*"), Just("deploy-.*"), Just("x")]),
        prop_oneof![Just(json!({})), Just(json!({"team": "a"})), Just(json!({"team": "a", "cost": "b"}))],
    );
    parts.prop_map(
        |((names, allowed, default, groups), (inline, console, acknowledged, limited), (path, name), tags)| {
            let mut class = json!({
                "namespaces": {"names": names}, "policies": {"allowed": allowed, "default": default, "inline": inline},
                "groups": groups, "console": console, "acknowledgeAdminEquivalent": acknowledged,
                "users": {"path": path, "namePattern": name}, "tags": tags,
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
        documents(),
        some(&GROUPS, 2),
        prop_oneof![Just(json!({})), Just(json!({"Team": "b"})), Just(json!({"own": "c"}))],
        prop_oneof![Just(None), Just(Some("x")), Just(Some("deploy-1"))],
        any::<bool>(),
    );
    parts.prop_map(|(managed, documents, groups, tags, name, console)| {
        let inline: Vec<Value> =
            documents.iter().map(|document| json!({"name": "own", "document": document})).collect();
        let mut spec = json!({"policies": {"managed": managed, "inline": inline}, "groups": groups, "tags": tags});
        if let Some(name) = name {
            spec["userName"] = json!(name);
        }
        if console {
            spec["console"] = json!({"passwordResetRequired": false});
        }
        spec
    })
}

/// Written apart from the rules: what a class says of one managed policy.
fn may_attach(rules: &Value, arn: &str) -> bool {
    let short = arn.strip_prefix("arn:aws:iam::aws:policy/").unwrap_or(arn);
    let administrator = short == "AdministratorAccess";
    let allowed =
        rules["policies"]["allowed"].as_array().unwrap().iter().any(|pattern| match pattern.as_str().unwrap() {
            "*" => true,
            "Amazon*" => short.starts_with("Amazon"),
            "Admin*" => administrator,
            "job-function/*" => short.starts_with("job-function/"),
            "arn:aws:iam::123456789012:policy/deploy/*" => short == "arn:aws:iam::123456789012:policy/deploy/a",
            exact => exact.ends_with(short),
        });
    allowed && (!administrator || rules["acknowledgeAdminEquivalent"] == true)
}

/// Holds one effect against the class.
fn check(effect: &Effect, desired: &Desired, rules: &Value) -> Result<(), TestCaseError> {
    match effect {
        Effect::CreateUser => {
            prop_assert_eq!(&json!(desired.path), &rules["users"]["path"]);
            prop_assert_eq!(&json!(desired.boundary), &rules["permissionsBoundary"]);
            for (key, value) in rules["tags"].as_object().unwrap() {
                prop_assert_eq!(&json!(desired.tags.get(key)), value);
            }
        }
        Effect::AttachPolicy(arn) => prop_assert!(may_attach(rules, arn), "{arn}"),
        Effect::PutInlinePolicy(_, document) => {
            prop_assert_eq!(&rules["policies"]["inline"], "Allow");
            let text = document.to_string();
            let mighty = text.contains(r#""Resource":"*""#)
                && (text.contains(r#""Action":"*""#) || text.contains("iam:PassRole"));
            prop_assert!(!mighty || rules["acknowledgeAdminEquivalent"] == true, "{text}");
        }
        Effect::AddToGroup(group) => prop_assert!(rules["groups"].as_array().unwrap().contains(&json!(group))),
        Effect::WritePassword | Effect::ApplyPassword => prop_assert_eq!(&rules["console"], "Allow"),
        Effect::PutBoundary(arn) => prop_assert_eq!(&json!(arn), &rules["permissionsBoundary"]),
        _ => {}
    }
    Ok(())
}

/// IAM, as far as user and grants go.
fn perform(effect: &Effect, desired: &Desired, world: &mut World) -> bool {
    if matches!(effect, Effect::CreateUser) {
        let name = desired.target.user_name.clone();
        world.iam = Iam::Found(IamUser {
            arn: format!("arn:aws:iam::123456789012:user{}{name}", desired.path),
            name,
            tags: desired.tags.clone(),
            boundary: desired.boundary.clone(),
            grants: Some(Grants::default()),
            ..IamUser::default()
        });
        return true;
    }
    let Iam::Found(user) = &mut world.iam else { return false };
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
        // The password and the key are the end: everything that is granted has been granted.
        _ => return false,
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// For random classes and resources, and whatever somebody has attached by hand: what is done in AWS is a subset of
    /// what the class allows, and afterwards the user has nothing that the class would take away.
    #[test]
    fn nothing_is_done_that_the_class_does_not_allow(
        rules in classes(), spec in specs(), drift in some(&POLICIES, 2), joined in some(&GROUPS, 1),
    ) {
        let (user, class) = (user(&spec), class(&rules));
        let target = target(&user, &class);
        let facts = Facts { namespace: "deploy", labels: &BTreeMap::new(), before: 0 };
        let Ok(authorization) = authorize(&user, &target, &class, facts) else { return Ok(()) };
        prop_assert!(rules["namespaces"]["names"].as_array().unwrap().contains(&json!("deploy")));
        let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: false };
        let Ok(desired) = desired::validate(&authorization.user, &target, &authorization.grant, &account, &Settings::default()) else {
            return Ok(());
        };
        let mut world = world(None);
        let mut drifted = false;
        for _ in 0..60 {
            let plan = plan(&desired, &world, Timestamp::UNIX_EPOCH, &Settings::default());
            for effect in &plan.effects {
                check(effect, &desired, &rules)?;
            }
            let next = plan.effects.first();
            if next.is_some_and(|effect| perform(effect, &desired, &mut world)) {
                continue;
            }
            if std::mem::replace(&mut drifted, true) {
                let Iam::Found(user) = &world.iam else { panic!("no user") };
                prop_assert_eq!(still_allowed(&class, user, facts), Ok(()));
                return Ok(());
            }
            if let Iam::Found(IamUser { grants: Some(grants), boundary, .. }) = &mut world.iam {
                grants.attached.extend(drift.iter().map(|name| crate::domain::policy::managed_arn(name, "aws")));
                grants.groups.extend(joined.iter().map(|group| (*group).to_owned()));
                *boundary = None;
            }
        }
        prop_assert!(false, "no end");
    }
}
