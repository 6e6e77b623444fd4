//! Revocation of the IAM user of a resource that is not authorized.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{super::*, class, user};
use crate::{
    api::class::{OnQuarantine, OnRevoked},
    domain::{
        current_state::{
            AccessKey, CurrentState, CurrentUser, Grants, IamUser, JournalSecret, PublishedSecret, UserAbsence,
        },
        journal::{AttemptPhase, Journal},
        managed_policy::{CurrentPolicies, CurrentPolicy, PolicyOwner},
        plan::{self, Effect, Plan, RetireReason, RevocationPolicy},
        secret::PublishedFacts,
        settings::Settings,
    },
};

const QUARANTINE: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";

fn found(attached: &[&str]) -> IamUser {
    let user = user(&json!({}));
    let target = Target::from_resource(&user, "cluster").unwrap();
    IamUser {
        name: target.user_name.clone(),
        arn: "arn:aws:iam::123456789012:user/awsdeploy/deploy_cycle".into(),
        id: "AIDA1".into(),
        tags: target.owner.tags(),
        keys: vec![AccessKey { id: "K1".into(), active: true, created_at: Timestamp::UNIX_EPOCH }],
        grants: Some(Grants { attached: attached.iter().map(|arn| (*arn).to_owned()).collect(), ..Grants::default() }),
        ..IamUser::default()
    }
}

fn no_policies() -> CurrentPolicies {
    CurrentPolicies::default()
}

const fn mins(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// A class that was first observed missing this long after the time of the decision, with a grace of five minutes.
fn absence(since: SignedDuration) -> ClassAbsence {
    let now = Timestamp::UNIX_EPOCH;
    ClassAbsence::new(OnRevoked::Deactivate, now + since, now, mins(5))
}

#[test]
fn missing_class_revokes_nothing_before_its_grace_ends() {
    let context = NamespaceContext { namespace: "deploy", labels: &BTreeMap::new(), preceding_users: 0 };
    let ends = |minutes| Some(Timestamp::UNIX_EPOCH + mins(minutes));
    for (since, in_progress, action, until) in [
        (0, false, OnRevoked::Freeze, ends(5)),
        (-4, false, OnRevoked::Freeze, ends(1)),
        (-5, false, OnRevoked::Deactivate, None),
        // The clock was set back: the grace does not grow.
        (60, false, OnRevoked::Freeze, ends(5)),
        // A revocation that has begun is completed.
        (0, true, OnRevoked::Deactivate, None),
    ] {
        let decided =
            decide_revocation(None, Some(absence(mins(since))), in_progress, (&found(&[]), &no_policies()), context);
        assert_eq!((decided.action, decided.until), (action, until), "{since} {in_progress}");
        assert!(decided.reason.unwrap().contains("does not exist"));
    }
    // A class that exists is followed at once.
    let tightened = class(&json!({"onRevoked": "Delete"}));
    let s3 = found(&["arn:aws:iam::aws:policy/S3"]);
    let decided = decide_revocation(Some(&tightened), None, false, (&s3, &no_policies()), context);
    assert_eq!((decided.action, decided.until), (OnRevoked::Delete, None));
}

#[test]
fn grace_of_a_missing_class_is_reported_and_ends() {
    let target = Target::from_resource(&user(&json!({})), "cluster").unwrap();
    let policy = RevocationPolicy {
        revocation: absence(mins(-1)).revocation(),
        ..revoked(OnRevoked::Freeze, OnQuarantine::Alert, false)
    };
    let mut user = found(&[]);
    user.tags.insert("awsdeploy.dev/key/K1".into(), "t".into());
    let current = CurrentState { iam: CurrentUser::Found(user), ..CurrentState::empty(Timestamp::UNIX_EPOCH) };
    let plan = plan::plan_revocation(&target, &policy, &current, Timestamp::UNIX_EPOCH, &Settings::default());
    assert_eq!((plan.effects, plan.requeue_at), (vec![], Some(Timestamp::UNIX_EPOCH + mins(4))));
    let note = policy.note().message;
    assert!(note.contains("onRevoked: Deactivate applies at 1970-01-01T00:04:00Z"), "{note}");
}

#[test]
fn revocation_depends_on_what_the_user_has() {
    const S3: &str = "arn:aws:iam::aws:policy/S3";
    let on = |mut rules: Value| {
        rules["onRevoked"] = json!("Delete");
        class(&rules)
    };
    let context = NamespaceContext { namespace: "deploy", labels: &BTreeMap::new(), preceding_users: 0 };
    let how = |class: Option<&AwsDeployUserClass>, user: &IamUser| {
        decide_revocation(class, Some(absence(-mins(9))), false, (user, &no_policies()), context).action
    };
    let s3 = json!({"policies": {"allowed": ["S3"]}});
    assert_eq!(how(Some(&on(s3.clone())), &found(&[S3])), OnRevoked::Freeze, "only the change is refused");
    assert_eq!(
        how(Some(&on(s3.clone())), &found(&[S3, "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3"])),
        OnRevoked::Freeze
    );
    let begun = decide_revocation(Some(&on(s3.clone())), None, true, (&found(&[]), &no_policies()), context).action;
    assert_eq!(begun, OnRevoked::Delete, "a revocation is not over when what it was for is gone");
    assert_eq!(how(None, &found(&[S3])), OnRevoked::Deactivate, "what the class said when it was there");
    let never = decide_revocation(None, None, false, (&found(&[S3]), &no_policies()), context);
    assert_eq!((never.action, never.reason.as_deref()), (OnRevoked::Freeze, Some("no class has allowed it yet")));
    let login = IamUser { login_profile: Some(true), ..found(&[]) };
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
        (json!({}), inline.clone()),
        (json!({"policies": {"documents": "Allow"}}), inline),
        (json!({}), group),
        (json!({}), elsewhere),
        (json!({"users": {"namePattern": "other"}}), found(&[])),
        (json!({"permissionsBoundary": "arn:aws:iam::123456789012:policy/b"}), found(&[])),
    ] {
        assert_eq!(how(Some(&on(rules.clone())), &user), OnRevoked::Delete, "{rules}");
    }
}

fn revoked(how: OnRevoked, on_quarantine: OnQuarantine, credentials_revoked: bool) -> RevocationPolicy {
    RevocationPolicy {
        revocation: Revocation { action: how, reason: None, until: None },
        on_quarantine,
        credentials_revoked,
    }
}

/// All effects of a revocation, assuming that each succeeds.
fn revoke(how: OnRevoked, credentials_revoked: bool, mut user: IamUser, foreign: bool) -> Vec<Effect> {
    let target = Target::from_resource(&self::user(&json!({})), "cluster").unwrap();
    let revoked = revoked(how, OnQuarantine::Alert, credentials_revoked);
    if !foreign {
        user.tags.insert("awsdeploy.dev/key/K1".into(), "t".into());
    }
    let mut current = CurrentState { iam: CurrentUser::Found(user), ..CurrentState::empty(Timestamp::UNIX_EPOCH) };
    let mut done = Vec::new();
    for _ in 0..20 {
        let plan = plan::plan_revocation(&target, &revoked, &current, Timestamp::UNIX_EPOCH, &Settings::default());
        let Some(effect) = plan.effects.into_iter().next() else { return done };
        let CurrentUser::Found(user) = &mut current.iam else { panic!("{effect} without a user") };
        match &effect {
            Effect::DeactivateKey(id, _) => {
                user.keys.iter_mut().filter(|key| key.id == *id).for_each(|key| key.active = false);
            }
            Effect::DeleteKey(id, _) => user.keys.retain(|key| key.id != *id),
            Effect::RemovePassword => user.login_profile = Some(false),
            Effect::DetachPolicy(arn) => _ = user.grants.as_mut().unwrap().attached.remove(arn),
            Effect::DeleteUser => current.iam = CurrentUser::Absent,
            other => panic!("{other}"),
        }
        done.push(effect);
    }
    panic!("no end: {done:?}");
}

#[test]
fn revocation_only_removes_what_its_policy_names() {
    let user = || IamUser { login_profile: Some(true), ..found(&["arn:aws:iam::aws:policy/S3"]) };
    let deactivate = |why| Effect::DeactivateKey("K1".into(), why);
    let detach = || Effect::DetachPolicy("arn:aws:iam::aws:policy/S3".into());
    assert_eq!(revoke(OnRevoked::Freeze, false, user(), false), []);
    assert_eq!(
        revoke(OnRevoked::Freeze, true, user(), false),
        [deactivate(RetireReason::CredentialsRevoked), Effect::RemovePassword],
        "who revokes keys by hand is not stopped"
    );
    assert_eq!(
        revoke(OnRevoked::Deactivate, false, user(), false),
        [deactivate(RetireReason::Revoked), Effect::RemovePassword, detach()]
    );
    assert_eq!(
        revoke(OnRevoked::Deactivate, false, user(), true),
        [Effect::RemovePassword, detach()],
        "a key that the user made for itself allows nothing"
    );
    assert_eq!(
        revoke(OnRevoked::Delete, false, user(), false),
        [
            deactivate(RetireReason::Revoked),
            Effect::RemovePassword,
            detach(),
            Effect::DeleteKey("K1".into(), RetireReason::Cleanup),
            Effect::DeleteUser,
        ]
    );
    assert_eq!(
        revoke(OnRevoked::Delete, false, user(), true),
        [Effect::RemovePassword, detach()],
        "a foreign key keeps the user, but none of its permissions"
    );
}

#[test]
fn foreign_user_is_not_changed() {
    let target = Target::from_resource(&user(&json!({})), "cluster").unwrap();
    let revoked = revoked(OnRevoked::Delete, OnQuarantine::Alert, true);
    let theirs = IamUser { tags: BTreeMap::new(), ..found(&["arn:aws:iam::aws:policy/S3"]) };
    let current = CurrentState { iam: CurrentUser::Found(theirs), ..CurrentState::empty(Timestamp::UNIX_EPOCH) };
    assert_eq!(
        plan::plan_revocation(&target, &revoked, &current, Timestamp::UNIX_EPOCH, &Settings::default()).effects,
        []
    );
}

/// IAM lists a new user with a delay. Until its absence is confirmed, its key may exist, and the journal identifies the owner.
#[test]
fn unlisted_user_keeps_the_journal_of_its_key() {
    let target = Target::from_resource(&user(&json!({})), "cluster").unwrap();
    let revoked = revoked(OnRevoked::Delete, OnQuarantine::Alert, false);
    let settings = Settings::default();
    let start = Timestamp::UNIX_EPOCH;
    let phase = AttemptPhase::Keyed { key_id: "K1".into(), keyed_at: start };
    let journal = Journal { started_at: start, rotate_request: None, phase };
    let under_way = || JournalSecret::Attempt { attempt: "attempt".into(), journal: journal.clone() };
    let planned = |user_absence: Option<UserAbsence>, waited: SignedDuration| {
        let current =
            CurrentState { iam: CurrentUser::Absent, journal: under_way(), user_absence, ..CurrentState::empty(start) };
        plan::plan_revocation(&target, &revoked, &current, start + waited, &settings)
    };
    let unseen = Some(UserAbsence::NotObserved { since: start });
    let second = SignedDuration::from_secs(1);
    for (user_absence, waited) in [(None, SignedDuration::ZERO), (unseen, settings.recovery_delay - second)] {
        let plan = planned(user_absence, waited);
        assert_eq!(plan.effects, [], "{user_absence:?}");
        assert!(plan.requeue_at.is_some() && plan.user.unwrap().message.contains("read again"), "{user_absence:?}");
    }
    assert_eq!(planned(unseen, settings.recovery_delay).effects, [Effect::CloseJournal]);
    assert_eq!(planned(Some(UserAbsence::Removed), SignedDuration::ZERO).effects, [Effect::CloseJournal]);
}

/// Plan for a quarantined user with a published key whose resource is not authorized.
fn quarantined(how: OnRevoked, on_quarantine: OnQuarantine, credentials_revoked: bool, active: bool) -> Plan {
    let target = Target::from_resource(&user(&json!({})), "cluster").unwrap();
    let mut user = found(&["arn:aws:iam::aws:policy/S3", QUARANTINE]);
    user.keys[0].active = active;
    user.tags.insert("awsdeploy.dev/key/K1".into(), "t".into());
    let published = PublishedFacts::of("K1", Timestamp::UNIX_EPOCH);
    let current = CurrentState {
        iam: CurrentUser::Found(user),
        published: PublishedSecret::Ours(published),
        ..CurrentState::empty(Timestamp::UNIX_EPOCH)
    };
    let revoked = revoked(how, on_quarantine, credentials_revoked);
    plan::plan_revocation(&target, &revoked, &current, Timestamp::UNIX_EPOCH, &Settings::default())
}

#[test]
fn quarantined_key_is_deactivated_despite_freeze() {
    let deactivate = |why| vec![Effect::DeactivateKey("K1".into(), why)];
    for (how, on_quarantine, credentials_revoked, wanted) in [
        (OnRevoked::Freeze, OnQuarantine::Alert, false, vec![]),
        (OnRevoked::Freeze, OnQuarantine::Rotate, false, deactivate(RetireReason::Quarantined)),
        (OnRevoked::Freeze, OnQuarantine::Revoke, false, deactivate(RetireReason::Quarantined)),
        (OnRevoked::Freeze, OnQuarantine::Alert, true, deactivate(RetireReason::CredentialsRevoked)),
        (OnRevoked::Deactivate, OnQuarantine::Alert, false, deactivate(RetireReason::Revoked)),
    ] {
        let plan = quarantined(how, on_quarantine, credentials_revoked, true);
        assert_eq!(plan.effects, wanted, "{how:?} {on_quarantine:?} {credentials_revoked}");
        let note = plan.user.expect("a note");
        assert_eq!(note.reason, crate::api::Reason::Quarantined, "reported in any case");
        let nothing = note.message.contains("Nothing was done about its keys");
        assert_eq!(nothing, wanted.is_empty(), "{}", note.message);
    }
    let kept = quarantined(OnRevoked::Freeze, OnQuarantine::Rotate, false, false);
    assert_eq!(kept.effects, [], "the key is kept, without a successor");
    assert_eq!(kept.key.expect("a note").reason, crate::api::Reason::Quarantined);
}

/// A managed policy of a document is weighed as an inline one; the name of another resource's is never enough.
#[test]
fn managed_document_is_kept_only_as_far_as_the_class_allows() {
    const ARN: &str = "arn:aws:iam::123456789012:policy/awsdeploy/deploy_cycle/deploy_cycle+own";
    let document = |resource: &str| json!({"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": resource}});
    let policies = |owner, content: Option<Value>| CurrentPolicies {
        found: [(
            ARN.to_owned(),
            CurrentPolicy {
                arn: ARN.into(),
                id: "ANPA1".into(),
                owner,
                default_version: "v1".into(),
                documents: BTreeMap::new(),
                content,
                attachments: 1,
                versions: None,
                holders: None,
            },
        )]
        .into(),
        are_unread: false,
    };
    let keeps = |rules: &Value, policies: &CurrentPolicies| {
        let context = NamespaceContext { namespace: "deploy", labels: &BTreeMap::new(), preceding_users: 0 };
        check_still_allowed(&class(rules), &found(&[ARN]), policies, context).is_ok()
    };
    let ours = |resource: &str| policies(PolicyOwner::Ours, Some(document(resource)));
    let any = json!({"policies": {"documents": "Allow"}, "acknowledgeAdminEquivalent": true});
    let rendered = json!({"policies": {"documents": "TemplatesOnly", "templates": [
        {"name": "t", "document": document("arn:aws:s3:::logs/{name}")}
    ]}});
    assert!(keeps(&any, &ours("*")) && keeps(&any, &policies(PolicyOwner::Earlier, None)));
    assert!(keeps(&rendered, &ours("arn:aws:s3:::logs/cycle")));
    assert!(!keeps(&rendered, &ours("*")) && !keeps(&rendered, &policies(PolicyOwner::Ours, None)));
    let by_name = json!({"policies": {"allowed": ["*", ARN]}, "acknowledgeAdminEquivalent": true});
    assert!(!keeps(&by_name, &ours("*")), "documents are denied");
    let other = policies(PolicyOwner::Other("of another".into()), Some(document("*")));
    for rules in [&any, &by_name] {
        assert!(!keeps(rules, &other) && !keeps(rules, &no_policies()), "{rules}");
    }
    for rules in [any, rendered] {
        assert!(keeps(&rules, &CurrentPolicies::unread()), "a failed read costs no user its key: {rules}");
    }
    assert!(!keeps(&by_name, &CurrentPolicies::unread()), "no document is allowed");
    let none = json!({"policies": {"allowed": []}, "users": {"path": "/other/"}});
    assert!(!keeps(&none, &CurrentPolicies::unread()), "what else is not allowed");
}
