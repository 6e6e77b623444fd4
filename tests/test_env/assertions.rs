//! Reads of the state of a test, and waits for it.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use awsdeploy::api::{AwsDeployUser, ConditionType, Reason, well_known};
use awsdeploy_testkit::aws_proxy::{CallRecord, Inspector, LogPosition, UserSnapshot};
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{Api, ResourceExt, api::ListParams, runtime::wait::await_condition};

use super::{TIMEOUT, TestEnv};

impl TestEnv {
    pub(crate) async fn user(&self, name: &str) -> AwsDeployUser {
        self.users().get(name).await.expect("the resource is there")
    }

    /// Watches the resource until it matches.
    pub(crate) async fn wait_until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&AwsDeployUser) -> bool + Send + Sync,
    ) -> AwsDeployUser {
        let condition = |user: Option<&AwsDeployUser>| user.is_some_and(&wanted);
        match tokio::time::timeout(TIMEOUT, await_condition(self.users(), name, condition)).await {
            Ok(Ok(Some(user))) => user,
            Ok(other) => panic!("waiting for {name} to be {what}: {other:?}"),
            Err(_) => {
                let user = self.users().get_opt(name).await;
                panic!(
                    "{name} is not {what} after {TIMEOUT:?}: {user:#?}\n{}\n{}",
                    self.aws.log().transcript(),
                    self.log()
                )
            }
        }
    }

    /// Waits until the resource is Ready at its current generation.
    pub(crate) async fn wait_ready(&self, name: &str) -> AwsDeployUser {
        self.wait_for_condition(name, ConditionType::Ready, "True", None).await
    }

    /// Waits for a condition of the current generation.
    pub(crate) async fn wait_for_condition(
        &self,
        name: &str,
        kind: ConditionType,
        status: &str,
        reason: Option<Reason>,
    ) -> AwsDeployUser {
        let what = format!("{kind}={status} {reason:?}");
        self.wait_until(name, &what, |user| {
            condition(user, kind).is_some_and(|condition| {
                condition.status == status
                    && condition.observed_generation == user.metadata.generation
                    && reason.is_none_or(|reason| condition.reason == reason.as_str())
            })
        })
        .await
    }

    /// Waits for a call to AWS after the position.
    pub(crate) async fn wait_for_call(&self, since: LogPosition, action: &str) {
        let wanted = |call: &CallRecord| call.action == action;
        if let Err(error) = self.aws.log().wait_since(since, action, TIMEOUT, wanted).await {
            panic!("{error}\n{}", self.log());
        }
    }

    /// Waits for a drift check after the position: of one user, or of all users of the account.
    pub(crate) async fn wait_for_drift_check(&self, since: LogPosition) {
        let is_drift_check = CallRecord::reads_policies;
        self.aws
            .log()
            .wait_since(since, "a drift check", TIMEOUT, is_drift_check)
            .await
            .expect("the operator checks for drift");
    }

    pub(crate) async fn wait_deleted(&self, name: &str) {
        let deleted = await_condition(self.users(), name, |user: Option<&AwsDeployUser>| user.is_none());
        if tokio::time::timeout(TIMEOUT, deleted).await.is_err() {
            let user = self.users().get_opt(name).await;
            panic!("{name} is still there: {user:#?}\n{}\n{}", self.aws.log().transcript(), self.log());
        }
    }

    pub(crate) async fn secret_data(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.secrets().get_opt(name).await.expect("Secrets can be read").map(text_data)
    }

    /// The journal of a rotation attempt of the resource, if there is one.
    pub(crate) async fn journal(&self, name: &str) -> Option<BTreeMap<String, String>> {
        self.journal_secret(name).await.map(text_data)
    }

    /// The Secret of that journal.
    pub(crate) async fn journal_secret(&self, name: &str) -> Option<Secret> {
        let journals = ListParams::default().labels("awsdeploy.dev/role=journal");
        let listed = self.operator_secrets().list(&journals).await.expect("Secrets can be listed");
        listed.items.into_iter().find(|secret| {
            let of = |key: &str| secret.annotations().get(key).map(String::as_str);
            of(well_known::ANNOTATION_RESOURCE_NAMESPACE) == Some(&self.namespace)
                && of(well_known::ANNOTATION_RESOURCE_NAME) == Some(name)
        })
    }

    pub(crate) async fn wait_journal_deleted(&self, name: &str) {
        let deleted = async || self.journal(name).await.is_none().then_some(());
        eventually("the journal is deleted", deleted, || self.log()).await;
    }

    /// The id of the key in a Secret.
    pub(crate) async fn published_key(&self, secret: &str) -> String {
        self.secret_data(secret).await.expect("the Secret is there")["AWS_ACCESS_KEY_ID"].clone()
    }

    /// The publication time in the annotation of the Secret.
    pub(crate) async fn publication_time(&self, secret: &str) -> Timestamp {
        let secret = self.secrets().get(secret).await.expect("the Secret is there");
        let text = secret.annotations().get(well_known::ANNOTATION_PUBLISHED_AT).expect("a time of publication");
        text.parse().expect("a timestamp")
    }

    /// When AWS received the first such call about a key; polling would observe the effect later.
    pub(crate) fn first_call_time(&self, action: &str, key: &str) -> Timestamp {
        let about = |call: &CallRecord| call.action == action && call.access_key.as_deref() == Some(key);
        let calls = self.aws.log().select(about);
        calls.first().unwrap_or_else(|| panic!("{action} of {key}: {}", self.aws.log().transcript())).started
    }

    /// Waits until a Secret holds another key. Returns its id.
    pub(crate) async fn wait_published(&self, secret: &str, other_than: &str) -> String {
        let wanted = |secret: Option<&Secret>| {
            let data = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get("AWS_ACCESS_KEY_ID"));
            data.is_some_and(|id| id.0 != other_than.as_bytes())
        };
        match tokio::time::timeout(TIMEOUT, await_condition(self.secrets(), secret, wanted)).await {
            Ok(Ok(_)) => self.published_key(secret).await,
            other => panic!(
                "no other key than {other_than}: {:?}\n{}\n{}",
                other.is_ok(),
                self.aws.log().transcript(),
                self.log()
            ),
        }
    }

    /// A consistent snapshot of an IAM user.
    pub(crate) async fn iam(&self, user: &str) -> UserSnapshot {
        self.iam_opt(user).await.expect("the IAM user is there")
    }

    pub(crate) async fn iam_opt(&self, user: &str) -> Option<UserSnapshot> {
        self.inspector().user(user).await.expect("the account can be read")
    }

    pub(crate) fn inspector(&self) -> Inspector {
        self.aws.inspector()
    }

    /// Polls an IAM user until it matches, as AWS has no watch.
    pub(crate) async fn wait_for_iam(
        &self,
        user: &str,
        what: &str,
        wanted: impl Fn(&UserSnapshot) -> bool,
    ) -> UserSnapshot {
        let probe = async || {
            let snapshot = self.iam_opt(user).await?;
            wanted(&snapshot).then_some(snapshot)
        };
        eventually(what, probe, || format!("{}\n{}", self.aws.log().transcript(), self.log())).await
    }

    /// Reason and note of each Event of the resource.
    pub(crate) async fn events(&self, name: &str) -> Vec<(String, String)> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = events.list(&ListParams::default()).await.expect("Events can be listed");
        events
            .items
            .into_iter()
            .filter(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name))
            .map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect()
    }

    /// Waits for an Event. Returns its note.
    pub(crate) async fn wait_for_event(&self, name: &str, reason: Reason) -> String {
        let probe = async || {
            let events = self.events(name).await;
            events.into_iter().find(|(found, _)| found == reason.as_str()).map(|(_, note)| note)
        };
        eventually(&format!("an Event {reason}"), probe, || self.log()).await
    }

    pub(crate) fn log(&self) -> String {
        self.operator.log()
    }

    /// All traces that the collector received, as text.
    #[allow(dead_code, reason = "used by the fault tests only")]
    pub(crate) fn traces(&self) -> String {
        self.collector.as_ref().map(|collector| collector.text()).unwrap_or_default()
    }

    /// The value of the counter whose line starts with `line`; 0 if absent.
    pub(crate) async fn metric_count(&self, line: &str) -> u64 {
        let metrics = self.operator.metrics().await.expect("metrics");
        let value = metrics.lines().find_map(|text| text.strip_prefix(line)).map_or("0", str::trim);
        value.parse().unwrap_or_else(|_| panic!("{line}: {value:?} is no number"))
    }

    /// Restarts the operator, waits for a successful reconcile, and asserts that it wrote nothing.
    pub(crate) async fn assert_restart_writes_nothing(&mut self, name: &str) {
        let (position, before) = (self.aws.log().position(), self.fingerprints(name).await);
        self.operator.restart().await.expect("the operator restarts");
        self.wait_for_drift_check(position).await;
        let probe = async || (self.metric_count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 1).then_some(());
        eventually("a successful reconcile", probe, || self.log()).await;
        let writes = self.aws.log().mutating_calls_since(position);
        assert!(writes.is_empty(), "the restarted operator wrote to AWS: {writes:#?}");
        assert_eq!(self.fingerprints(name).await, before, "the restarted operator wrote to Kubernetes");
    }

    async fn fingerprints(&self, name: &str) -> Vec<(String, Option<String>)> {
        let mut versions = vec![(name.to_owned(), self.user(name).await.resource_version())];
        let secrets = self.secrets().list(&ListParams::default()).await.expect("Secrets can be listed");
        versions.extend(secrets.items.iter().map(|secret| (secret.name_any(), secret.resource_version())));
        versions.push(("Events".to_owned(), Some(self.events(name).await.len().to_string())));
        versions
    }
}

pub(crate) fn condition(user: &AwsDeployUser, kind: ConditionType) -> Option<&awsdeploy::api::Condition> {
    user.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// The message of a condition; empty if there is none.
pub(crate) fn message(user: &AwsDeployUser, kind: ConditionType) -> String {
    condition(user, kind).map(|condition| condition.message.clone()).unwrap_or_default()
}

/// Polls until `probe` returns a value, for state that cannot be watched.
pub(crate) async fn eventually<T: Debug>(
    what: &str,
    probe: impl AsyncFn() -> Option<T>,
    context: impl Fn() -> String,
) -> T {
    let polled = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(TIMEOUT, polled).await {
        Ok(answer) => answer,
        Err(elapsed) => panic!("{what}: {elapsed}, not after {TIMEOUT:?}\n{}", context()),
    }
}

fn text_data(secret: Secret) -> BTreeMap<String, String> {
    let data = secret.data.into_iter().flatten();
    data.map(|(name, value)| (name, String::from_utf8(value.0).expect("text"))).collect()
}
