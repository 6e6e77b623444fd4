//! Documents of real size: managed policies that belong to a resource.

use awsdeploy::api::{ConditionType, Reason};
use awsdeploy_testkit::aws_proxy::{AwsResponse, Call, CallRecord, LogPosition, PolicySnapshot, Rule, UserSnapshot};
use serde_json::{Value, json};

use crate::test_env::{TIMEOUT, TestEnv, eventually, message};

const PATH: &str = "/awsdeploy/";

fn document(action: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]})
}

/// A document of more counted characters than this, as a tool with many buckets has it.
fn document_of_size(size: usize) -> Value {
    let one = r#"{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::example-000/*"},"#;
    let bucket = |number: usize| {
        json!({"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": format!("arn:aws:s3:::example-{number:03}/*")})
    };
    json!({"Version": "2012-10-17", "Statement": (0..=size / one.len()).map(bucket).collect::<Vec<_>>()})
}

fn managed(name: &str, document: &Value) -> Value {
    json!({"name": name, "document": document, "as": "Managed"})
}

fn spec(user: &str, documents: &[Value]) -> Value {
    json!({"userName": user, "policies": {"documents": documents}})
}

impl TestEnv {
    fn policy_arn(&self, user: &str, document: &str) -> String {
        format!("arn:aws:iam::{}:policy{PATH}{user}/{user}+{document}", self.account.id())
    }

    /// The policies of a user.
    async fn policies(&self, user: &str) -> Vec<PolicySnapshot> {
        self.inspector().policies(&format!("{PATH}{user}/")).await.expect("policies")
    }

    async fn policy(&self, user: &str, document: &str) -> PolicySnapshot {
        let arn = self.policy_arn(user, document);
        self.inspector().policy(&arn).await.expect("a read").expect("the policy")
    }

    async fn wait_for_policies(&self, user: &str, what: &str, holds: impl Fn(&[PolicySnapshot]) -> bool) {
        eventually(what, async || holds(&self.policies(user).await).then_some(()), || self.log()).await;
    }

    /// IAM calls since then, without those of the test.
    fn iam_calls(&self, since: LogPosition) -> Vec<CallRecord> {
        self.aws.log().calls_since(since).into_iter().filter(|call| call.service == "iam").collect()
    }
}

fn actions(calls: &[CallRecord], mutating: bool) -> Vec<&str> {
    calls.iter().filter(|call| call.mutating == mutating).map(|call| call.action.as_str()).collect()
}

pub(crate) async fn managed_document_costs_two_calls() {
    let env = TestEnv::with_arguments(&["--resync=1h", "--key-check=1h", "--secret-check=1h"]).await;
    let mut counts = Vec::new();
    for (user, documents) in [("a", vec![]), ("b", vec![managed("s3", &document("s3:*"))])] {
        let position = env.aws.log().position();
        env.apply(user, spec(user, &documents)).await;
        env.wait_ready(user).await;
        counts.push(env.iam_calls(position).len());
    }
    assert_eq!(counts[1], counts[0] + 2, "{}", env.aws.log().transcript());
    let policy = env.policy("b", "s3").await;
    assert_eq!((policy.document(), policy.attachment_count), (Some(&document("s3:*")), 1));
    let user = env.user("b").await;
    let (uid, status) = (user.metadata.uid.unwrap_or_default(), user.status.expect("a status"));
    assert_eq!(policy.tags["awsdeploy.dev/uid"], uid);
    let reported = json!([{"name": "s3", "as": "Managed", "arn": policy.arn, "id": policy.id,
        "defaultVersion": "v1", "versions": ["v1"]}]);
    assert_eq!(serde_json::to_value(status.policies).expect("JSON"), reported);
}

pub(crate) async fn quiet_managed_document_costs_no_call() {
    let mut env = TestEnv::with_arguments(&["--resync=3s", "--key-check=1h", "--secret-check=1h"]).await;
    env.apply("b", spec("b", &[managed("s3", &document("s3:*"))])).await;
    env.wait_ready("b").await;
    let bulk = |call: &CallRecord| call.lists_all_users();
    for _ in 0..2 {
        let position = env.aws.log().position();
        env.aws.log().wait_since(position, "a drift check", TIMEOUT, bulk).await.expect("the account is read");
        let others: Vec<CallRecord> = env.iam_calls(position).into_iter().filter(|call| !bulk(call)).collect();
        assert_eq!(others.len(), 0, "{others:#?}");
    }
    env.assert_restart_writes_nothing("b").await;
}

pub(crate) async fn document_of_6000_characters_becomes_ready() {
    let mut env = TestEnv::new().await;
    let large = document_of_size(6_000);
    assert!((6_000..6_144).contains(&awsdeploy::domain::policy::counted_characters(&large)));
    env.apply("x", spec("large", &[json!({"name": "deploy", "document": large})])).await;
    env.wait_ready("x").await;
    assert_eq!(env.policy("large", "deploy").await.document(), Some(&large));
    assert!(env.iam("large").await.attached.contains(&env.policy_arn("large", "deploy")));
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn edits_make_versions_and_keep_the_replaced_one() {
    let mut env = TestEnv::new().await;
    for number in 0..4 {
        env.apply("x", spec("v", &[managed("s3", &document(&format!("s3:Get{number}")))])).await;
        env.wait_ready("x").await;
        let policy = env.policy("v", "s3").await;
        assert_eq!(policy.document(), Some(&document(&format!("s3:Get{number}"))));
        assert_eq!(policy.versions.len(), 2.min(number + 1), "{policy:#?}");
    }
    // A version with the document of the replaced one exists: it becomes the default.
    env.apply("x", spec("v", &[managed("s3", &document("s3:Get2"))])).await;
    env.wait_ready("x").await;
    assert_eq!(env.policy("v", "s3").await.default_version, "v3");
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn versions_by_hand_are_corrected_and_kept() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    for action in ["s3:GetObject", "s3:PutObject"] {
        env.apply("x", spec("h", &[managed("s3", &document(action))])).await;
        env.wait_ready("x").await;
    }
    let (manual, arn) = (env.aws.manual_changes(), env.policy_arn("h", "s3"));
    manual.set_default_policy_version(&arn, "v1").await.expect("manually");
    let is_v2 = |policies: &[PolicySnapshot]| policies[0].default_version == "v2";
    env.wait_for_policies("h", "the declared version is the default again", is_v2).await;
    let allow_all = document("*").to_string();
    let by_hand = manual.create_policy_version(&arn, &allow_all).await.expect("manually");
    env.wait_for_policies("h", "corrected", is_v2).await;
    assert!(env.policy("h", "s3").await.versions.contains_key(&by_hand), "it is kept");
    let event = env.wait_for_event("x", Reason::UserChanged).await;
    assert!(event.contains(&arn), "{event}");
    let event = env.wait_for_event("x", Reason::PolicyWarning).await;
    assert!(event.contains(&format!("{by_hand} of {arn}")), "{event}");
    let is_reported = async || {
        let others = env.user("x").await.status.map(|status| status.policies[0].other_versions.clone());
        (others == Some(vec![by_hand.clone()])).then_some(())
    };
    eventually("the version is in the status", is_reported, || env.log()).await;
    // Five by hand: the operator can delete none of them, and says who can.
    let mut rounds = 0;
    while env.policy("h", "s3").await.versions.len() < 5 {
        manual.create_policy_version(&arn, &document(&format!("s3:Hand{rounds}")).to_string()).await.expect("manually");
        env.wait_for_policies("h", "corrected", is_v2).await;
        rounds += 1;
    }
    env.apply("x", spec("h", &[managed("s3", &document("s3:DeleteObject"))])).await;
    env.wait_ready("x").await;
    assert!(!env.policy("h", "s3").await.versions.contains_key("v1"), "the replaced version gave way");
    env.apply("x", spec("h", &[managed("s3", &document("s3:ListBucket"))])).await;
    env.wait_ready("x").await;
}

pub(crate) async fn five_versions_by_hand_are_named() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    env.apply("x", spec("f", &[managed("s3", &document("s3:Get0"))])).await;
    env.wait_ready("x").await;
    let (manual, arn) = (env.aws.manual_changes(), env.policy_arn("f", "s3"));
    for number in 0..4 {
        let version = manual.create_policy_version(&arn, &document(&format!("s3:Hand{number}")).to_string()).await;
        version.expect("manually");
        let is_v1 = |policies: &[PolicySnapshot]| policies[0].default_version == "v1";
        env.wait_for_policies("f", "corrected", is_v1).await;
    }
    env.apply("x", spec("f", &[managed("s3", &document("s3:Get1"))])).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::LimitExceeded)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains("v1, v2, v3, v4, v5") && text.contains(&arn), "{text}");
    let delete = Call::iam("DeletePolicyVersion").with("PolicyArn", &arn).with("VersionId", "v3");
    manual.call(&delete).await.expect("manually");
    env.wait_ready("x").await;
    assert_eq!(env.policy("f", "s3").await.document(), Some(&document("s3:Get1")));
}

pub(crate) async fn removed_document_leaves_nothing_in_aws() {
    let mut env = TestEnv::new().await;
    env.apply("x", spec("r", &[managed("a", &document("s3:*")), managed("b", &document("sqs:*"))])).await;
    env.wait_ready("x").await;
    let (manual, arn) = (env.aws.manual_changes(), env.policy_arn("r", "a"));
    let by_hand = manual.create_policy_version(&arn, &document("*").to_string()).await.expect("manually");
    manual.set_default_policy_version(&arn, "v1").await.expect("manually");
    assert_eq!(by_hand, "v2");
    env.apply("x", spec("r", &[managed("b", &document("sqs:*"))])).await;
    env.wait_ready("x").await;
    let left: Vec<String> = env.policies("r").await.into_iter().map(|policy| policy.name).collect();
    assert_eq!(left, ["r+b"]);
    assert_eq!(env.user("x").await.status.expect("a status").policies.len(), 1);
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn policy_that_others_have_is_never_taken_from_them() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    env.apply("x", spec("o", &[managed("a", &document("s3:*"))])).await;
    env.wait_ready("x").await;
    let (manual, arn) = (env.aws.manual_changes(), env.policy_arn("o", "a"));
    manual.create_user("person").await.expect("manually");
    manual.attach("person", &arn).await.expect("manually");
    env.apply("x", spec("o", &[])).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::PolicyInUse)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains(&arn) && text.contains("user person"), "{text}");
    env.wait_for_event("x", Reason::PolicyInUse).await;
    assert!(env.iam("person").await.attached.contains(&arn), "not detached there");
    assert!(!env.iam("o").await.attached.contains(&arn));
    // A deletion waits for it too, when the user is gone already.
    env.delete("x").await;
    eventually("the user is deleted", async || env.iam_opt("o").await.is_none().then_some(()), || env.log()).await;
    assert!(env.inspector().policy(&arn).await.expect("a read").is_some());
    manual.detach("person", &arn).await.expect("manually");
    env.wait_deleted("x").await;
    assert_eq!(env.policies("o").await, []);
}

pub(crate) async fn policy_of_another_owner_is_not_changed() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    let manual = env.aws.manual_changes();
    let arn = manual.create_policy_at(&format!("{PATH}n/"), "n+a", &document("*").to_string()).await.expect("manually");
    env.apply("x", spec("n", &[managed("a", &document("s3:*"))])).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    assert!(message(&user, ConditionType::UserSynced).contains(&arn));
    let before = env.policy("n", "a").await;
    assert_eq!((before.versions.len(), before.attachment_count, before.tags.len()), (1, 0, 0));
    assert!(env.secret_data("x").await.is_none(), "no first key without its rights");
    // At another path the name is taken as well.
    manual.create_policy_at("/elsewhere/", "m+a", &document("*").to_string()).await.expect("manually");
    env.apply("y", spec("m", &[managed("a", &document("s3:*"))])).await;
    let user = env.wait_for_condition("y", ConditionType::UserSynced, "False", Some(Reason::NotOwned)).await;
    assert!(message(&user, ConditionType::UserSynced).contains("at another path"));
    manual.delete_policy(&arn).await.expect("manually");
    env.wait_ready("x").await;
}

pub(crate) async fn document_changes_its_place_without_a_gap() {
    let env = TestEnv::new().await;
    let (small, large) = (document("s3:*"), document_of_size(3_000));
    let auto = |document: &Value| json!([{"name": "d", "document": document}]);
    let declare = |documents: Value| json!({"userName": "p", "policies": {"documents": documents}});
    let order = |position: LogPosition| {
        let calls = env.iam_calls(position);
        let is_policy = |action: &&str| action.contains("Policy");
        actions(&calls, true).into_iter().filter(is_policy).map(str::to_owned).collect::<Vec<_>>()
    };
    env.apply("x", declare(auto(&small))).await;
    env.wait_ready("x").await;
    assert!(env.iam("p").await.inline.contains_key("d"));
    let position = env.aws.log().position();
    env.apply("x", declare(auto(&large))).await;
    env.wait_ready("x").await;
    assert_eq!(order(position), ["CreatePolicy", "AttachUserPolicy", "DeleteUserPolicy"]);
    let position = env.aws.log().position();
    env.apply("x", declare(auto(&small))).await;
    env.wait_ready("x").await;
    assert_eq!(order(position), ["PutUserPolicy", "DetachUserPolicy", "DeletePolicy"]);
    assert_eq!(env.policies("p").await, []);
    assert_eq!(env.iam("p").await.inline["d"], small);
}

pub(crate) async fn lost_replies_make_no_second_policy_or_version() {
    let env = TestEnv::new().await;
    env.aws.rules().add(Rule::on("CreatePolicy").first(1).after_commit().drop_connection());
    env.apply("x", spec("l", &[managed("s3", &document("s3:Get0"))])).await;
    env.wait_ready("x").await;
    env.aws.rules().add(Rule::on("CreatePolicyVersion").first(1).after_commit().drop_connection());
    env.apply("x", spec("l", &[managed("s3", &document("s3:Get1"))])).await;
    env.wait_ready("x").await;
    let policy = env.policy("l", "s3").await;
    assert_eq!((policy.versions.len(), policy.default_version.as_str()), (2, "v2"), "{policy:#?}");
    assert_eq!(policy.document(), Some(&document("s3:Get1")));
    let status = env.user("x").await.status.expect("a status");
    assert_eq!(status.policies[0].versions, ["v1", "v2"]);
}

pub(crate) async fn deletion_and_retention_include_the_policies() {
    let env = TestEnv::new().await;
    for (name, policy) in [("d", "Delete"), ("k", "Retain")] {
        let mut declared = spec(name, &[managed("s3", &document("s3:*"))]);
        declared["deletionPolicy"] = json!(policy);
        env.apply(name, declared).await;
        env.wait_ready(name).await;
        env.delete(name).await;
        env.wait_deleted(name).await;
    }
    assert!(env.iam_opt("d").await.is_none());
    assert_eq!(env.policies("d").await, []);
    let (user, policy) = (env.iam("k").await, env.policy("k", "s3").await);
    assert!(user.attached.contains(&policy.arn));
    let ours =
        |tags: &std::collections::BTreeMap<String, String>| tags.keys().any(|key| key.starts_with("awsdeploy.dev/"));
    assert!(!ours(&policy.tags) && !ours(&user.tags), "{policy:#?}");
}

pub(crate) async fn policies_keep_their_path_in_another_class() {
    let env = TestEnv::new().await;
    let class = |path: &str| {
        json!({"namespaces": {"names": [env.namespace]}, "users": {"namePattern": ".*", "path": path},
            "policies": {"documents": "Allow"}, "acknowledgeAdminEquivalent": true})
    };
    let (below, above) =
        (env.apply_class("below", class("/awsdeploy/teams/")).await, env.apply_class("above", class(PATH)).await);
    let declare = |class: &str, action: &str| {
        let mut declared = spec("moved", &[managed("s3", &document(action))]);
        declared["className"] = json!(class);
        declared
    };
    env.apply("x", declare(&below, "s3:Get0")).await;
    env.wait_ready("x").await;
    env.apply("x", declare(&above, "s3:Get1")).await;
    env.wait_ready("x").await;
    let policies = env.inspector().policies(PATH).await.expect("policies");
    let [policy] = &policies[..] else { panic!("{policies:#?}") };
    assert!(policy.arn.ends_with(":policy/awsdeploy/teams/moved/moved+s3"), "{}", policy.arn);
    assert_eq!((policy.document(), policy.attachment_count), (Some(&document("s3:Get1")), 1));
    env.delete("x").await;
    env.wait_deleted("x").await;
    assert_eq!(env.inspector().policies(PATH).await.expect("policies"), []);
}

pub(crate) async fn document_renamed_in_case_only_is_replaced() {
    let mut env = TestEnv::new().await;
    for name in ["s3", "S3"] {
        env.apply("x", spec("c", &[managed(name, &document("s3:*"))])).await;
        env.wait_ready("x").await;
        let names: Vec<String> = env.policies("c").await.into_iter().map(|policy| policy.name).collect();
        assert_eq!(names, [format!("c+{name}")]);
    }
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn revoked_user_loses_its_policies_and_gets_them_back() {
    let env = TestEnv::with_arguments(&["--resync=2s"]).await;
    let class = |documents: &str| {
        json!({"namespaces": {"names": [env.namespace]}, "users": {"namePattern": ".*"}, "onRevoked": "Deactivate",
            "policies": {"documents": documents}, "acknowledgeAdminEquivalent": true})
    };
    let name = env.apply_class("documents", class("Allow")).await;
    let mut declared = spec("q", &[managed("s3", &document("s3:*"))]);
    declared["className"] = json!(name);
    env.apply("x", declared).await;
    env.wait_ready("x").await;
    env.try_apply_class_without_permissions("documents", class("Deny")).await.expect("applied");
    let is_bare = |user: &UserSnapshot| user.attached.is_empty();
    env.wait_for_iam("q", "its policies are detached", is_bare).await;
    let policy = env.policy("q", "s3").await;
    assert_eq!((policy.attachment_count, policy.versions.len()), (0, 1), "the policy is kept");
    env.apply_class("documents", class("Allow")).await;
    env.wait_ready("x").await;
    assert_eq!(env.policy("q", "s3").await.id, policy.id, "it is attached again");
}

/// What a process knows of a user is read from IAM after a restart, and nothing of it comes from the listing of the account.
const READ_EACH: [&str; 2] = ["--account-details=false", "--resync=1h"];

/// Another resource is created meanwhile, which takes many reconciles.
async fn reconcile_another(env: &TestEnv) {
    env.apply("another", json!({"userName": "another"})).await;
    env.wait_ready("another").await;
}

pub(crate) async fn unreadable_policies_stop_neither_rotation_nor_revocation() {
    let mut env = TestEnv::with_arguments(&READ_EACH).await;
    env.apply("x", spec("u", &[managed("s3", &document("s3:*"))])).await;
    env.wait_ready("x").await;
    let first = env.wait_published("x", "").await;
    env.aws.rules().add(Rule::on("ListPolicies").deny());
    env.operator.restart().await.expect("the operator restarts");
    env.annotate("x", awsdeploy::api::well_known::ANNOTATION_ROTATE, "now").await;
    let second = env.wait_published("x", &first).await;
    let user = env.wait_for_condition("x", ConditionType::UserSynced, "Unknown", Some(Reason::AccessDenied)).await;
    let text = message(&user, ConditionType::UserSynced);
    assert!(text.contains("ListPolicies"), "{text}");
    let mut revoked = spec("u", &[managed("s3", &document("s3:*"))]);
    revoked["credentials"] = json!("Revoked");
    env.apply("x", revoked).await;
    let are_inactive = |user: &UserSnapshot| user.key(&second).is_some() && user.active_keys().is_empty();
    env.wait_for_iam("u", "its keys are Inactive", are_inactive).await;
    assert_eq!(env.policy("u", "s3").await.attachment_count, 1, "the policy is not touched");
}

pub(crate) async fn unreadable_policies_are_not_forgotten_by_a_deletion() {
    let mut env = TestEnv::with_arguments(&READ_EACH).await;
    env.apply("x", spec("u", &[managed("s3", &document("s3:*"))])).await;
    env.wait_ready("x").await;
    env.aws.rules().add(Rule::on("ListPolicies").deny());
    env.delete("x").await;
    let is_bare = |user: &UserSnapshot| user.keys.is_empty() && user.attached.is_empty();
    env.wait_for_iam("u", "it has lost its access", is_bare).await;
    reconcile_another(&env).await;
    assert_eq!(env.policies("u").await.len(), 1);
    assert!(env.iam_opt("u").await.is_some(), "without the user, nothing leads to a policy that is not recorded");
    assert!(env.user("x").await.metadata.deletion_timestamp.is_some(), "the resource is kept");
    env.aws.rules().clear();
    env.operator.restart().await.expect("the operator restarts");
    env.wait_deleted("x").await;
    assert_eq!(env.policies("u").await, []);
}

/// The class does not allow what the resource asks for now, and what the user has it allows.
pub(crate) async fn outdated_list_of_policies_revokes_nothing() {
    let mut env = TestEnv::with_arguments(&READ_EACH).await;
    let class = json!({"namespaces": {"names": [env.namespace]}, "users": {"namePattern": ".*"},
        "onRevoked": "Deactivate", "policies": {"documents": "Allow"}, "acknowledgeAdminEquivalent": true});
    let class = env.apply_class("c", class).await;
    let mut declared = spec("u", &[managed("s3", &document("s3:*"))]);
    declared["className"] = json!(class);
    env.apply("x", declared.clone()).await;
    env.wait_ready("x").await;
    let without_policies = |_: &Call, response: &mut AwsResponse| {
        if let (Some(start), Some(end)) = (response.body.find("<Policies>"), response.body.find("</Policies>")) {
            response.body.replace_range(start + "<Policies>".len()..end, "");
        }
    };
    let rule = env.aws.rules().add(Rule::on("ListPolicies").after_commit().rewrite(without_policies));
    env.operator.restart().await.expect("the operator restarts");
    declared["groups"] = json!(["admins"]);
    env.apply("x", declared.clone()).await;
    env.wait_for_condition("x", ConditionType::Authorized, "False", Some(Reason::NotAllowed)).await;
    assert!(env.aws.rules().hits(rule).matched > 0, "{}", env.aws.log().transcript());
    reconcile_another(&env).await;
    let user = env.iam("u").await;
    assert_eq!((user.active_keys().len(), user.attached.len()), (1, 1), "{user:#?}");
    // Nor does a resource that is allowed make a second policy.
    declared.as_object_mut().expect("an object").remove("groups");
    env.apply("x", declared).await;
    env.wait_ready("x").await;
    assert_eq!(env.aws.log().calls_of("CreatePolicy").len(), 1, "{}", env.aws.log().transcript());
}
