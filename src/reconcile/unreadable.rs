//! Reports a resource whose records in the status have values that this version of the operator does not know. What they mean
//! is not guessed: the finalizer and everything in AWS are kept.

use std::time::Instant;

use kube::{Resource as _, runtime::controller::Action};

use super::{
    Context,
    cache::{IdleUntil, ReconcileCache},
};
use crate::{
    api::{AwsDeployUser, Reason},
    cluster::{GuardedUser, PendingEvent},
    domain::{change_key::ChangeKey, fair_queue::Priority},
};

/// Logs the resource and publishes an Event, once per change of the resource in this process.
pub(super) async fn report(object: &GuardedUser, context: &Context) -> Action {
    let user = AwsDeployUser { metadata: object.meta().clone(), ..AwsDeployUser::default() };
    let uid = user.metadata.uid.clone().unwrap_or_default();
    let key = ChangeKey::new(&user, 0);
    if context.caches.idle_for(&uid, &key).is_some() {
        return Action::await_change();
    }
    if let Some(wait) = context.caches.change_wait(&uid) {
        return Action::requeue(wait);
    }
    let mut rate = context.caches.take(&uid).rate;
    rate.count(Instant::now());
    let error = object.error().unwrap_or_default();
    tracing::warn!(namespace = ?user.metadata.namespace, resource = ?user.metadata.name, error, "skipped unreadable AwsDeployUser");
    let note = format!("{error}; a cluster admin has to install a newer operator, until then nothing is changed");
    context.events.publish(&user, &PendingEvent { reason: Reason::InvalidSpec, note, warning: true }).await;
    let until = Instant::now().checked_add(context.settings.resync);
    let idle = until.map(|until| IdleUntil { key, until, priority: Priority::Background });
    context.caches.put(&uid, ReconcileCache { idle, rate, ..ReconcileCache::default() });
    Action::await_change()
}
