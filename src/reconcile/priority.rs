//! How urgent a reconcile is, and which reconciles have become urgent since they started.

use std::{collections::HashMap, sync::Arc};

use futures::FutureExt as _;
use kube::Resource as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Context,
    class_decision::{self, ClassDecision, Decision},
};
use crate::{
    api::AwsDeployUser,
    aws::Lane,
    cluster::GuardedUser,
    domain::{account, change_key::ChangeKey, fair_queue::Priority, target::Target},
};

/// Why a resource is to lose its credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent causes")]
pub(super) struct RevocationCauses {
    credentials_revoked: bool,
    denied: bool,
    deleted: bool,
}

impl RevocationCauses {
    /// What the resource itself says.
    pub(super) fn of_resource(user: &AwsDeployUser) -> Self {
        Self {
            credentials_revoked: user.spec.credentials_revoked(),
            denied: false,
            deleted: user.metadata.deletion_timestamp.is_some(),
        }
    }

    pub(super) fn of(user: &AwsDeployUser, decision: &ClassDecision) -> Self {
        let is_denied = matches!(decision.decision, Decision::Denied(_)) || decision.account_mismatch.is_some();
        Self { denied: is_denied && account::recorded_user(user).is_some(), ..Self::of_resource(user) }
    }

    /// Whether there is a cause that was not among these.
    pub(super) fn adds_to(self, served: Self) -> bool {
        (self.credentials_revoked && !served.credentials_revoked)
            || (self.denied && !served.denied)
            || (self.deleted && !served.deleted)
    }

    pub(super) fn without_deletion(self) -> Self {
        Self { deleted: false, ..self }
    }

    pub(super) fn any(self) -> bool {
        self.adds_to(Self::default())
    }

    /// The causes of both.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            credentials_revoked: self.credentials_revoked || other.credentials_revoked,
            denied: self.denied || other.denied,
            deleted: self.deleted || other.deleted,
        }
    }
}

/// The priority of a reconcile that starts now. A revocation is urgent once: what was revoked before is only compared.
pub(super) fn priority(user: &AwsDeployUser, decision: &ClassDecision, context: &Context) -> Priority {
    let causes = RevocationCauses::of(user, decision);
    let key = ChangeKey::new(user, decision.digest);
    context.caches.priority(&decision.target.owner.uid, causes, &key).unwrap_or_else(|| {
        // After a start, the status says what an earlier process has done.
        let is_observed = user.status.as_ref().is_some_and(|status| {
            status.observed_generation == user.metadata.generation && status.failing_since.is_none()
        });
        // What is created with revoked credentials has nothing to lose, and must not come before the work of others.
        let takes_away = causes.any() && account::recorded_user(user).is_some();
        match (is_observed && !causes.deleted, takes_away) {
            (true, _) => Priority::Background,
            (false, true) => Priority::Urgent,
            (false, false) => Priority::Due,
        }
    })
}

/// Lanes of the reconciles that wait or run, by the UID of their resource. The controller does not start another one of the
/// same resource meanwhile: what became urgent would wait with it.
#[derive(Default)]
pub struct ReconcileLanes(Mutex<HashMap<String, RegisteredLane>>);

struct RegisteredLane {
    lane: Lane,
    /// Those that the reconcile takes into account, and those that were served before.
    causes: RevocationCauses,
    interruption: Arc<Interruption>,
}

/// Ends a reconcile early: its resource has to lose its credentials, which it does not know.
#[derive(Default)]
pub(super) struct Interruption(Notify);

impl Interruption {
    /// Waits until the reconcile is to end.
    pub(super) async fn requested(&self) {
        self.0.notified().await;
        // Kept for the next question.
        self.0.notify_one();
    }

    pub(super) fn is_requested(&self) -> bool {
        self.requested().now_or_never().is_some()
    }
}

/// A reconcile that waits or runs; ends when dropped.
pub(super) struct LaneRegistration<'a> {
    lanes: &'a ReconcileLanes,
    uid: String,
}

impl LaneRegistration<'_> {
    /// The reconcile reads its resource now: later changes that revoke interrupt it, earlier ones do not.
    pub(super) fn begin(&self) -> Arc<Interruption> {
        let interruption = Arc::new(Interruption::default());
        if let Some(registered) = self.lanes.0.lock().get_mut(&self.uid) {
            registered.interruption = Arc::clone(&interruption);
        }
        interruption
    }
}

impl Drop for LaneRegistration<'_> {
    fn drop(&mut self) {
        self.lanes.0.lock().remove(&self.uid);
    }
}

impl ReconcileLanes {
    /// `causes`: those that the priority of the lane takes into account, and those that were served before.
    pub(super) fn register(&self, uid: &str, lane: Lane, causes: RevocationCauses) -> LaneRegistration<'_> {
        let registered = RegisteredLane { lane, causes, interruption: Arc::default() };
        self.0.lock().insert(uid.to_owned(), registered);
        LaneRegistration { lanes: self, uid: uid.to_owned() }
    }

    /// Raises the priority of the reconcile of a resource that was revoked or deleted meanwhile.
    pub fn record_change(&self, object: &GuardedUser) {
        if let (Some(user), Some(uid)) = (object.object(), object.meta().uid.as_deref()) {
            self.raise(uid, RevocationCauses::of_resource(user));
        }
    }

    fn raise(&self, uid: &str, causes: RevocationCauses) {
        if let Some(registered) = self.0.lock().get_mut(uid)
            && causes.adds_to(registered.causes)
        {
            registered.causes = registered.causes.or(causes);
            registered.lane.raise(Priority::Urgent);
            registered.interruption.0.notify_one();
        }
    }

    fn contains(&self, uid: &str) -> bool {
        self.0.lock().contains_key(uid)
    }
}

impl Context {
    /// Raises the priority of the reconciles of resources that a changed class or namespace denies.
    pub fn record_class_changes(&self) {
        self.resources.for_each(|user| {
            if user.metadata.uid.as_deref().is_some_and(|uid| self.lanes.contains(uid))
                && let Some(target) = Target::from_resource(user, &self.cluster_id)
            {
                let decision = class_decision::decide(user, target, self);
                self.lanes.raise(&decision.target.owner.uid, RevocationCauses::of(user, &decision));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::user::Credentials;

    fn user(credentials: Credentials) -> GuardedUser {
        let mut user = AwsDeployUser::default();
        user.metadata.uid = Some("u1".to_owned());
        user.spec.credentials = credentials;
        user.into()
    }

    #[test]
    fn revocation_makes_a_waiting_reconcile_urgent() {
        let (lanes, lane) = (ReconcileLanes::default(), Lane::new("a", Priority::Background));
        let registration = lanes.register("u1", lane.clone(), RevocationCauses::default());
        lanes.record_change(&user(Credentials::Active));
        assert_eq!(lane.priority(), Priority::Background);
        lanes.record_change(&user(Credentials::Revoked));
        assert_eq!(lane.priority(), Priority::Urgent);
        drop(registration);
        assert!(!lanes.contains("u1"));
    }

    #[test]
    fn revocation_interrupts_a_reconcile_unaware_of_it() {
        let lanes = ReconcileLanes::default();
        let registration = lanes.register("u1", Lane::new("a", Priority::Due), RevocationCauses::default());
        let interruption = registration.begin();
        lanes.record_change(&user(Credentials::Active));
        assert!(!interruption.is_requested());
        lanes.record_change(&user(Credentials::Revoked));
        assert!(interruption.is_requested() && interruption.is_requested(), "until it ends");
        assert!(!registration.begin().is_requested(), "a reconcile that reads its resource later knows it");
    }

    #[test]
    fn resource_that_stays_revoked_is_not_urgent_again() {
        let (lanes, lane) = (ReconcileLanes::default(), Lane::new("a", Priority::Due));
        let served = RevocationCauses { credentials_revoked: true, ..RevocationCauses::default() };
        let _registration = lanes.register("u1", lane.clone(), served);
        lanes.record_change(&user(Credentials::Revoked));
        assert_eq!(lane.priority(), Priority::Due);
    }
}
