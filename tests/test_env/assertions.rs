//! What is seen of a test environment, at once or as soon as it happens.

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

    /// Waits for a state of the resource, event by event.
    pub(crate) async fn until(
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

    /// Waits until the resource is Ready at its present generation.
    pub(crate) async fn ready(&self, name: &str) -> AwsDeployUser {
        self.until_condition(name, ConditionType::Ready, "True", None).await
    }

    /// Waits for a condition of the present generation.
    pub(crate) async fn until_condition(
        &self,
        name: &str,
        kind: ConditionType,
        status: &str,
        reason: Option<Reason>,
    ) -> AwsDeployUser {
        let what = format!("{kind}={status} {reason:?}");
        self.until(name, &what, |user| {
            condition(user, kind).is_some_and(|condition| {
                condition.status == status
                    && condition.observed_generation == user.metadata.generation
                    && reason.is_none_or(|reason| condition.reason == reason.as_str())
            })
        })
        .await
    }

    /// Waits for a call to AWS since a mark.
    pub(crate) async fn called(&self, since: LogPosition, action: &str) {
        let wanted = |call: &CallRecord| call.action == action;
        if let Err(error) = self.aws.log().wait_since(since, action, TIMEOUT, wanted).await {
            panic!("{error}\n{}", self.log());
        }
    }

    /// Waits until policies were compared after that: of one user, or of all of the account together.
    pub(crate) async fn looked(&self, since: LogPosition) {
        let looked = CallRecord::reads_policies;
        self.aws.log().wait_since(since, "a look at policies", TIMEOUT, looked).await.expect("the operator compares");
    }

    /// Waits until the resource is gone.
    pub(crate) async fn gone(&self, name: &str) {
        let gone = await_condition(self.users(), name, |user: Option<&AwsDeployUser>| user.is_none());
        if tokio::time::timeout(TIMEOUT, gone).await.is_err() {
            let user = self.users().get_opt(name).await;
            panic!("{name} is still there: {user:#?}\n{}\n{}", self.aws.log().transcript(), self.log());
        }
    }

    /// The data of a Secret as text.
    pub(crate) async fn secret(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let secret = self.secrets().get_opt(name).await.expect("Secrets can be read")?;
        Some(
            secret
                .data
                .into_iter()
                .flatten()
                .map(|(name, value)| (name, String::from_utf8(value.0).expect("text")))
                .collect(),
        )
    }

    /// The key that is published in a Secret.
    pub(crate) async fn published(&self, secret: &str) -> String {
        self.secret(secret).await.expect("the Secret is there")["AWS_ACCESS_KEY_ID"].clone()
    }

    /// When the key in a Secret was published, as the operator has written it down.
    pub(crate) async fn published_at(&self, secret: &str) -> Timestamp {
        let secret = self.secrets().get(secret).await.expect("the Secret is there");
        let told = secret.annotations().get(well_known::ANNOTATION_PUBLISHED_AT).expect("a time of publication");
        told.parse().expect("a timestamp")
    }

    /// When AWS was first asked for this about a key: what a test sees of it, it sees later.
    pub(crate) fn first_asked(&self, action: &str, key: &str) -> Timestamp {
        let about = |call: &CallRecord| call.action == action && call.access_key.as_deref() == Some(key);
        let calls = self.aws.log().select(about);
        calls.first().unwrap_or_else(|| panic!("{action} of {key}: {}", self.aws.log().transcript())).started
    }

    /// Waits until a Secret holds another key than this one.
    pub(crate) async fn until_published(&self, secret: &str, other_than: &str) -> String {
        let wanted = |secret: Option<&Secret>| {
            let data = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get("AWS_ACCESS_KEY_ID"));
            data.is_some_and(|id| id.0 != other_than.as_bytes())
        };
        match tokio::time::timeout(TIMEOUT, await_condition(self.secrets(), secret, wanted)).await {
            Ok(Ok(_)) => self.published(secret).await,
            other => panic!(
                "no other key than {other_than}: {:?}\n{}\n{}",
                other.is_ok(),
                self.aws.log().transcript(),
                self.log()
            ),
        }
    }

    /// The truth about an IAM user.
    pub(crate) async fn iam(&self, user: &str) -> UserSnapshot {
        self.iam_opt(user).await.expect("the IAM user is there")
    }

    pub(crate) async fn iam_opt(&self, user: &str) -> Option<UserSnapshot> {
        self.inspector().user(user).await.expect("the truth can be read")
    }

    pub(crate) fn inspector(&self) -> Inspector {
        self.aws.inspector()
    }

    /// Waits for a truth about an IAM user. AWS tells nobody of changes, so this asks.
    pub(crate) async fn until_iam(
        &self,
        user: &str,
        what: &str,
        wanted: impl Fn(&UserSnapshot) -> bool,
    ) -> UserSnapshot {
        let probe = async || {
            let truth = self.iam_opt(user).await?;
            wanted(&truth).then_some(truth)
        };
        eventually(what, probe, || format!("{}\n{}", self.aws.log().transcript(), self.log())).await
    }

    /// Reasons and notes of the resource's Events.
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

    /// Waits for an Event and gives its note.
    pub(crate) async fn event(&self, name: &str, reason: Reason) -> String {
        let probe = async || {
            let events = self.events(name).await;
            events.into_iter().find(|(found, _)| found == reason.as_str()).map(|(_, note)| note)
        };
        eventually(&format!("an Event {reason}"), probe, || self.log()).await
    }

    /// The operator's log.
    pub(crate) fn log(&self) -> String {
        self.operator.log()
    }

    /// All that a collector of traces was sent.
    #[allow(dead_code, reason = "for the fault runs, which share the stage")]
    pub(crate) fn traces(&self) -> String {
        self.collector.as_ref().map(|collector| collector.text()).unwrap_or_default()
    }

    /// How often the metrics count something: the value of the line that begins with `line`.
    pub(crate) async fn count(&self, line: &str) -> u64 {
        let metrics = self.operator.metrics().await.expect("metrics");
        let value = metrics.lines().find_map(|text| text.strip_prefix(line)).map_or("0", str::trim);
        value.parse().unwrap_or_else(|_| panic!("{line}: {value:?} is no number"))
    }

    /// Restarts the operator and waits until it has looked at everything anew. Afterwards nothing that was fine may
    /// have been written, neither in AWS nor in Kubernetes.
    pub(crate) async fn assert_a_fresh_look_writes_nothing(&mut self, name: &str) {
        let (mark, before) = (self.aws.log().position(), self.fingerprints(name).await);
        self.operator.restart().await.expect("the operator restarts");
        self.looked(mark).await;
        let probe = async || (self.count(r#"awsdeploy_reconciles_total{result="ok"}"#).await >= 1).then_some(());
        eventually("a good pass", probe, || self.log()).await;
        let writes = self.aws.log().mutating_calls_since(mark);
        assert!(writes.is_empty(), "a look at what is fine wrote to AWS: {writes:#?}");
        assert_eq!(self.fingerprints(name).await, before, "a look at what is fine wrote to Kubernetes");
    }

    async fn fingerprints(&self, name: &str) -> Vec<(String, Option<String>)> {
        let mut seen = vec![(name.to_owned(), self.user(name).await.resource_version())];
        let secrets = self.secrets().list(&ListParams::default()).await.expect("Secrets can be listed");
        seen.extend(secrets.items.iter().map(|secret| (secret.name_any(), secret.resource_version())));
        seen.push(("Events".to_owned(), Some(self.events(name).await.len().to_string())));
        seen
    }
}

/// The condition of a resource.
pub(crate) fn condition(user: &AwsDeployUser, kind: ConditionType) -> Option<&awsdeploy::api::Condition> {
    user.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// The message of a condition.
pub(crate) fn message(user: &AwsDeployUser, kind: ConditionType) -> String {
    condition(user, kind).map(|condition| condition.message.clone()).unwrap_or_default()
}

/// Asks until there is an answer, for things that tell nobody when they change.
pub(crate) async fn eventually<T: Debug>(
    what: &str,
    probe: impl AsyncFn() -> Option<T>,
    context: impl Fn() -> String,
) -> T {
    let asked = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(elapsed) => panic!("{what}: {elapsed}, not after {TIMEOUT:?}\n{}", context()),
    }
}
