//! Which operator serves a resource. Two installations could share no lock: each has its journals in its own namespace.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use kube::{Resource as _, runtime::controller::Action};
use parking_lot::Mutex;

use super::Context;
use crate::{
    api::{AwsDeployUser, Reason},
    cluster::PendingEvent,
};

/// The shortest time between two reports about a resource.
const REPORT_INTERVAL: Duration = Duration::from_hours(1);

/// When each resource that another operator serves was reported, by UID.
#[derive(Default)]
pub(super) struct ClaimReports(Mutex<HashMap<String, Instant>>);

impl ClaimReports {
    /// Whether a report is due; it counts as made.
    fn start(&self, uid: &str, now: Instant) -> bool {
        let mut reports = self.0.lock();
        let is_due = reports.get(uid).is_none_or(|last| now.saturating_duration_since(*last) >= REPORT_INTERVAL);
        if is_due {
            reports.insert(uid.to_owned(), now);
        }
        is_due
    }

    /// Drops the reports about all other resources.
    pub(super) fn keep(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }
}

/// Namespace of the operator that serves the resource, unless it is this one or none.
pub(super) fn other_operator<'a>(user: &'a AwsDeployUser, namespace: &str) -> Option<&'a str> {
    user.status.as_ref()?.operator_namespace.as_deref().filter(|other| *other != namespace)
}

/// Logs and publishes an Event that another operator serves the resource. Nothing else is read or written. A change of the
/// status reconciles the resource again.
pub(super) async fn report(user: &AwsDeployUser, other: &str, context: &Context) -> Action {
    let reason = Reason::ServedElsewhere;
    context.observer.reconciled(reason.as_str(), Duration::ZERO);
    let uid = user.meta().uid.as_deref().unwrap_or_default();
    if context.claim_reports.start(uid, Instant::now()) {
        tracing::warn!(
            operator_namespace = other,
            "skipped AwsDeployUser that the operator of another namespace serves"
        );
        let note = format!(
            "the operator in namespace {} does nothing: the operator in namespace {other} serves this resource (status.operatorNamespace). A cluster admin has to stop one of the two, or release the resource",
            context.namespace
        );
        context.events.publish(user, &PendingEvent { reason, note, warning: true }).await;
    }
    Action::await_change()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AwsDeployUserStatus;

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
    fn foreign_claim_is_reported_once_an_hour_for_each_resource() {
        let (reports, start) = (ClaimReports::default(), Instant::now());
        assert!(reports.start("u1", start));
        assert!(!reports.start("u1", start + Duration::from_mins(59)));
        assert!(reports.start("u2", start));
        assert!(reports.start("u1", start + REPORT_INTERVAL));
        reports.keep(&HashSet::from(["u2".to_owned()]));
        assert!(reports.start("u1", start + REPORT_INTERVAL), "dropped with the resource");
    }
}
