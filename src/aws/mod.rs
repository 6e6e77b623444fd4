//! IAM and STS in our words. The only place that knows the AWS SDK: its types end here.

mod bucket;
mod clock;
mod console;
mod document;
mod error;
mod iam;
mod leftovers;

use std::time::Duration;

pub use clock::AwsClock;
pub use error::{AwsError, AwsErrorKind};
pub use iam::{Acceptance, Connection, Iam, Identity};

/// Told of every call to AWS; the metrics listen here.
pub trait CallObserver: Send + Sync {
    /// A call has come to its end. `code` is `OK`, AWS's error code, or our name of a transport fault.
    fn called(&self, operation: &'static str, code: &str, took: Duration);
}

/// An observer that does not listen.
impl CallObserver for () {
    fn called(&self, _: &'static str, _: &str, _: Duration) {}
}
