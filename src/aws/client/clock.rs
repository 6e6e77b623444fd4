//! The clock of AWS, read from the `Date` header of its responses.
//!
//! `CreateDate` of access keys is on the clock of AWS. Compared with the clock of this machine, a key would look older or
//! younger than the attempt that created it.

use std::sync::atomic::{AtomicI64, Ordering};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeDeserializationInterceptorContextRef, dyn_dispatch_hint},
        runtime_components::RuntimeComponents,
    },
    http::Headers,
};
use aws_smithy_types::config_bag::ConfigBag;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

use super::origin;

/// An estimate that is this much below the current one is no jitter: one of the clocks was set.
const JUMP_MILLIS: i64 = 2_500;

const UNKNOWN: i64 = i64::MIN;

/// The clock by which decisions are made. Never ahead of AWS: each response gives a lower bound (its date is truncated to
/// seconds, and the response took time), and the highest bound is kept.
#[derive(Debug)]
pub struct AwsClock {
    offset_millis: AtomicI64,
}

impl Default for AwsClock {
    fn default() -> Self {
        Self { offset_millis: AtomicI64::new(UNKNOWN) }
    }
}

impl AwsClock {
    /// The time of AWS; the time of this machine before the first response.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let local = local_now();
        match self.offset_millis.load(Ordering::Relaxed) {
            UNKNOWN => local,
            offset => local.checked_add(SignedDuration::from_millis(offset)).unwrap_or(local),
        }
    }

    /// How far AWS is ahead of this machine. `None` before the first response.
    #[must_use]
    pub fn offset(&self) -> Option<SignedDuration> {
        match self.offset_millis.load(Ordering::Relaxed) {
            UNKNOWN => None,
            offset => Some(SignedDuration::from_millis(offset)),
        }
    }

    fn update(&self, date: &str, received_at: Timestamp) {
        let Ok(date) = rfc2822::parse(date) else { return };
        let estimate = i64::try_from(date.timestamp().duration_since(received_at).as_millis()).unwrap_or(0);
        let current = self.offset_millis.load(Ordering::Relaxed);
        if current == UNKNOWN || estimate > current || estimate < current - JUMP_MILLIS {
            self.offset_millis.store(estimate, Ordering::Relaxed);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn local_now() -> Timestamp {
    Timestamp::now()
}

/// Updates the clock with every response of AWS.
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
        if let Some(date) = date_of_aws(context.response().headers()) {
            self.0.update(date, local_now());
        }
        Ok(())
    }
}

/// The date of a response that AWS gave. The page of a proxy has the date of its own clock: a key whose overlap is over by that
/// clock would be set Inactive too early.
fn date_of_aws(headers: &Headers) -> Option<&str> {
    origin::request_id(headers)?;
    headers.get("date")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn highest_lower_bound_is_kept() {
        let clock = AwsClock::default();
        assert_eq!(clock.offset(), None);
        clock.update("Sat, 21 Nov 2026 10:00:00 GMT", at("2026-11-21T10:00:00.900Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_millis(-900)));
        clock.update("Sat, 21 Nov 2026 10:00:01 GMT", at("2026-11-21T10:00:01.050Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_millis(-50)));
        clock.update("Sat, 21 Nov 2026 10:00:02 GMT", at("2026-11-21T10:00:02.500Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_millis(-50)), "a looser bound is ignored");
    }

    #[test]
    fn clock_jumps_are_followed_in_both_directions() {
        let clock = AwsClock::default();
        clock.update("Sat, 21 Nov 2026 10:10:00 GMT", at("2026-11-21T10:00:00Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::from_mins(10)));
        clock.update("Sat, 21 Nov 2026 10:10:00 GMT", at("2026-11-21T10:10:00Z"));
        assert_eq!(clock.offset(), Some(SignedDuration::ZERO));
    }

    #[test]
    fn date_of_a_proxy_moves_no_clock() {
        let mut headers = Headers::new();
        headers.insert("Date", "Sun, 21 Nov 2027 10:00:00 GMT");
        assert_eq!(date_of_aws(&headers), None);
        headers.insert("x-amzn-RequestId", "0b1c");
        assert_eq!(date_of_aws(&headers), Some("Sun, 21 Nov 2027 10:00:00 GMT"));
    }

    #[test]
    fn invalid_date_is_ignored() {
        let clock = AwsClock::default();
        clock.update("yesterday", at("2026-11-21T10:00:00Z"));
        assert_eq!(clock.offset(), None);
    }
}
