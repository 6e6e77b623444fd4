//! Effects: the steps of a plan that touch AWS or Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    api::user::RestartTarget,
    domain::{
        current_state::{CurrentState, DeletionBlocker},
        dates::saturating_add,
        journal::{AttemptPhase, Journal},
        managed_policy,
        restart::{self, Restarts},
        settings::Settings,
    },
};

/// Why an access key is set Inactive or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetireReason {
    OverlapEnded,
    /// It stayed Active because it is used, or because AWS did not report whether it is, until the hold ended.
    HoldExpired,
    /// Workloads that must be restarted for its successor were not rolled out in time.
    RolloutTimedOut,
    /// Consumers of `accessKey.handover` did not confirm its successor in time.
    HandoverExpired,
    /// AWS quarantines the user: the key may be public.
    Quarantined,
    /// Its value is lost and its slot is needed for a key that works.
    FreesSlot,
    /// By `spec.credentials: Revoked`.
    CredentialsRevoked,
    /// No access key is declared any more.
    RemovedFromSpec,
    /// It belongs to an abandoned attempt.
    Orphan,
    /// The user is being deleted.
    Cleanup,
    /// No class allows the resource any more.
    Revoked,
}

/// One change or read. All but [`Effect::CreateKey`] are idempotent. Holds names and ids, never key material.
#[derive(Clone, Debug, PartialEq, strum::EnumDiscriminants)]
#[strum_discriminants(
    name(EffectVerb),
    derive(Hash, PartialOrd, Ord, strum::Display, strum::IntoStaticStr, strum::VariantArray),
    doc = "The verb of an [`Effect`] without its data: a label of metrics and the name of a span."
)]
pub enum Effect {
    /// Records name and account of the IAM user, and its managed policies, in the status, before any of them is created in AWS.
    RecordUser,
    /// Comes before anything is created in AWS.
    AddFinalizer,
    /// With path and tags in one call.
    CreateUser,
    /// Writes our ownership tags in one call. Holds what the user is about to lose, for the Event that precedes it.
    AdoptUser(Vec<String>),
    TagUser(BTreeMap<String, String>),
    UntagUser(BTreeSet<String>),
    PutInlinePolicy(String, Value),
    DeleteInlinePolicy(String),
    AttachPolicy(String),
    DetachPolicy(String),
    AddToGroup(String),
    RemoveFromGroup(String),
    PutBoundary(String),
    /// Creates the managed policy of a document, by ARN. Not idempotent: one that exists is read instead.
    CreatePolicy(String),
    /// Makes the declared document the default version of the policy with this ARN. Not idempotent: a version whose response was
    /// lost is known by its document.
    CreatePolicyVersion(String),
    /// Makes a version that exists the default: ARN and version.
    SetDefaultPolicyVersion(String, String),
    /// ARN and version.
    DeletePolicyVersion(String, String),
    DeletePolicy(String),
    /// Writes our ownership tags to a policy of the resource from before it was restored.
    TagPolicy(String),
    /// Removes our ownership tags, so that the policy outlives the resource.
    UntagPolicy(String),
    /// Reads the versions of a policy, and the documents of those that the operator made.
    ReadPolicyVersions(String),
    /// Reads what else a policy is attached to.
    ReadPolicyHolders(String),
    /// Removes the record of a policy that IAM has not listed for longer than its lists lag.
    ForgetPolicy(String),
    /// Writes a new console password into its Secret, marked pending.
    WritePassword,
    /// Sets the password in the Secret in IAM, then marks it applied.
    ApplyPassword,
    RemovePassword,
    DeleteConsoleSecret,
    /// Removes our owner reference, so that the Secret outlives the resource.
    ReleaseConsoleSecret,

    /// Creates the journal, calls `CreateAccessKey` once, writes the key into the journal.
    CreateKey {
        /// Keys that the user has before.
        known: Vec<String>,
        /// Repairs in a row, this one included. `None`: the key replaces none that was lost.
        repairs: Option<u32>,
    },
    /// Checks once whether STS accepts the staged key.
    VerifyKey(String),
    /// Writes the staged key into the target Secret, conditional on the resourceVersion read in this reconcile.
    Publish(String),
    /// Tags a published key as ours, with its description for the AWS console.
    TagKey(String),
    /// Abandons the attempt. From then on a paused writer of it cannot stage a key.
    AbandonAttempt {
        /// Keys to delete.
        orphans: Vec<String>,
        /// AWS did not accept the key in time.
        failed: bool,
    },
    /// Records on the user when its quarantine was first observed: keys created until then are compromised.
    RecordQuarantine(Timestamp),
    /// Removes that record.
    ClearQuarantine,
    /// Changes the published Secret's resourceVersion, so that a paused publisher of an abandoned key fails.
    TouchPublished,
    /// Deletes the journal of a finished attempt.
    CloseJournal,
    DeactivateKey(String, RetireReason),
    DeleteKey(String, RetireReason),
    /// Asks STS once about the key in a published Secret without a valid MAC, and signs the Secret if STS accepts it.
    ConfirmSecret(String),
    /// Writes the published Secret again with the key that it has.
    RewriteSecret,

    /// Reads when these keys were last used, to retire a superseded key or to choose between two lost ones.
    ReadLastUsed(Vec<String>),
    /// Reads whether these workloads were restarted for the published key, and their rollout.
    ReadWorkloads(Vec<RestartTarget>),
    /// Restarts a workload for the key with this id by an annotation of its pod template, unless that was done.
    RestartWorkload(RestartTarget, String),
    /// Records the progress of the restarts in the published Secret.
    RecordRestarts(Restarts),
    /// Reads the policies and groups that block the deletion of the user.
    ReadGrants,
    /// Removes what another client of IAM created and blocks the deletion of the user.
    RemoveDeletionBlocker(DeletionBlocker),
    DeleteUser,
    /// Removes our owner reference, so that the Secret outlives the resource; of all Secrets while the resource is live.
    ReleaseSecret,
    DeleteSecret,
    /// Comes when nothing of the resource is left in AWS.
    RemoveFinalizer,
}

/// How fresh the current state must be before an effect is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// The cached state of an earlier reconcile will do: the effect can be repeated and undone, and is no write to IAM.
    Cached,
    /// The IAM user with its tags, its access keys, Secret and journal were read in this reconcile, in this order;
    /// policies, groups and password may be cached.
    ///
    /// Creating, revoking and deleting a key depends only on whose the user is, which keys it has, and which of them are
    /// ours, published or in an attempt. Cached policies decide only whether a first key may be created already. The worst
    /// case is a key for a user whose policy was detached a moment ago, which the next read puts back.
    ///
    /// Writes to the user need it too: IAM names a user by its name alone, and another one may have taken the name since.
    LiveKeys,
    /// All of IAM about the user, Secret and journal were read in this reconcile, in this order.
    Live,
}

impl Freshness {
    #[must_use]
    pub fn is_met_by(self, current: &CurrentState) -> bool {
        match self {
            Self::Cached => true,
            Self::LiveKeys => current.keys_read_at.is_some(),
            Self::Live => current.keys_read_at.is_some() && current.grants_live,
        }
    }
}

/// What an effect is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The resource and its user as a whole.
    Lifecycle,
    /// Tags, policies, groups, boundary and password of the user. Keys are handled even if such an effect fails.
    UserSync,
    /// Access keys, their attempts, Secrets and workloads.
    Key,
}

impl EffectVerb {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The properties of all effects. Effects that cannot be repeated or undone are executed on live state only.
    #[allow(clippy::match_same_arms, reason = "a table: one line per effect")]
    const fn properties(self) -> (Freshness, Kind) {
        use Freshness::{Cached, Live, LiveKeys};
        use Kind::{Key, Lifecycle, UserSync};
        match self {
            Self::RecordUser => (Cached, Lifecycle),
            Self::AddFinalizer => (Cached, Lifecycle),
            Self::CreateUser => (Live, Lifecycle),
            Self::AdoptUser => (Live, Lifecycle),
            Self::ReadGrants => (Cached, Lifecycle),
            Self::RemoveDeletionBlocker => (Live, Lifecycle),
            Self::DeleteUser => (Live, Lifecycle),
            Self::ReleaseConsoleSecret => (Cached, Lifecycle),
            Self::RemoveFinalizer => (Live, Lifecycle),

            Self::PutBoundary => (LiveKeys, UserSync),
            Self::CreatePolicy => (LiveKeys, UserSync),
            Self::CreatePolicyVersion => (Live, UserSync),
            Self::SetDefaultPolicyVersion => (Live, UserSync),
            Self::DeletePolicyVersion => (Live, UserSync),
            Self::DeletePolicy => (Live, UserSync),
            Self::TagPolicy => (Live, UserSync),
            Self::UntagPolicy => (Live, UserSync),
            Self::ReadPolicyVersions => (Live, UserSync),
            Self::ReadPolicyHolders => (Live, UserSync),
            Self::ForgetPolicy => (Live, UserSync),
            Self::TagUser => (LiveKeys, UserSync),
            Self::UntagUser => (LiveKeys, UserSync),
            Self::PutInlinePolicy => (LiveKeys, UserSync),
            Self::DeleteInlinePolicy => (Live, UserSync),
            Self::AttachPolicy => (LiveKeys, UserSync),
            Self::DetachPolicy => (Live, UserSync),
            Self::AddToGroup => (LiveKeys, UserSync),
            Self::RemoveFromGroup => (Live, UserSync),
            Self::WritePassword => (Live, UserSync),
            Self::ApplyPassword => (LiveKeys, UserSync),
            Self::RemovePassword => (Live, UserSync),
            Self::DeleteConsoleSecret => (Live, UserSync),

            Self::CreateKey => (LiveKeys, Key),
            Self::VerifyKey => (Cached, Key),
            Self::Publish => (Cached, Key),
            Self::TagKey => (LiveKeys, Key),
            Self::AbandonAttempt => (LiveKeys, Key),
            Self::TouchPublished => (Cached, Key),
            Self::CloseJournal => (Cached, Key),
            Self::RecordQuarantine => (Live, Key),
            Self::ClearQuarantine => (Live, Key),
            Self::ReadLastUsed => (Cached, Key),
            Self::DeactivateKey => (LiveKeys, Key),
            Self::DeleteKey => (LiveKeys, Key),
            Self::ConfirmSecret => (LiveKeys, Key),
            Self::RewriteSecret => (Cached, Key),
            Self::ReadWorkloads => (Cached, Key),
            Self::RestartWorkload => (Cached, Key),
            Self::RecordRestarts => (Cached, Key),
            Self::ReleaseSecret => (Cached, Key),
            Self::DeleteSecret => (Live, Key),
        }
    }
}

impl Effect {
    /// Whether it takes a key away that may be misused, so that it must not wait for the work of others.
    #[must_use]
    pub fn is_revocation(&self) -> bool {
        use RetireReason::{Cleanup, CredentialsRevoked, Quarantined, Revoked};
        let (Self::DeactivateKey(_, reason) | Self::DeleteKey(_, reason)) = self else { return false };
        matches!(reason, Cleanup | CredentialsRevoked | Quarantined | Revoked)
    }

    /// Name of the document that it writes to IAM.
    #[must_use]
    pub fn written_document(&self) -> Option<&str> {
        match self {
            Self::PutInlinePolicy(name, _) => Some(name),
            Self::CreatePolicy(arn) | Self::CreatePolicyVersion(arn) => Some(managed_policy::document_name(arn)),
            _ => None,
        }
    }

    #[must_use]
    pub fn verb(&self) -> EffectVerb {
        self.into()
    }

    #[must_use]
    pub fn required_freshness(&self) -> Freshness {
        // A quarantine is a policy.
        if matches!(self, Self::DeactivateKey(_, RetireReason::Quarantined)) {
            return Freshness::Live;
        }
        // IAM names a policy by its name alone, and another one may have taken the name since.
        if matches!(self, Self::AttachPolicy(arn) if managed_policy::is_of_a_document(arn)) {
            return Freshness::Live;
        }
        self.verb().properties().0
    }

    /// Whether the effect may be executed on this state; otherwise the state it needs is read first.
    #[must_use]
    pub fn can_run_on(&self, current: &CurrentState, settings: &Settings) -> bool {
        let listed_in_time = match (self, current.journal(), current.keys_read_at) {
            // A list that was read before the recovery delay was over may not show the orphan yet, however late it is now.
            (
                Self::AbandonAttempt { .. },
                Some(Journal { phase: AttemptPhase::Intent { .. }, started_at, .. }),
                Some(read_at),
            ) => read_at >= saturating_add(*started_at, settings.recovery_delay),
            // As for a list that may not show the policy yet.
            (Self::ForgetPolicy(_), _, Some(read_at)) => current
                .policies_missing_since
                .is_some_and(|since| read_at >= saturating_add(since, settings.recovery_delay)),
            _ => true,
        };
        // STS has just accepted the key as one of the observed user, which proves as much as a read.
        let verified = match (self, &current.verification) {
            (Self::TagKey(id), Some(seen)) => seen.key_id == *id && seen.successes > 0,
            _ => false,
        };
        listed_in_time && (verified || self.required_freshness().is_met_by(current))
    }

    /// Whether the effect is about user, policies and tags. If it fails, keys are handled all the same.
    #[must_use]
    pub fn is_user_sync(&self) -> bool {
        self.verb().properties().1 == Kind::UserSync
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.verb())?;
        match self {
            Self::TagUser(tags) => write!(formatter, " {}", join(tags.keys())),
            Self::UntagUser(keys) => write!(formatter, " {}", join(keys)),
            Self::ReadLastUsed(ids) => write!(formatter, " {}", join(ids)),
            Self::ReadWorkloads(targets) => write!(formatter, " {}", join(targets)),
            Self::AbandonAttempt { orphans, .. } => write!(formatter, " orphans: {}", join(orphans)),
            Self::PutInlinePolicy(name, _)
            | Self::DeleteInlinePolicy(name)
            | Self::AttachPolicy(name)
            | Self::DetachPolicy(name)
            | Self::PutBoundary(name)
            | Self::CreatePolicy(name)
            | Self::CreatePolicyVersion(name)
            | Self::DeletePolicy(name)
            | Self::TagPolicy(name)
            | Self::UntagPolicy(name)
            | Self::ReadPolicyVersions(name)
            | Self::ReadPolicyHolders(name)
            | Self::ForgetPolicy(name)
            | Self::AddToGroup(name)
            | Self::RemoveFromGroup(name)
            | Self::VerifyKey(name)
            | Self::Publish(name)
            | Self::TagKey(name)
            | Self::ConfirmSecret(name) => write!(formatter, " {name}"),
            Self::SetDefaultPolicyVersion(arn, version) | Self::DeletePolicyVersion(arn, version) => {
                write!(formatter, " {arn} {version}")
            }
            Self::RemoveDeletionBlocker(blocker) => write!(formatter, " {blocker}"),
            Self::DeactivateKey(id, reason) | Self::DeleteKey(id, reason) => write!(formatter, " {id} ({reason:?})"),
            Self::RestartWorkload(target, id) => write!(formatter, " {target} for {id}"),
            Self::RecordRestarts(restarts) => {
                write!(formatter, " {}", restart::encode(restarts).unwrap_or_else(|| "all done".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
