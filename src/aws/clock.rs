//! AWS's clock, told from the `Date` header of its answers.
//!
//! `CreateDate` of access keys is on AWS's clock. Comparing it with the clock of this machine
//! would make a key look older or younger than the attempt that made it.

use std::sync::atomic::{AtomicI64, Ordering};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeDeserializationInterceptorContextRef, dyn_dispatch_hint},
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

/// An estimate below the best one by more than this is not noise: a clock was set.
const JUMP_MS: i64 = 2_500;

const UNKNOWN: i64 = i64::MIN;

/// The clock by which decisions are made. Never ahead of AWS's own: every answer gives a lower
/// bound (its date is floored to the second and has travelled), and the highest of them is kept.
#[derive(Debug)]
pub struct AwsClock {
    offset_ms: AtomicI64,
}

impl Default for AwsClock {
    fn default() -> Self {
        Self { offset_ms: AtomicI64::new(UNKNOWN) }
    }
}

impl AwsClock {
    /// Now on AWS's clock; on this machine's clock before the first answer.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let local = local_now();
        match self.offset_ms.load(Ordering::Relaxed) {
            UNKNOWN => local,
            offset => local.checked_add(SignedDuration::from_millis(offset)).unwrap_or(local),
        }
    }

    /// How far AWS's clock is ahead of this machine's, if known.
    #[must_use]
    pub fn offset(&self) -> Option<SignedDuration> {
        match self.offset_ms.load(Ordering::Relaxed) {
            UNKNOWN => None,
            offset => Some(SignedDuration::from_millis(offset)),
        }
    }

    fn learn(&self, date: &str, received: Timestamp) {
        let Ok(date) = rfc2822::parse(date) else { return };
        let estimate = i64::try_from(date.timestamp().duration_since(received).as_millis()).unwrap_or(0);
        let known = self.offset_ms.load(Ordering::Relaxed);
        if known == UNKNOWN || estimate > known || estimate < known - JUMP_MS {
            self.offset_ms.store(estimate, Ordering::Relaxed);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn local_now() -> Timestamp {
    Timestamp::now()
}

/// Reads the `Date` header of every answer.
#[derive(Debug)]
pub(super) struct ClockInterceptor(pub(super) std::sync::Arc<AwsClock>);

#[dyn_dispatch_hint]
impl Intercept for ClockInterceptor {
    fn name(&self) -> &'static str {
        "ClockInterceptor"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.0.learn(date, local_now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_highest_lower_bound_is_kept() {
        let clock = AwsClock::default();
        assert_eq!(clock.offset(), None);
        clock.learn("Sat, 21 Nov 2026 10:00:00 GMT", at("2026-11-21T10:00:00.900Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_millis(-900)));
        clock.learn("Sat, 21 Nov 2026 10:00:01 GMT", at("2026-11-21T10:00:01.050Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_millis(-50)));
        clock.learn("Sat, 21 Nov 2026 10:00:02 GMT", at("2026-11-21T10:00:02.500Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_millis(-50)), "a looser bound teaches nothing");
    }

    #[test]
    fn a_clock_that_was_set_is_followed_in_both_directions() {
        let clock = AwsClock::default();
        clock.learn("Sat, 21 Nov 2026 10:10:00 GMT", at("2026-11-21T10:00:00Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_mins(10)));
        clock.learn("Sat, 21 Nov 2026 10:10:00 GMT", at("2026-11-21T10:10:00Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::ZERO));
    }

    #[test]
    fn rubbish_teaches_nothing() {
        let clock = AwsClock::default();
        clock.learn("yesterday", at("2026-11-21T10:00:00Z"));
        assert_eq!(clock.offset(), None);
    }
}
