//! A pass under way: what it holds, its clock, and its pauses after failures.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Context, ReconcileError, cache::ReconcileCache, class_decision::ClassDecision};
use crate::{
    api::AwsDeployUser,
    aws::IamClient,
    domain::{
        backoff, conditions::FailureScope, desired::Desired, plan::RevocationPolicy, schedule::spread_permille,
        target::Target,
    },
};

/// A pass is cut off after this long.
pub(super) const DEADLINE: Duration = Duration::from_mins(3);

/// One pass under way.
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    /// The account of the resource.
    pub(super) iam: Arc<IamClient>,
    pub(super) target: &'a Target,
    pub(super) class_decision: &'a ClassDecision,
    pub(super) cache: &'a mut ReconcileCache,
    pub(super) errors: Vec<(ReconcileError, FailureScope)>,
    pub(super) desired: Option<Desired>,
    /// How a resource is dealt with that is not allowed.
    pub(super) revoked: Option<RevocationPolicy>,
}

/// How a pass ended.
pub(super) struct End {
    pub(super) user: AwsDeployUser,
    pub(super) next: Timestamp,
    pub(super) left: bool,
}

impl Pass<'_> {
    pub(super) fn delay(&self, error: &ReconcileError, user: &AwsDeployUser) -> SignedDuration {
        let told = user.status.as_ref().and_then(|status| u32::try_from(status.failed_attempts).ok()).unwrap_or(0);
        let failed = told.max(self.cache.failed.of(user.metadata.generation).passes);
        self.delay_after(error, failed.saturating_add(1))
    }

    pub(super) fn delay_after(&self, error: &ReconcileError, failures: u32) -> SignedDuration {
        let slow = SignedDuration::try_from(self.context.settings.resync).unwrap_or(SignedDuration::MAX);
        backoff::delay(error.class(), failures.max(1), self.permille(), slow)
    }

    pub(super) fn permille(&self) -> i32 {
        spread_permille(&self.target.owner.uid)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.accounts.clock().now()
    }
}

/// The time from now to then, never zero: a pass that has to come at once comes in a moment.
pub(super) fn until_then(then: Timestamp, now: Timestamp) -> Duration {
    const LEAST: Duration = Duration::from_millis(10);
    Duration::try_from(then.duration_since(now)).unwrap_or(LEAST).max(LEAST)
}
