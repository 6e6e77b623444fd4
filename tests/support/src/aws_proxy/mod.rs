//! The strict AWS: what our tests take for AWS.
//!
//! An HTTP/1.1 server in front of the moto emulator (IAM and STS, query protocol) that passes calls on, writes each
//! one down, and behaves like AWS where the emulator is too kind for us: keys are checked, names collide ignoring
//! case, quotas hold, users with something attached cannot be deleted, lists come in pages. On top of that it goes
//! wrong on request: see [`Rule`].
//!
//! ```text
//! operator --SigV4--> StrictAws --(log, rules, signature, strictness, rules)--> moto
//! auditor  ---------> Truth ------------------------------------------------/
//! the test ---------> Human --(strictness)---------------------------------/
//! ```
//!
//! - [`StrictAws`]: the listener with its log and its rules. Cheap; each test starts its own.
//! - [`Account`]: what AWS knows beyond the emulator. Proxies in front of one emulator that are to see the same AWS
//!   share one; [`Account::unique`] gives a test an AWS account of its own on a shared emulator.
//! - [`Guard`]: the operator's own IAM policy, in force ([`StrictAws::guard`]). Without it the operator may do anything.
//! - [`Truth`]: reads what is so. [`Human`]: what a person does at the console meanwhile.
//!
//! One file per subject; one file per strictness below `strict/`, each naming the AWS rule it enforces and where that
//! is known from.

mod account;
mod admin;
mod answer;
mod call;
mod engine;
mod guard;
mod human;
mod key;
mod log;
mod pause;
mod realm;
mod rules;
mod server;
mod settings;
mod sigv4;
mod strict;
mod truth;
mod upstream;
mod xml;

#[cfg(test)]
mod tests;

pub use account::{Account, Authorizer, DEFAULT_ACCOUNT_ID};
pub use answer::{Answer, AwsError};
pub use call::{Call, Service};
pub use guard::Guard;
pub use human::{Human, MintedKey};
pub use key::{KeyState, KeyUse};
pub use log::{CallLog, CallRecord, End, Mark, WaitError};
pub use pause::Pause;
pub(crate) use pause::Verdict;
pub use realm::{Caller, Identity, Realm};
pub(crate) use rules::Turn;
pub use rules::{Hits, Rewrite, Rule, RuleId, Rules, When};
pub use server::StrictAws;
pub use settings::{PageShape, Settings};
pub use truth::{KeyTruth, LoginProfileTruth, Truth, UserTruth};
