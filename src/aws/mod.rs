//! AWS access. The only module that uses the AWS SDK: its types do not leave it.
//!
//! `client` holds what every AWS service needs (credentials, caller identity, rate limit, retries, clock, errors), `iam` holds
//! the operations of IAM. Another service would be a sibling of `iam` on the same `client::AccountClient`.

mod client;
mod clients;
mod iam;

pub use client::{
    CallObserver,
    clock::AwsClock,
    error::{ASSUME_ROLE, AwsError, AwsErrorKind},
    identity::{CallerIdentity, KeyVerification},
    lane::Lane,
};
pub use clients::{ClientSettings, IamClients};
pub use iam::{
    IamClient, ListedPolicy,
    account_details::{AccountDetails, AccountRead},
};
