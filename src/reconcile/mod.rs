//! One pass over one resource: observe -> validate -> plan -> act -> report.
//!
//! Assume that the last pass died at any await: nothing here relies on what an earlier pass did,
//! only on what this one finds.

mod account_health;
mod account_limiter;
mod act;
mod cache;
mod class;
mod class_decision;
mod context;
mod error;
mod observe;
mod pass;
mod revoke;
mod status;
mod steps;
mod update_status;

use std::{borrow::Cow, time::Duration};

use account_limiter::Permit;
use cache::{Fingerprint, IdleUntil, ReconcileCache};
pub use class::report_on_classes;
use class_decision::ClassDecision;
pub use context::{Context, ReconcileObserver, ReconcileSettings, Watched};
pub use error::ReconcileError;
use pass::until_then;
use steps::pass;

use crate::{
    api::AwsDeployUser,
    domain::{schedule::spread_permille, target::Target},
};

/// Looks after one resource and says when to look again. Never fails: a failure is reported in
/// the resource's status and turned into a time.
pub async fn reconcile(user: &AwsDeployUser, context: &Context) -> Duration {
    let mut user = Cow::Borrowed(user);
    let mut place: Option<Permit> = None;
    loop {
        let Some(target) = Target::from_resource(&user, &context.cluster_id) else { return Duration::MAX };
        let class_decision = class_decision::rule(&user, target, context);
        if let Some(rest) = rest(&user, &class_decision, context) {
            return rest;
        }
        let room = class_decision.route.account_key();
        if place.as_ref().is_some_and(|place| place.is_in(room)) {
            return Box::pin(pass(&user, &class_decision, context)).await;
        }
        // A place in another room is given back first.
        drop(place.take());
        let Some((entered, waited)) = context.limiter.enter(room).await else { return Duration::MAX };
        place = Some(entered);
        if waited {
            // What was to be done may have changed meanwhile.
            let Some(now) = context.resources.get(&user) else { return Duration::MAX };
            user = Cow::Owned(now);
        }
    }
}

/// How long there is nothing to do, whoever has woken us.
fn rest(user: &AwsDeployUser, class_decision: &ClassDecision, context: &Context) -> Option<Duration> {
    let uid = &class_decision.target.owner.uid;
    let fingerprint = Fingerprint::of(user, class_decision.digest);
    if let Some(left) = context.caches.idle_for(uid, &fingerprint) {
        return Some(left);
    }
    let now = context.accounts.clock().now();
    if context.caches.is_new(uid)
        && class_decision.is_as_recorded(user)
        && let Some(until) = status::backoff_until(user, spread_permille(uid), now)
    {
        let wait = until_then(until, now);
        let idle = IdleUntil { seen: fingerprint, until: std::time::Instant::now() + wait };
        context.caches.put(uid, ReconcileCache { idle: Some(idle), ..ReconcileCache::default() });
        return Some(wait);
    }
    None
}
