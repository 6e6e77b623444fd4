//! Taking over an IAM user that exists: only with the consent of both sides, and so that a crash does no harm.

use std::collections::BTreeSet;

use awsdeploy::api::{ConditionType, Reason, user::AccessKeyState};
use awsdeploy_testkit::aws_proxy::{Call, Rule};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, message, open_class};

const EC2: &str = "arn:aws:iam::aws:policy/AmazonEC2FullAccess";
const S3: &str = "arn:aws:iam::aws:policy/AmazonS3FullAccess";
const ALLOW_ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
const TAG: &str = "awsdeploy.dev/adoptable-by";

/// Resource and user, the tags of the user, its path, and what is told.
type Refused = (&'static str, Vec<(String, String)>, &'static str, &'static str);

/// A cluster that permits adoption.
async fn permitting() -> Stage {
    Stage::with_arguments(&["--cluster-id=it"]).await
}

/// What an AWS admin writes for the resource `x`.
fn consent(stage: &Stage) -> String {
    format!("it/{}/x", stage.namespace)
}

fn spec(user: &str) -> Value {
    json!({"userName": user, "adoption": "IfTagged", "policies": {"managed": ["AmazonEC2FullAccess"]}})
}

async fn someones_user(stage: &Stage, name: &str, path: &str, tags: &[(&str, &str)]) {
    let create = Call::iam("CreateUser").with("UserName", name).with("Path", path);
    stage.aws.human().call(&create.with_tags(tags.iter().copied())).await.expect("somebody's user");
}

pub(crate) async fn a_user_is_taken_over_with_the_consent_of_both_sides() {
    let mut stage = permitting().await;
    let mut limited = open_class();
    limited["permissionsBoundary"] = json!("arn:aws:iam::aws:policy/PowerUserAccess");
    limited["namespaces"] = json!({"names": [stage.namespace]});
    let class = stage.class("limited", limited).await;
    let spec = |user: &str| {
        let mut spec = spec(user);
        spec["className"] = json!(class);
        spec
    };
    let human = stage.aws.human();
    someones_user(&stage, "ci", "/awsdeploy/team/", &[("owner", "platform")]).await;
    human.attach("ci", EC2).await.expect("by hand");
    human.attach("ci", S3).await.expect("by hand");
    human.put_inline("ci", "theirs", ALLOW_ALL).await.expect("by hand");
    human.create_group("admins").await.expect("a group");
    human.add_to_group("ci", "admins").await.expect("by hand");
    let theirs = human.create_key("ci").await.expect("their key").id;
    let id = stage.iam("ci").await.id;

    stage.apply("x", spec("ci")).await;
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    let told = message(&user, ConditionType::Ready);
    let command = format!("aws iam tag-user --user-name ci --tags Key={TAG},Value={}", consent(&stage));
    assert!(told.contains(&command) && !told.contains("adoption: Allow"), "{told}");
    assert!(stage.aws.log().select(|call| call.mutating).is_empty(), "nothing is written without consent");
    assert!(stage.secret("x").await.is_none());

    let mark = stage.aws.log().mark();
    human.tag("ci", &[(TAG, &consent(&stage))]).await.expect("an AWS admin consents");
    let user = stage.ready("x").await;
    let iam = stage.iam("ci").await;
    assert_eq!((iam.id, iam.path.as_str()), (id, "/awsdeploy/team/"), "the same user, where it was");
    assert_eq!(iam.attached, BTreeSet::from([EC2.to_owned()]));
    assert!(iam.inline.is_empty() && iam.groups.is_empty(), "policies are exclusive, as for a user of our own");
    assert_eq!(iam.boundary.as_deref(), Some("arn:aws:iam::aws:policy/PowerUserAccess"));
    assert_eq!(iam.tags["awsdeploy.dev/name"], "x");
    assert_eq!(iam.tags["owner"], "platform", "tags of others stay");
    assert!(!iam.tags.contains_key(TAG), "the consent is used up: {:?}", iam.tags);
    let published = stage.published("x").await;
    assert!(stage.account.accepts(&published) && stage.account.accepts(&theirs), "their key goes on");
    let status = user.status.expect("a status");
    let shown = |id: &str| status.access_keys.iter().find(|key| key.id == id).map(|key| key.state);
    assert_eq!((shown(&theirs), shown(&published)), (Some(AccessKeyState::Foreign), Some(AccessKeyState::Published)));
    let writes = stage.aws.log().mutating_calls_since(mark);
    assert_eq!(writes[0].action, "TagUser", "the marks come first");
    assert_eq!(writes[1].action, "PutUserPermissionsBoundary", "and then the limit");
    assert!(writes.iter().all(|call| call.access_key.as_ref() != Some(&theirs) && call.action != "CreateUser"));
    let told = stage.event("x", Reason::UserAdoptable).await;
    for loss in [S3, "inline policy theirs", "group admins", &theirs] {
        assert!(told.contains(loss), "{loss} is not told before: {told}");
    }
    assert!(!told.contains(EC2), "what stays is no loss: {told}");
    stage.event("x", Reason::UserAdopted).await;
    let blamed = stage.events("x").await.into_iter().any(|(_, note)| note.contains("by somebody else"));
    assert!(!blamed, "what is exclusive was no drift");
    stage.assert_a_fresh_look_writes_nothing("x").await;
}

/// Each way in which a consent can be missing or false; none leads to a write.
pub(crate) async fn without_a_true_consent_nothing_is_written() {
    let stage = permitting().await;
    let ns = stage.namespace.clone();
    let mark = |name: &str, value: &str| (format!("awsdeploy.dev/{name}"), value.to_owned());
    let owned = |cluster: &str, name: &str| {
        vec![mark("cluster", cluster), mark("namespace", &ns), mark("name", name), mark("uid", "u0")]
    };
    let consent = |value: String| vec![mark("adoptable-by", &value)];
    let mine = |name: &str| mark("adoptable-by", &format!("it/{ns}/{name}"));
    let with = |mut tags: Vec<(String, String)>, more| {
        tags.push(more);
        tags
    };
    let cases: Vec<Refused> = vec![
        ("untagged", vec![], "/awsdeploy/", "no AWS admin has consented;"),
        ("namespace", consent("it/other/namespace".into()), "/awsdeploy/", "the tag is \"it/other/namespace\" now"),
        ("neighbour", consent(format!("it/{ns}/x")), "/awsdeploy/", "no AWS admin has consented (the tag is"),
        ("cluster", consent(format!("other/{ns}/cluster")), "/awsdeploy/", "no AWS admin has consented"),
        ("incase", consent(format!("IT/{ns}/InCase")), "/awsdeploy/", "no AWS admin has consented"),
        ("short", consent(format!("{ns}/short")), "/awsdeploy/", "no AWS admin has consented"),
        ("theirs", with(owned("other", "theirs"), mine("theirs")), "/awsdeploy/", "of another cluster (other)"),
        ("sibling", with(owned("it", "first"), mine("sibling")), "/awsdeploy/", "belongs to AwsDeployUser"),
        ("earlier", with(owned("it", "earlier"), mine("earlier")), "/awsdeploy/", "an earlier AwsDeployUser"),
        ("partly", vec![mark("uid", "x"), mine("partly")], "/awsdeploy/", "marks are incomplete"),
        ("outside", vec![mine("outside")], "/", "--new-path /awsdeploy/"),
    ];
    for (name, tags, path, _) in &cases {
        let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        someones_user(&stage, name, path, &tags).await;
    }
    someones_user(&stage, "Spelled", "/awsdeploy/", &[(TAG, &format!("it/{ns}/spelled"))]).await;
    someones_user(&stage, "never", "/awsdeploy/", &[(TAG, &format!("it/{ns}/never"))]).await;
    for (name, ..) in &cases {
        stage.apply(name, spec(name)).await;
    }
    stage.apply("spelled", spec("spelled")).await;
    stage.apply("never", json!({"userName": "never"})).await;
    let refused = cases.iter().map(|(name, _, _, told)| (*name, *told));
    for (name, told) in refused.chain([("spelled", "under its exact name only"), ("never", "spec.adoption: IfTagged")])
    {
        let user = stage.until_condition(name, ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
        let message = message(&user, ConditionType::Ready);
        assert!(message.contains(told), "{name}: {message}");
        assert!(stage.secret(name).await.is_none(), "{name}");
    }
    let committed = stage.aws.log().select(|call| call.mutating && call.committed);
    assert!(committed.is_empty(), "{committed:#?}");
}

pub(crate) async fn a_cluster_that_does_not_permit_it_adopts_nobody() {
    let stage = Stage::with_arguments(&["--cluster-id=it"]).await;
    someones_user(&stage, "ci", "/awsdeploy/", &[(TAG, &consent(&stage))]).await;
    let class = stage.class("denies", json!({"policies": {"allowed": ["AmazonEC2FullAccess"]}})).await;
    let mut spec = spec("ci");
    spec["className"] = json!(class);
    stage.apply("x", spec).await;
    let user = stage.until_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains("adoption: Allow") && !told.contains("aws iam tag-user"), "the missing side only: {told}");
    assert!(stage.aws.log().select(|call| call.mutating).is_empty());
    stage.delete("x").await;
    stage.gone("x").await;
    assert_eq!(stage.iam("ci").await.tags.len(), 1, "it was never ours to delete");
}

pub(crate) async fn an_adopted_user_with_two_keys_waits_for_a_slot() {
    let stage = permitting().await;
    someones_user(&stage, "ci", "/awsdeploy/", &[(TAG, &consent(&stage))]).await;
    let human = stage.aws.human();
    let (one, two) = (human.create_key("ci").await.expect("a key").id, human.create_key("ci").await.expect("a key").id);
    stage.apply("x", spec("ci")).await;
    let user = stage.until_condition("x", ConditionType::KeyPublished, "False", Some(Reason::SlotTaken)).await;
    let told = message(&user, ConditionType::Ready);
    assert!(told.contains(&one) && told.contains(&two), "{told}");
    assert_eq!(condition(&user, ConditionType::UserSynced).map(|synced| synced.status.as_str()), Some("True"));
    assert!(stage.aws.log().calls_of("CreateAccessKey").is_empty(), "a third one is not even tried");
    human.delete_key("ci", &one).await.expect("its owner makes room");
    stage.ready("x").await;
    assert_eq!(stage.iam("ci").await.keys.len(), 2);
    assert!(stage.account.accepts(&two));
}

/// The operator dies after the marks were written, and once more before the consent is taken off.
pub(crate) async fn a_crash_amid_an_adoption_does_no_harm() {
    let mut stage = permitting().await;
    someones_user(&stage, "ci", "/awsdeploy/", &[(TAG, &consent(&stage))]).await;
    stage.aws.human().attach("ci", S3).await.expect("by hand");
    for rule in [Rule::on("TagUser").nth(1).after_commit(), Rule::on("UntagUser").nth(1).before()] {
        let pause = stage.aws.rules().pause(rule);
        stage.apply("x", spec("ci")).await;
        assert!(pause.paused(SOON).await, "amid the adoption");
        stage.operator.kill().await;
        pause.abort();
        assert!(stage.iam("ci").await.tags.contains_key("awsdeploy.dev/uid"), "all marks come in one call");
        stage.operator.restart().await.expect("the operator comes back");
    }
    stage.ready("x").await;
    let iam = stage.iam("ci").await;
    assert_eq!(iam.attached, BTreeSet::from([EC2.to_owned()]));
    assert!(!iam.tags.contains_key(TAG));
    assert_eq!(iam.active_keys(), [stage.published("x").await.as_str()]);
    stage.assert_a_fresh_look_writes_nothing("x").await;
}

pub(crate) async fn an_adopted_user_leaves_as_any_other_and_can_be_handed_back() {
    let stage = permitting().await;
    someones_user(&stage, "ci", "/awsdeploy/", &[(TAG, &consent(&stage))]).await;
    let theirs = stage.aws.human().create_key("ci").await.expect("their key").id;
    stage.apply("x", spec("ci")).await;
    stage.ready("x").await;
    let ours = stage.published("x").await;
    stage.delete("x").await;
    let user = stage.until_condition("x", ConditionType::Ready, "False", Some(Reason::ForeignKeys)).await;
    assert!(message(&user, ConditionType::Ready).contains(&theirs));
    assert!(stage.account.accepts(&ours), "nothing is taken from the user before that is solved");
    let mut retained = spec("ci");
    retained["deletionPolicy"] = json!("Retain");
    stage.apply("x", retained).await;
    stage.gone("x").await;
    let iam = stage.iam("ci").await;
    assert!(stage.account.accepts(&theirs) && stage.account.accepts(&ours));
    assert!(iam.tags.keys().all(|key| !key.starts_with("awsdeploy.dev/")), "no mark is left: {:?}", iam.tags);
}
