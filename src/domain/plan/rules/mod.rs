//! The rules of the operator as one ordered list: the first rule that returns a step decides.
//!
//! `docs/rotation.md` describes the protocol and what breaks without each rule. The order is part of the protocol: keys
//! that must not work are set Inactive first, an attempt is finished before a new one starts, and no key is deleted before
//! its fence is written. Rules that apply in one [`Mode`] only return `None` in the others.

mod attempt;
mod deactivate;
mod due;
mod ending;
mod handover;
mod input;
pub(super) mod quarantine;
mod remove_user;
mod removed_from_spec;
mod replace;
mod restart;
mod retire;
mod secret;

use jiff::Timestamp;

pub(super) use due::backing_off;
pub use input::{Mode, RuleInput};
pub use restart::required_restarts;
pub(super) use secret::unread_note;

use super::{Effect, Note, RetireReason};

/// The next step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Execute this effect.
    Do(Effect),
    /// Nothing before this time.
    Wait(Timestamp, Note),
    /// Nothing before the spec, a class, IAM or an object changes.
    Hold(Note),
    /// Nothing to do.
    Idle,
}

/// A rule with the claim that it enforces.
pub type Rule = (&'static str, fn(&RuleInput<'_>) -> Option<Step>);

/// All rules in order. `docs/rotation.md` lists them under the same names, and tests leave each of them out.
pub const RULES: &[Rule] = &[
    ("revoked and undeclared keys are Inactive", deactivate::deactivate),
    ("a revoked user has no console password", remove_user::remove_password),
    ("a revoked user loses its policies and groups", remove_user::revoke_grants),
    ("a published key is tagged, never before it is published", attempt::tag_published),
    ("a superseded key is Inactive after its overlap", retire::deactivate),
    ("the start of a quarantine is recorded on the user", quarantine::record),
    ("without its Secrets and journal, a user only loses access", secret::hold_unread),
    ("a journal of unknown format blocks what follows", attempt::hold_unknown_journal),
    ("a paused publisher of an abandoned key is fenced off", attempt::fence_publisher),
    ("orphans are deleted behind the fence", attempt::delete_orphans),
    ("an attempt that is over is closed", attempt::close),
    ("a staged key that AWS accepts is published", attempt::publish),
    ("an attempt that cannot be finished is abandoned", attempt::abandon),
    ("a staged key is verified", attempt::verify),
    ("a retained user loses its ownership tags and nothing else", remove_user::retain),
    ("a deleted user loses its keys first", remove_user::delete),
    ("the Secrets of a retained user have no owner", secret::release),
    ("a user whose keys must not work gets none", deactivate::hold_keyless),
    ("a Secret without a valid MAC is signed again if AWS accepts its key", secret::confirm),
    ("workloads are restarted for a new key until they are rolled out", restart::restart),
    ("tags of deleted keys are removed", retire::untag_deleted),
    ("a superseded key is deleted after the deletion delay", retire::delete),
    ("a key that is due is replaced", replace::replace),
    ("the Secret matches the spec", secret::rewrite),
];

/// The step of the first rule that applies.
pub(super) fn first_step(rules: &[Rule], input: &RuleInput<'_>) -> Step {
    rules.iter().find_map(|(_, rule)| rule(input)).unwrap_or(Step::Idle)
}
