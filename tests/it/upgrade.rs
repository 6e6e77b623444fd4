//! Upgrades: a rotation attempt that an earlier version started is completed.
//!
//! The operator of commit 5d0f185, the first with journal format 1, wrote the Secrets in `fixtures/2026-11-21`.
//! It ran in this test environment with the resource of `InterruptedAttempt::start`. They were read while one call was
//! paused: `published` when the resource was Ready; `journal-intent` at `CreateAccessKey` of the rotation that the
//! annotation requested; `journal-abandoned` and `published-fenced` at `DeleteAccessKey` of the operator that was
//! started after the first one was killed; `journal-keyed` at its first `GetCallerIdentity` with the next key. Fields
//! that the API server adds are omitted, the data is decoded, and UIDs, keys and times are replaced by names
//! with a `$`. The journals are named and annotated, and the published Secrets signed, as of today: nothing was released before.

use std::fmt::Write as _;

use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::{Call, CreatedKey, UserSnapshot};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::PostParams};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::test_env::{TestEnv, eventually};

const PUBLISHED: &str = include_str!("fixtures/2026-11-21/published.json");
const FENCED: &str = include_str!("fixtures/2026-11-21/published-fenced.json");
const INTENT: &str = include_str!("fixtures/2026-11-21/journal-intent.json");
const KEYED: &str = include_str!("fixtures/2026-11-21/journal-keyed.json");
const ABANDONED: &str = include_str!("fixtures/2026-11-21/journal-abandoned.json");

pub(crate) async fn staged_key_of_an_older_version_is_published() {
    let mut attempt = InterruptedAttempt::start(FENCED, KEYED).await;
    assert_eq!(attempt.complete().await, attempt.new.id, "the staged key is published");
    assert!(attempt.env.aws.log().calls_of("CreateAccessKey").is_empty(), "no key is created for the upgrade");
    attempt.env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn orphan_of_an_older_version_is_deleted_and_replaced() {
    InterruptedAttempt::start(PUBLISHED, INTENT).await.assert_replaced().await;
}

pub(crate) async fn abandoned_key_of_an_older_version_is_replaced() {
    InterruptedAttempt::start(FENCED, ABANDONED).await.assert_replaced().await;
}

/// An interrupted attempt of an earlier version: one key is published, another one was created, no operator runs.
struct InterruptedAttempt {
    env: TestEnv,
    old: CreatedKey,
    new: CreatedKey,
}

impl InterruptedAttempt {
    /// Creates the user as every version does, and Secrets with these contents.
    async fn start(published: &str, journal: &str) -> Self {
        let env = TestEnv::with_arguments(&["--cluster-id=it"]).await;
        env.operator.kill().await;
        let user = env
            .apply(
                "x",
                json!({
                    "userName": "upgraded",
                    "accessKey": {"rotation": {"every": "Never", "overlap": "2s"}, "secret": {"name": "keys"}},
                }),
            )
            .await;
        env.annotate("x", well_known::ANNOTATION_ROTATE, "please").await;
        let (uid, manual_changes) = (user.uid().expect("a UID"), env.aws.manual_changes());
        let create = Call::iam("CreateUser").with("UserName", "upgraded").with("Path", "/awsdeploy/");
        let ownership_tags = [
            ("awsdeploy.dev/cluster", "it"),
            ("awsdeploy.dev/namespace", env.namespace.as_str()),
            ("awsdeploy.dev/name", "x"),
            ("awsdeploy.dev/uid", &uid),
        ];
        manual_changes.call(&create.with_tags(ownership_tags)).await.expect("a user");
        let old = manual_changes.create_key("upgraded").await.expect("a key");
        let (day, started_at) = (SignedDuration::from_hours(24), Timestamp::now());
        let seconds = |time: Timestamp| time.strftime("%FT%TZ").to_string();
        let tag = format!("awsdeploy.dev/key/{}", old.id);
        manual_changes.tag("upgraded", &[(&tag, &seconds(started_at - day))]).await.expect("a tag");
        let new = manual_changes.create_key("upgraded").await.expect("another key");
        let mac_key = mac_key(&env).await;
        let published_at = seconds(started_at - day);
        let write = async |secrets: Api<Secret>, text: &str, fence: &str| {
            let signed_fence = text.contains("$FENCE").then_some(fence);
            let text = text
                .replace("$UID", &uid)
                .replace("$NAMESPACE", &env.namespace)
                .replace("$OLD_ID", &old.id)
                .replace("$OLD_SECRET", &old.secret)
                .replace("$OLD_MAC", &mac(&mac_key, &uid, &old, &published_at, signed_fence))
                .replace("$NEW_ID", &new.id)
                .replace("$NEW_SECRET", &new.secret)
                .replace("$PUBLISHED_AT", &published_at)
                .replace("$STARTED_AT", &seconds(started_at))
                .replace("$KEYED_AT", &Timestamp::now().to_string())
                .replace("$FENCE", fence);
            assert!(!text.contains('$'), "{text}");
            let secret: Secret = serde_json::from_str(&text).expect("a Secret");
            secrets.create(&PostParams::default(), &secret).await.expect("a Secret")
        };
        let journal_uid = write(env.operator_secrets(), journal, "").await.uid().expect("a UID");
        // An abandoned attempt is fenced first. The fence of an earlier attempt is kept and has no effect.
        let fence = if journal == ABANDONED { &journal_uid } else { "734fd272-3743-4d51-a121-c1ae192e26ef" };
        write(env.secrets(), published, fence).await;
        Self { env, old, new }
    }

    /// Starts the current operator, which must create another key and leave no orphan.
    async fn assert_replaced(mut self) {
        let key = self.complete().await;
        assert_ne!(key, self.new.id, "a key with a lost secret is not published");
        assert_eq!(self.env.aws.log().calls_of("CreateAccessKey").len(), 1);
    }

    /// Starts the current operator and waits for the end of the rotation. Returns the published key, the only one.
    async fn complete(&mut self) -> String {
        self.env.operator.restart().await.expect("the current operator starts");
        let key = self.env.wait_published("keys", &self.old.id).await;
        let env = &self.env;
        env.wait_ready("x").await;
        let only_key = |user: &UserSnapshot| user.keys.len() == 1 && user.key(&key).is_some();
        env.wait_for_iam("upgraded", "the new key is the only one", only_key).await;
        env.wait_for_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
        assert!(env.journal("x").await.is_none(), "the attempt is closed");
        let secret = env.secret_data("keys").await.expect("the Secret");
        assert!(env.account.secret_matches(&key, &secret["AWS_SECRET_ACCESS_KEY"]));
        key
    }
}

/// The key with which the operator of the test has signed.
async fn mac_key(env: &TestEnv) -> Vec<u8> {
    let read = async || env.operator_secrets().get(well_known::INTEGRITY_KEY_SECRET).await.ok()?.data;
    eventually("the MAC key", read, || env.log()).await["current"].0.clone()
}

/// The annotation as of version 1 of the MAC, written down here once more: each field with its length, an absent one as a zero.
fn mac(mac_key: &[u8], uid: &str, key: &CreatedKey, published_at: &str, fence: Option<&str>) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(mac_key).expect("a key of any length");
    let annotations = [Some(key.id.as_str()), Some(published_at), None, fence, None];
    for field in [Some("v1"), Some(uid), Some(&key.id), Some(&key.secret)].into_iter().chain(annotations) {
        mac.update(&[u8::from(field.is_some())]);
        if let Some(field) = field {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field.as_bytes());
        }
    }
    format!("v1:{}:{}", hex(&Sha256::digest(mac_key)[..4]), hex(&mac.finalize().into_bytes()))
}
