//! A strict AWS proxy for tests.
//!
//! An HTTP/1.1 server in front of the moto emulator (IAM and STS, query protocol). It forwards and logs every call, and
//! enforces the AWS rules that the emulator does not: it verifies signatures, compares user names ignoring case,
//! enforces quotas, rejects the deletion of users with attachments and returns lists in pages. [`Rule`]s inject faults.
//!
//! ```text
//! operator --SigV4--> StrictAws --(log, fault rules, signature, AWS rules, fault rules)--> moto
//! auditor  ---------> Inspector ----------------------------------------------------------/
//! the test ---------> ManualChanges --(AWS rules)----------------------------------------/
//! ```
//!
//! - [`StrictAws`]: the listener with its log and its fault rules. Cheap to start; each test starts its own.
//! - [`Account`]: the AWS state that the emulator does not keep. Proxies that must see the same AWS share one;
//!   [`Account::unique`] gives a test its own AWS account on a shared emulator.
//! - [`PolicyAuthorizer`]: enforces the operator's IAM policy ([`StrictAws::enforce_policies`]). Without it every call
//!   is allowed.
//! - [`Inspector`]: reads the actual state. [`ManualChanges`]: changes made outside the operator, as in the console.
//!
//! Each file below `strict/` enforces one group of AWS rules and names their source.

mod account;
mod admin;
mod call;
mod caller;
mod engine;
mod inspector;
mod key;
mod log;
mod manual_changes;
mod pause;
mod policy_authorizer;
mod response;
mod rules;
mod server;
mod settings;
mod sigv4;
mod strict;
mod upstream;
mod xml;

#[cfg(test)]
mod tests;

pub use account::{Account, Authorizer, DEFAULT_ACCOUNT_ID};
pub use call::{Call, Service};
pub use caller::{AccountRef, Caller, Identity};
pub use inspector::{Inspector, KeySnapshot, LoginProfileSnapshot, PolicySnapshot, UserSnapshot};
pub use key::{KeyState, KeyUse};
pub use log::{CallLog, CallOutcome, CallRecord, LogPosition, WaitError};
pub use manual_changes::{CreatedKey, ManualChanges};
pub(crate) use pause::HoldOutcome;
pub use pause::Pause;
pub use policy_authorizer::PolicyAuthorizer;
pub use response::{AwsError, AwsResponse};
pub(crate) use rules::Occurrence;
pub use rules::{Hits, Phase, Rewrite, Rule, RuleId, Rules};
pub use server::StrictAws;
pub use settings::{PageShape, Settings};
