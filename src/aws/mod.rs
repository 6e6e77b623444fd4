//! IAM and STS in our words. The only place that knows the AWS SDK: its types end here.

mod account_details;
mod accounts;
mod api_caller;
mod bucket;
mod clock;
mod console;
mod convert;
mod deletion_blockers;
mod document;
mod error;
mod iam;
mod known;
mod reads;
mod session;
mod single_flight;
mod writes;

use std::time::Duration;

pub use accounts::{ClientSettings, IamClients};
pub use clock::AwsClock;
pub use error::{ASSUME_ROLE, AwsError, AwsErrorKind};
pub use iam::{CallerIdentity, IamClient, KeyVerification};
pub use known::AccountDetails;

/// Told of every call to AWS; the metrics listen here. `account` is an account id, or `unknown` before AWS has told it.
pub trait CallObserver: Send + Sync {
    /// A call has come to its end. `code` is `OK`, AWS's error code, or our name of a transport fault.
    fn record_call(&self, account: &str, operation: &'static str, code: &str, took: Duration);
    /// AWS has answered an attempt with a request to slow down. The call may still succeed.
    fn record_throttle(&self, account: &str);
}

/// An observer that does not listen.
impl CallObserver for () {
    fn record_call(&self, _: &str, _: &'static str, _: &str, _: Duration) {}
    fn record_throttle(&self, _: &str) {}
}
