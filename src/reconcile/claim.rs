//! Which operator serves a resource. Two installations could share no lock: each has its journals in its own namespace.
//!
//! A claim guards what is created and changed. Taking credentials away and deleting removes the same things, whichever operator
//! does it, and must not wait for an operator that may not exist.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use kube::{Resource as _, runtime::controller::Action};
use parking_lot::Mutex;

use super::{Context, priority::RevocationCauses};
use crate::{
    api::{AwsDeployUser, Reason, user::DeletionPolicy},
    cluster::PendingEvent,
    domain::plan::Note,
};

/// The shortest time between two reports about a resource.
const REPORT_INTERVAL: Duration = Duration::from_hours(1);

/// When each resource that another operator serves was reported, by UID and reason.
#[derive(Default)]
pub(super) struct ClaimReports(Mutex<HashMap<(String, Reason), Instant>>);

impl ClaimReports {
    /// Whether a report is due; it counts as made.
    fn start(&self, uid: &str, reason: Reason, now: Instant) -> bool {
        let mut reports = self.0.lock();
        let report = (uid.to_owned(), reason);
        let is_due = reports.get(&report).is_none_or(|last| now.saturating_duration_since(*last) >= REPORT_INTERVAL);
        if is_due {
            reports.insert(report, now);
        }
        is_due
    }

    /// Drops the reports about all other resources.
    pub(super) fn keep(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|(uid, _), _| uids.contains(uid));
    }
}

/// Namespace of the operator that serves the resource, unless it is this one or none.
pub(super) fn other_operator<'a>(user: &'a AwsDeployUser, namespace: &str) -> Option<&'a str> {
    user.status.as_ref()?.operator_namespace.as_deref().filter(|other| *other != namespace)
}

/// Whether an operator that does not serve the resource acts on it: it is to lose its credentials, or to be deleted. A retained
/// user keeps its keys, and the journal of the other operator may know one that is to be deleted first.
pub(super) fn takes_away(user: &AwsDeployUser, causes: RevocationCauses) -> bool {
    let retains = user.spec.deletion_policy == DeletionPolicy::Retain;
    (if retains { causes.without_deletion() } else { causes }).any()
}

/// Reports that another operator serves the resource. Nothing else is read or written. A change of the resource or of its class
/// reconciles it again.
pub(super) async fn skip(user: &AwsDeployUser, other: &str, context: &Context) -> Action {
    context.observer.reconciled(Reason::ServedElsewhere.as_str(), Duration::ZERO);
    report(user, other, None, context).await;
    Action::await_change()
}

/// Logs and publishes an Event that another operator serves the resource, or why its credentials are not taken away: the
/// conditions are those of the other operator.
pub(super) async fn report(user: &AwsDeployUser, other: &str, obstacle: Option<&Note>, context: &Context) {
    let uid = user.meta().uid.as_deref().unwrap_or_default();
    // A reason of its own: the API server keeps the first note of a reason only.
    let reason = obstacle.map_or(Reason::ServedElsewhere, |note| note.reason);
    if !context.claim_reports.start(uid, reason, Instant::now()) {
        return;
    }
    let obstacle = obstacle.map(|note| note.message.as_str());
    tracing::warn!(
        operator_namespace = other,
        obstacle,
        "AwsDeployUser is served by the operator of another namespace"
    );
    let obstacle = obstacle.map(|message| format!("{message}. In addition: ")).unwrap_or_default();
    let note = format!("{obstacle}{}", description(other, &context.namespace));
    context.events.publish(user, &PendingEvent { reason, note, warning: true }).await;
}

/// Says who serves a resource, and what the operator of this namespace does about it.
pub(super) fn description(other: &str, namespace: &str) -> String {
    format!(
        "the operator in namespace {namespace} creates and changes nothing, it only takes credentials away and deletes: the operator in namespace {other} serves this resource (status.operatorNamespace). A cluster admin has to stop one of the two, or release the resource"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AwsDeployUserStatus, Time, user::Credentials};

    #[test]
    fn only_the_claim_of_another_namespace_excludes_this_operator() {
        let mut user = AwsDeployUser::default();
        assert_eq!(other_operator(&user, "here"), None, "no status");
        for (claimed, expected) in [(None, None), (Some("here"), None), (Some("there"), Some("there"))] {
            let operator_namespace = claimed.map(str::to_owned);
            user.status = Some(AwsDeployUserStatus { operator_namespace, ..AwsDeployUserStatus::default() });
            assert_eq!(other_operator(&user, "here"), expected);
        }
    }

    #[test]
    fn foreign_claim_stops_no_loss_of_access() {
        let user = |credentials: Credentials, policy: DeletionPolicy, is_deleted: bool| {
            let mut user = AwsDeployUser::default();
            (user.spec.credentials, user.spec.deletion_policy) = (credentials, policy);
            user.metadata.deletion_timestamp = is_deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH));
            user
        };
        for (credentials, policy, is_deleted, expected) in [
            (Credentials::Active, DeletionPolicy::Delete, false, false),
            (Credentials::Revoked, DeletionPolicy::Delete, false, true),
            (Credentials::Active, DeletionPolicy::Delete, true, true),
            (Credentials::Active, DeletionPolicy::Force, true, true),
            (Credentials::Active, DeletionPolicy::Retain, true, false),
            (Credentials::Revoked, DeletionPolicy::Retain, true, true),
        ] {
            let user = user(credentials, policy, is_deleted);
            assert_eq!(
                takes_away(&user, RevocationCauses::of_resource(&user)),
                expected,
                "{credentials:?} {policy:?} {is_deleted}"
            );
        }
    }

    #[test]
    fn foreign_claim_is_reported_once_an_hour_for_each_resource() {
        let (reports, start) = (ClaimReports::default(), Instant::now());
        assert!(reports.start("u1", Reason::ServedElsewhere, start));
        assert!(!reports.start("u1", Reason::ServedElsewhere, start + Duration::from_mins(59)));
        assert!(reports.start("u1", Reason::ForeignKeys, start), "what it waits for is another report");
        assert!(!reports.start("u1", Reason::ForeignKeys, start));
        assert!(reports.start("u2", Reason::ServedElsewhere, start));
        assert!(reports.start("u1", Reason::ServedElsewhere, start + REPORT_INTERVAL));
        reports.keep(&HashSet::from(["u2".to_owned()]));
        assert!(reports.start("u1", Reason::ServedElsewhere, start + REPORT_INTERVAL), "dropped with the resource");
    }
}
