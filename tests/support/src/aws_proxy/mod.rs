//! The strict AWS: what our tests take for AWS.
//!
//! An HTTP/1.1 server in front of the moto emulator (IAM and STS, query protocol) that passes calls on, writes each
//! one down, and behaves like AWS where the emulator is too kind for us: keys are checked, names collide ignoring
//! case, quotas hold, users with something attached cannot be deleted, lists come in pages. On top of that it goes
//! wrong on request: see [`Rule`].
//!
//! ```text
//! operator --SigV4--> StrictAws --(log, rules, signature, strictness, rules)--> moto
//! auditor  ---------> Inspector ------------------------------------------------/
//! the test ---------> ManualChanges --(strictness)---------------------------------/
//! ```
//!
//! - [`StrictAws`]: the listener with its log and its rules. Cheap; each test starts its own.
//! - [`Account`]: what AWS knows beyond the emulator. Proxies in front of one emulator that are to see the same AWS
//!   share one; [`Account::unique`] gives a test an AWS account of its own on a shared emulator.
//! - [`PolicyAuthorizer`]: the operator's own IAM policy, in force ([`StrictAws::enforce_policies`]). Without it the operator may do anything.
//! - [`Inspector`]: reads what is so. [`ManualChanges`]: what a person does at the console meanwhile.
//!
//! One file per subject; one file per strictness below `strict/`, each naming the AWS rule it enforces and where that
//! is known from.

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
pub use inspector::{Inspector, KeySnapshot, LoginProfileSnapshot, UserSnapshot};
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
