//! What docs/operations.md promises about upgrades: an attempt at a key that another version has begun is brought to its end.
//!
//! The Secrets in `fixtures/2026-11-21` are what the operator of commit 5d0f185 wrote, the first that wrote journals of format 1.
//! It ran on this env, before this strict AWS, with the resource of `Cut::begun`. They were read while the answer of AWS to one of
//! its calls was held: `published` when the resource was Ready; `journal-intent` at `CreateAccessKey` of the rotation that the
//! annotation asked for; `journal-abandoned` and `published-fenced` at `DeleteAccessKey` of the operator that was started after
//! that one had been killed; `journal-keyed` at its first `GetCallerIdentity` with the next key. What the API server adds was left
//! out, the data decoded, and UIDs, keys, their checksum and times replaced by names with a `$`. Nothing else was changed.

use std::fmt::Write as _;

use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::{Call, CreatedKey, UserSnapshot};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt as _, api::PostParams};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::test_env::TestEnv;

const PUBLISHED: &str = include_str!("fixtures/2026-11-21/published.json");
const FENCED: &str = include_str!("fixtures/2026-11-21/published-fenced.json");
const INTENT: &str = include_str!("fixtures/2026-11-21/journal-intent.json");
const KEYED: &str = include_str!("fixtures/2026-11-21/journal-keyed.json");
const ABANDONED: &str = include_str!("fixtures/2026-11-21/journal-abandoned.json");

pub(crate) async fn staged_key_of_an_older_version_is_published() {
    let mut cut = Cut::begun(FENCED, KEYED).await;
    assert_eq!(cut.until_it_ends_well().await, cut.new.id, "the key in the journal is the next one");
    assert!(cut.env.aws.log().calls_of("CreateAccessKey").is_empty(), "no key is made for the upgrade");
    cut.env.assert_a_fresh_look_writes_nothing("x").await;
}

pub(crate) async fn orphan_of_an_older_version_is_deleted_and_replaced() {
    Cut::begun(PUBLISHED, INTENT).await.makes_another_key().await;
}

pub(crate) async fn abandoned_key_of_an_older_version_is_replaced() {
    Cut::begun(FENCED, ABANDONED).await.makes_another_key().await;
}

/// An attempt of an older operator that was cut off. One key is published, another one was made, and nobody works on it.
struct Cut {
    env: TestEnv,
    old: CreatedKey,
    new: CreatedKey,
}

impl Cut {
    /// The user as an operator of any version makes it, and the Secrets with these contents.
    async fn begun(published: &str, journal: &str) -> Self {
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
        let marks = [
            ("awsdeploy.dev/cluster", "it"),
            ("awsdeploy.dev/namespace", env.namespace.as_str()),
            ("awsdeploy.dev/name", "x"),
            ("awsdeploy.dev/uid", &uid),
        ];
        manual_changes.call(&create.with_tags(marks)).await.expect("a user");
        let old = manual_changes.create_key("upgraded").await.expect("a key");
        let (day, begun) = (SignedDuration::from_hours(24), Timestamp::now());
        let seconds = |time: Timestamp| time.strftime("%FT%TZ").to_string();
        let tag = format!("awsdeploy.dev/key/{}", old.id);
        manual_changes.tag("upgraded", &[(&tag, &seconds(begun - day))]).await.expect("a tag");
        let new = manual_changes.create_key("upgraded").await.expect("another key");
        let write = async |text: &str, fence: &str| {
            let text = text
                .replace("$UID", &uid)
                .replace("$OLD_ID", &old.id)
                .replace("$OLD_SECRET", &old.secret)
                .replace("$OLD_CHECKSUM", &checksum(&old))
                .replace("$NEW_ID", &new.id)
                .replace("$NEW_SECRET", &new.secret)
                .replace("$PUBLISHED_AT", &seconds(begun - day))
                .replace("$STARTED_AT", &seconds(begun))
                .replace("$KEYED_AT", &Timestamp::now().to_string())
                .replace("$FENCE", fence);
            assert!(!text.contains('$'), "{text}");
            let secret: Secret = serde_json::from_str(&text).expect("a Secret");
            env.secrets().create(&PostParams::default(), &secret).await.expect("a Secret")
        };
        let journal_uid = write(journal, "").await.uid().expect("a UID");
        // The one that gives an attempt up fences it off first. The fence of an earlier attempt stays, and says nothing.
        let fence = if journal == ABANDONED { &journal_uid } else { "734fd272-3743-4d51-a121-c1ae192e26ef" };
        write(published, fence).await;
        Self { env, old, new }
    }

    /// Starts the operator of today, which has to make another key and to leave none behind.
    async fn makes_another_key(mut self) {
        let key = self.until_it_ends_well().await;
        assert_ne!(key, self.new.id, "a key whose secret nobody has is not published");
        assert_eq!(self.env.aws.log().calls_of("CreateAccessKey").len(), 1);
    }

    /// Starts the operator of today and waits for the end of the rotation; the key that is published then, the only one.
    async fn until_it_ends_well(&mut self) -> String {
        self.env.operator.restart().await.expect("the operator of today");
        let key = self.env.until_published("keys", &self.old.id).await;
        let env = &self.env;
        env.ready("x").await;
        let alone = |user: &UserSnapshot| user.keys.len() == 1 && user.key(&key).is_some();
        env.until_iam("upgraded", "the new key is the only one", alone).await;
        env.until_condition("x", ConditionType::RotationHealthy, "True", Some(Reason::ManualOnly)).await;
        assert!(env.secret("x.awsdeploy-journal").await.is_none(), "the attempt is over");
        let secret = env.secret("keys").await.expect("the Secret");
        assert!(env.account.secret_matches(&key, &secret["AWS_SECRET_ACCESS_KEY"]));
        key
    }
}

/// As the annotation has it: SHA-256 over id and secret.
fn checksum(key: &CreatedKey) -> String {
    let digest = Sha256::digest(format!("{}\n{}", key.id, key.secret));
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
