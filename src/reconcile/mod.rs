//! One pass over one resource: observe -> validate -> plan -> act -> report.
//!
//! Assume that the last pass died at any await: nothing here relies on what an earlier pass did,
//! only on what this one finds.

mod act;
mod classes;
mod context;
mod error;
mod gates;
mod memory;
mod observe;
mod pass;
mod report;
mod revoke;
mod rooms;
mod ruling;
mod steps;
mod tell;

use std::{borrow::Cow, time::Duration};

pub use classes::report_on_classes;
pub use context::{Context, PassObserver, PassSettings, Watched};
pub use error::PassError;
use memory::{Fingerprint, Memory, Quiet};
use pass::until_then;
use rooms::Place;
use ruling::Ruling;
use steps::pass;

use crate::{
    api::AwsDeployUser,
    domain::{schedule::spread_permille, target::Target},
};

/// Looks after one resource and says when to look again. Never fails: a failure is reported in
/// the resource's status and turned into a time.
pub async fn reconcile(user: &AwsDeployUser, context: &Context) -> Duration {
    let mut user = Cow::Borrowed(user);
    let mut place: Option<Place> = None;
    loop {
        let Some(target) = Target::of(&user, &context.cluster_id) else { return Duration::MAX };
        let ruling = ruling::rule(&user, target, context);
        if let Some(rest) = rest(&user, &ruling, context) {
            return rest;
        }
        let room = ruling.way.room();
        if place.as_ref().is_some_and(|place| place.is_in(room)) {
            return Box::pin(pass(&user, &ruling, context)).await;
        }
        // A place in another room is given back first.
        drop(place.take());
        let Some((entered, waited)) = context.rooms.enter(room).await else { return Duration::MAX };
        place = Some(entered);
        if waited {
            // What was to be done may have changed meanwhile.
            let Some(now) = context.resources.get(&user) else { return Duration::MAX };
            user = Cow::Owned(now);
        }
    }
}

/// How long there is nothing to do, whoever has woken us.
fn rest(user: &AwsDeployUser, ruling: &Ruling, context: &Context) -> Option<Duration> {
    let uid = &ruling.target.owner.uid;
    let fingerprint = Fingerprint::of(user, ruling.digest);
    if let Some(left) = context.memories.quiet_for(uid, &fingerprint) {
        return Some(left);
    }
    let now = context.accounts.clock().now();
    if context.memories.is_new(uid)
        && ruling.is_as_recorded(user)
        && let Some(until) = report::rests_until(user, spread_permille(uid), now)
    {
        let wait = until_then(until, now);
        let quiet = Quiet { seen: fingerprint, until: std::time::Instant::now() + wait };
        context.memories.put(uid, Memory { quiet: Some(quiet), ..Memory::default() });
        return Some(wait);
    }
    None
}
