//! Why a pass failed: one reason and one class each.

use crate::{
    api::Reason,
    aws::{ASSUME_ROLE, AwsError, AwsErrorKind},
    cluster::{ClusterError, ClusterErrorKind},
    domain::{
        backoff::ErrorClass,
        conditions::{FailureScope, ReconcileFailure},
        desired::{self, Violation},
        plan::{Effect, Note},
        policy,
    },
};

/// A pass, or one effect of it, did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReconcileError {
    /// No class allows what the resource asks for.
    #[error("{0}")]
    NotAllowed(String),
    /// There is a class, and this operator cannot read it.
    #[error("{0}. Nothing is decided before a newer operator, or a cluster admin, has mended that")]
    UnreadableClass(String),
    /// AWS takes the operator for another account than it should be.
    #[error("{0}")]
    WrongAccount(String),
    /// The name of the IAM user belongs to somebody else.
    #[error("{0}")]
    NotOwned(String),
    /// The resource contradicts itself or a limit of IAM.
    #[error("{}", desired::describe_violations(.0))]
    Invalid(Vec<Violation>),
    /// AWS.
    #[error("{error}{}", hint(error, effect.as_ref()))]
    Aws {
        /// What AWS said.
        error: AwsError,
        /// What was being done, if it was more than reading.
        effect: Option<Effect>,
    },
    /// Kubernetes.
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    /// The operator may not handle Secrets in the namespace.
    #[error("{0}")]
    SecretAccess(ClusterError),
    /// Somebody else ended the attempt while its key was being made; the key was deleted again.
    #[error(
        "another attempt is under way; access key {0}, made at the same time, was deleted again before anybody saw it"
    )]
    Undone(String),
    /// AWS does not accept a new key.
    #[error("AWS did not accept the new access key {0} in time; it is deleted and another one is made after a pause")]
    KeyNotAccepted(String),
    /// The machine has no random numbers.
    #[error("the operator's machine gives no random numbers, so no password can be made; see its kernel's log")]
    NoRandomness,
    /// The pass took too long.
    #[error("the pass was cut off after {0} s; the next one goes on from what it finds")]
    Deadline(u64),
}

impl From<AwsError> for ReconcileError {
    fn from(error: AwsError) -> Self {
        Self::Aws { error, effect: None }
    }
}

impl ReconcileError {
    /// The reason it is reported under.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotAllowed(_) | Self::UnreadableClass(_) => Reason::NotAllowed,
            Self::WrongAccount(_) => Reason::WrongAccount,
            Self::NotOwned(_) => Reason::NotOwned,
            Self::Invalid(_) => Reason::InvalidSpec,
            Self::Aws { error, .. } if is_refused_role(error) => Reason::AssumeRoleDenied,
            Self::Aws { error, effect } => aws_reason(error.kind, effect.as_ref()),
            Self::Cluster(error) => match error.kind {
                ClusterErrorKind::NotFound | ClusterErrorKind::AlreadyExists | ClusterErrorKind::Conflict => {
                    Reason::Conflict
                }
                ClusterErrorKind::Forbidden => Reason::SecretAccessDenied,
                ClusterErrorKind::Invalid => Reason::InvalidSpec,
                ClusterErrorKind::Unavailable => Reason::KubernetesUnavailable,
            },
            Self::SecretAccess(_) => Reason::SecretAccessDenied,
            Self::Undone(_) => Reason::Conflict,
            Self::KeyNotAccepted(_) => Reason::KeyNotAccepted,
            Self::NoRandomness => Reason::NoRandomness,
            Self::Deadline(_) => Reason::AwsUnavailable,
        }
    }

    /// How it is dealt with.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotAllowed(_) | Self::UnreadableClass(_) | Self::NotOwned(_) | Self::Invalid(_) => {
                ErrorClass::Terminal
            }
            Self::Aws { error, .. } => match error.kind {
                AwsErrorKind::MalformedPolicyDocument
                | AwsErrorKind::PolicyNotAttachable
                | AwsErrorKind::InvalidInput
                | AwsErrorKind::DeleteConflict => ErrorClass::Terminal,
                // Made by ourselves a moment ago, or by somebody else: the next pass looks.
                AwsErrorKind::EntityAlreadyExists => ErrorClass::Conflict,
                AwsErrorKind::AccessDenied | AwsErrorKind::Credentials | AwsErrorKind::ClockSkew => ErrorClass::Denied,
                AwsErrorKind::LimitExceeded => ErrorClass::Limit,
                AwsErrorKind::Throttled => ErrorClass::Throttled,
                // NoSuchEntity: a policy that does not exist, or a user that is not visible everywhere yet.
                AwsErrorKind::NoSuchEntity | AwsErrorKind::Busy | AwsErrorKind::Service | AwsErrorKind::Unreachable => {
                    ErrorClass::Transient
                }
            },
            Self::Cluster(error) => match error.kind {
                ClusterErrorKind::NotFound | ClusterErrorKind::AlreadyExists | ClusterErrorKind::Conflict => {
                    ErrorClass::Conflict
                }
                ClusterErrorKind::Forbidden => ErrorClass::Denied,
                ClusterErrorKind::Invalid => ErrorClass::Terminal,
                ClusterErrorKind::Unavailable => ErrorClass::Transient,
            },
            Self::SecretAccess(_) | Self::WrongAccount(_) => ErrorClass::Denied,
            Self::Undone(_) => ErrorClass::Conflict,
            Self::KeyNotAccepted(_) | Self::NoRandomness | Self::Deadline(_) => ErrorClass::Transient,
        }
    }

    /// As conditions see it.
    #[must_use]
    pub fn failure(&self, scope: FailureScope) -> ReconcileFailure {
        ReconcileFailure {
            scope,
            note: Note::new(self.reason(), self.to_string()),
            transient: matches!(self.class(), ErrorClass::Throttled | ErrorClass::Conflict | ErrorClass::Transient)
                && !matches!(
                    self.reason(),
                    Reason::PolicyNotFound | Reason::GroupNotFound | Reason::BoundaryNotFound | Reason::KeyNotAccepted
                ),
        }
    }
}

fn is_refused_role(error: &AwsError) -> bool {
    error.operation == ASSUME_ROLE && error.kind == AwsErrorKind::AccessDenied
}

fn aws_reason(kind: AwsErrorKind, effect: Option<&Effect>) -> Reason {
    match kind {
        AwsErrorKind::NoSuchEntity if matches!(effect, Some(Effect::AttachPolicy(_))) => Reason::PolicyNotFound,
        AwsErrorKind::NoSuchEntity if matches!(effect, Some(Effect::AddToGroup(_))) => Reason::GroupNotFound,
        // `CreateUser` names nothing else that may be missing.
        AwsErrorKind::NoSuchEntity if matches!(effect, Some(Effect::PutBoundary(_) | Effect::CreateUser)) => {
            Reason::BoundaryNotFound
        }
        AwsErrorKind::NoSuchEntity | AwsErrorKind::Busy => Reason::Conflict,
        AwsErrorKind::EntityAlreadyExists => Reason::NotOwned,
        AwsErrorKind::LimitExceeded => Reason::LimitExceeded,
        AwsErrorKind::MalformedPolicyDocument => Reason::MalformedPolicy,
        AwsErrorKind::PolicyNotAttachable | AwsErrorKind::InvalidInput | AwsErrorKind::DeleteConflict => {
            Reason::InvalidRequest
        }
        AwsErrorKind::AccessDenied => Reason::AccessDenied,
        AwsErrorKind::Credentials => Reason::OperatorCredentials,
        AwsErrorKind::ClockSkew => Reason::ClockSkew,
        AwsErrorKind::Throttled => Reason::Throttled,
        AwsErrorKind::Service | AwsErrorKind::Unreachable => Reason::AwsUnavailable,
    }
}

/// What helps, beside AWS's own message.
fn hint(error: &AwsError, effect: Option<&Effect>) -> String {
    match (error.kind, effect) {
        (AwsErrorKind::NoSuchEntity, Some(Effect::AttachPolicy(arn))) => match policy::suggest_name(arn) {
            Some(hint) => format!(". There is no policy {arn}: {hint}"),
            None => format!(". There is no policy {arn}: correct spec.policies.managed; names are case-sensitive, and policies outside the root need their path"),
        },
        (AwsErrorKind::NoSuchEntity, Some(Effect::AddToGroup(group))) => {
            format!(". Correct spec.groups, or have an AWS admin create the group {group:?}; the operator makes no groups")
        }
        (AwsErrorKind::NoSuchEntity, Some(Effect::PutBoundary(_) | Effect::CreateUser)) => {
            ". No user is made or kept without its permissions boundary: an AWS admin has to create that policy, or a cluster admin to correct permissionsBoundary in the class".to_owned()
        }
        (AwsErrorKind::MalformedPolicyDocument, Some(Effect::PutInlinePolicy(name, _))) => {
            format!(". Correct the document of the inline policy {name:?} in spec.policies.inline")
        }
        (AwsErrorKind::AccessDenied, _) if is_refused_role(error) => {
            ". AWS does not say which of three is missing: the trust policy of the role has to name the operator's own role as principal; if it asks for an external id, account.externalId of the class has to be the same; and the operator's own policy has to allow sts:AssumeRole on the role. `aws-deploy-user-operator iam-policy --class` prints all of them".to_owned()
        }
        (AwsErrorKind::AccessDenied, _) if error.message.contains("explicit deny") => {
            ". A policy denies it whatever else allows it. If that is the operator's own, it was printed for other classes: an AWS admin can print it anew, for all of them (iam-policy --class)".to_owned()
        }
        (AwsErrorKind::AccessDenied, _) => {
            format!(". An AWS admin can allow iam:{} in the operator's IAM policy", error.operation)
        }
        (AwsErrorKind::Credentials, _) => {
            ". The operator's own AWS credentials have to be mended: see its ServiceAccount, Pod Identity association or environment".to_owned()
        }
        (AwsErrorKind::ClockSkew, _) => ". Synchronise the clock of the operator's node".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::domain::backoff;

    fn failed(kind: AwsErrorKind, effect: Option<Effect>) -> ReconcileError {
        let error = AwsError { operation: "PutUserPolicy", kind, message: "said".to_owned(), request_id: None };
        ReconcileError::Aws { error, effect }
    }

    /// Every kind of failure: the reason it is told under, how it is dealt with, and when it is tried again the first time.
    #[test]
    fn every_kind_of_failure_has_a_reason_a_class_and_a_pause() {
        use AwsErrorKind as Kind;
        use ErrorClass as Class;
        let slow = SignedDuration::from_hours(1);
        let secs = SignedDuration::from_secs;
        for (kind, reason, class, pause) in [
            (Kind::NoSuchEntity, Reason::Conflict, Class::Transient, secs(5)),
            (Kind::EntityAlreadyExists, Reason::NotOwned, Class::Conflict, secs(1)),
            (Kind::DeleteConflict, Reason::InvalidRequest, Class::Terminal, slow),
            (Kind::LimitExceeded, Reason::LimitExceeded, Class::Limit, secs(1800)),
            (Kind::MalformedPolicyDocument, Reason::MalformedPolicy, Class::Terminal, slow),
            (Kind::PolicyNotAttachable, Reason::InvalidRequest, Class::Terminal, slow),
            (Kind::InvalidInput, Reason::InvalidRequest, Class::Terminal, slow),
            (Kind::AccessDenied, Reason::AccessDenied, Class::Denied, secs(300)),
            (Kind::Credentials, Reason::OperatorCredentials, Class::Denied, secs(300)),
            (Kind::ClockSkew, Reason::ClockSkew, Class::Denied, secs(300)),
            (Kind::Throttled, Reason::Throttled, Class::Throttled, secs(30)),
            (Kind::Busy, Reason::Conflict, Class::Transient, secs(5)),
            (Kind::Service, Reason::AwsUnavailable, Class::Transient, secs(5)),
            (Kind::Unreachable, Reason::AwsUnavailable, Class::Transient, secs(5)),
        ] {
            for effect in [None, Some(Effect::PutInlinePolicy("own".to_owned(), serde_json::json!({})))] {
                let error = failed(kind, effect);
                assert_eq!((error.reason(), error.class()), (reason, class), "{kind:?}");
                assert_eq!(backoff::delay(error.class(), 1, 0, slow), pause, "{kind:?}");
                assert!(
                    error.to_string().contains("PutUserPolicy: said"),
                    "which action, and AWS's own words: {error}"
                );
            }
        }
    }

    #[test]
    fn nobody_is_told_to_allow_what_a_policy_denies() {
        let message =
            "User: x is not authorized to perform: y on resource: z with an explicit deny in an identity-based policy";
        let error = AwsError {
            operation: "CreateUser",
            kind: AwsErrorKind::AccessDenied,
            message: message.to_owned(),
            request_id: None,
        };
        let told = ReconcileError::Aws { error, effect: Some(Effect::CreateUser) }.to_string();
        assert!(told.contains("print it anew") && !told.contains("can allow"), "{told}");
    }

    #[test]
    fn what_helps_is_told_with_the_failure() {
        let told = |kind, effect| failed(kind, effect).to_string();
        for (kind, effect, help) in [
            (AwsErrorKind::AccessDenied, None, "can allow iam:PutUserPolicy in the operator's IAM policy"),
            (AwsErrorKind::Credentials, None, "credentials have to be mended"),
            (AwsErrorKind::ClockSkew, None, "Synchronise the clock"),
            (AwsErrorKind::NoSuchEntity, Some(Effect::AddToGroup("g".to_owned())), "spec.groups"),
            (AwsErrorKind::NoSuchEntity, Some(Effect::PutBoundary("b".to_owned())), "permissionsBoundary in the class"),
            (AwsErrorKind::NoSuchEntity, Some(Effect::AttachPolicy("a".to_owned())), "spec.policies.managed"),
            (
                AwsErrorKind::MalformedPolicyDocument,
                Some(Effect::PutInlinePolicy("own".to_owned(), serde_json::json!({}))),
                "\"own\" in spec.policies.inline",
            ),
        ] {
            let told = told(kind, effect);
            assert!(told.contains(help), "{told}");
        }
    }

    #[test]
    fn a_role_that_is_refused_is_told_with_the_three_things_it_needs() {
        let refused = |kind| {
            ReconcileError::from(AwsError {
                operation: ASSUME_ROLE,
                kind,
                message: "said".to_owned(),
                request_id: None,
            })
        };
        let error = refused(AwsErrorKind::AccessDenied);
        assert_eq!((error.reason(), error.class()), (Reason::AssumeRoleDenied, ErrorClass::Denied));
        let told = error.to_string();
        for part in ["trust policy", "account.externalId", "sts:AssumeRole", "iam-policy --class"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(refused(AwsErrorKind::Unreachable).reason(), Reason::AwsUnavailable);
        assert_eq!(refused(AwsErrorKind::Credentials).reason(), Reason::OperatorCredentials);
    }

    #[test]
    fn what_a_person_has_to_mend_never_counts_as_passing() {
        for kind in [
            AwsErrorKind::AccessDenied,
            AwsErrorKind::Credentials,
            AwsErrorKind::ClockSkew,
            AwsErrorKind::LimitExceeded,
            AwsErrorKind::MalformedPolicyDocument,
            AwsErrorKind::DeleteConflict,
        ] {
            assert!(!failed(kind, None).failure(FailureScope::User).transient, "{kind:?}");
        }
        for kind in [AwsErrorKind::Throttled, AwsErrorKind::Busy, AwsErrorKind::Service, AwsErrorKind::Unreachable] {
            assert!(failed(kind, None).failure(FailureScope::User).transient, "{kind:?}");
        }
    }
}
