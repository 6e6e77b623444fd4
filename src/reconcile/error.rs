//! Why a reconcile failed: one function classifies every error.

use crate::{
    api::Reason,
    aws::{ASSUME_ROLE, AwsError, AwsErrorKind},
    cluster::{ClusterError, ClusterErrorKind},
    domain::{
        backoff::ErrorClass,
        conditions::{FailureScope, ReconcileFailure},
        desired::{self, Violation},
        plan::{Effect, EffectVerb, Note},
        policy,
    },
};

/// A reconcile, or one effect of it, failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReconcileError {
    /// No class allows what the resource asks for.
    #[error("{0}")]
    NotAllowed(String),
    /// A class exists that this operator cannot read.
    #[error("{0}. A cluster admin has to correct the class or install a newer operator; nothing is decided before")]
    UnreadableClass(String),
    /// The caller identity is of another account than that of the resource.
    #[error("{0}")]
    WrongAccount(String),
    /// The IAM user of that name has another owner.
    #[error("{0}")]
    NotOwned(String),
    /// An effect was planned, and no user with the ownership tags of the resource was observed to execute it on.
    #[error("{0} was not executed: no IAM user with the ownership tags of this resource was observed")]
    UserNotObserved(EffectVerb),
    /// The resource contradicts itself or a limit of IAM.
    #[error("{}", desired::describe_violations(.0))]
    Invalid(Vec<Violation>),
    /// A field of the resource cannot be read.
    #[error("{0}; correct the field: until then the operator grants nothing new, and revokes and deletes only")]
    Unreadable(String),
    /// A call to AWS failed.
    #[error("{error}{}", classify_aws(error, effect.as_deref()).hint)]
    Aws {
        /// The answer of AWS.
        error: AwsError,
        /// The effect; `None` for reads.
        effect: Option<Box<Effect>>,
    },
    /// A call to the Kubernetes API failed.
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    /// RBAC refuses the operator access to Secrets of the namespace.
    #[error("{0}")]
    SecretAccess(ClusterError),
    /// Another operator ended the attempt while its key was created; the key was deleted unpublished.
    #[error(
        "another attempt is under way; deleted access key {0}, which was created at the same time and never published"
    )]
    Undone(String),
    /// STS does not accept a new key.
    #[error(
        "AWS did not accept the new access key {0} in time; it is deleted, and another one is created after a back-off"
    )]
    KeyNotAccepted(String),
    /// The kernel returned no random numbers.
    #[error("failed to create a password: the kernel of the operator's node returns no random numbers; see its log")]
    NoRandomness,
    /// The reconcile exceeded its deadline, in seconds.
    #[error("the reconcile was cut off after {0} s; the next one continues from what it observes")]
    Deadline(u64),
}

/// How an error is reported and retried.
pub struct Classification {
    /// In conditions, Events, logs and metrics.
    pub reason: Reason,
    /// Decides the back-off.
    pub class: ErrorClass,
    /// It ends without a person's help, and what was true before still is as far as is known.
    pub transient: bool,
    /// What to do about it, beside the message of AWS; starts with `. ` if there is one.
    hint: String,
}

impl Classification {
    /// Transient if the class is retried within minutes.
    fn new(reason: Reason, class: ErrorClass) -> Self {
        let transient = matches!(class, ErrorClass::Throttled | ErrorClass::Conflict | ErrorClass::Transient);
        Self { reason, class, transient, hint: String::new() }
    }

    /// Retried soon, although it most likely waits for a person.
    fn not_transient(self) -> Self {
        Self { transient: false, ..self }
    }

    fn with_hint(self, hint: impl AsRef<str>) -> Self {
        Self { hint: format!(". {}", hint.as_ref()), ..self }
    }
}

impl From<AwsError> for ReconcileError {
    fn from(error: AwsError) -> Self {
        Self::Aws { error, effect: None }
    }
}

impl ReconcileError {
    /// A failed call of an effect.
    pub(super) fn of_effect(error: AwsError, effect: Effect) -> Self {
        Self::Aws { error, effect: Some(Box::new(effect)) }
    }

    /// The one table of errors.
    #[must_use]
    pub fn classify(&self) -> Classification {
        use Classification as Is;
        match self {
            Self::NotAllowed(_) | Self::UnreadableClass(_) => Is::new(Reason::NotAllowed, ErrorClass::Terminal),
            Self::WrongAccount(_) => Is::new(Reason::WrongAccount, ErrorClass::Denied),
            Self::NotOwned(_) => Is::new(Reason::NotOwned, ErrorClass::Terminal),
            Self::Invalid(_) | Self::Unreadable(_) => Is::new(Reason::InvalidSpec, ErrorClass::Terminal),
            Self::Aws { error, effect } => classify_aws(error, effect.as_deref()),
            Self::Cluster(error) => match error.kind {
                ClusterErrorKind::NotFound | ClusterErrorKind::AlreadyExists | ClusterErrorKind::Conflict => {
                    Is::new(Reason::Conflict, ErrorClass::Conflict)
                }
                ClusterErrorKind::Forbidden => Is::new(Reason::SecretAccessDenied, ErrorClass::Denied),
                ClusterErrorKind::Invalid => Is::new(Reason::InvalidSpec, ErrorClass::Terminal),
                ClusterErrorKind::Unavailable => Is::new(Reason::KubernetesUnavailable, ErrorClass::Transient),
            },
            Self::SecretAccess(_) => Is::new(Reason::SecretAccessDenied, ErrorClass::Denied),
            Self::UserNotObserved(_) => Is::new(Reason::Conflict, ErrorClass::Transient),
            Self::Undone(_) => Is::new(Reason::Conflict, ErrorClass::Conflict),
            Self::KeyNotAccepted(_) => Is::new(Reason::KeyNotAccepted, ErrorClass::Transient).not_transient(),
            Self::NoRandomness => Is::new(Reason::NoRandomness, ErrorClass::Transient),
            Self::Deadline(_) => Is::new(Reason::AwsUnavailable, ErrorClass::Transient),
        }
    }

    /// See [`Classification`].
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.classify().reason
    }

    /// See [`Classification`].
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.classify().class
    }

    pub(super) fn for_conditions(&self, scope: FailureScope) -> ReconcileFailure {
        let Classification { reason, transient, .. } = self.classify();
        ReconcileFailure { scope, note: Note::new(reason, self.to_string()), transient }
    }
}

/// An error with the condition that it falls upon.
pub(super) struct StepError {
    pub(super) error: ReconcileError,
    pub(super) scope: FailureScope,
}

impl StepError {
    pub(super) fn new(error: ReconcileError, scope: FailureScope) -> Self {
        Self { error, scope }
    }

    pub(super) fn for_conditions(&self) -> ReconcileFailure {
        self.error.for_conditions(self.scope)
    }
}

fn classify_aws(error: &AwsError, effect: Option<&Effect>) -> Classification {
    use AwsErrorKind as Kind;
    use Classification as Is;
    match (error.kind, effect) {
        (Kind::NoSuchEntity, Some(Effect::AttachPolicy(arn))) => {
            let hint = policy::suggest_name(arn).unwrap_or_else(|| "correct spec.policies.managed; names are case-sensitive, and policies outside of the root need their path".to_owned());
            Is::new(Reason::PolicyNotFound, ErrorClass::Transient)
                .not_transient()
                .with_hint(format!("There is no policy {arn}: {hint}"))
        }
        (Kind::NoSuchEntity, Some(Effect::AddToGroup(group))) => Is::new(Reason::GroupNotFound, ErrorClass::Transient)
            .not_transient()
            .with_hint(format!("Correct spec.groups, or have an AWS admin create the group {group:?}; the operator creates no groups")),
        // `CreateUser` names nothing else that may be missing.
        (Kind::NoSuchEntity, Some(Effect::PutBoundary(_) | Effect::CreateUser)) => {
            Is::new(Reason::BoundaryNotFound, ErrorClass::Transient)
                .not_transient()
                .with_hint("No user is created or kept without its permissions boundary: an AWS admin has to create that policy, or a cluster admin to correct permissionsBoundary in the class")
        }
        // The entity is not visible everywhere yet, or was deleted a moment ago.
        (Kind::NoSuchEntity | Kind::Busy, _) => Is::new(Reason::Conflict, ErrorClass::Transient),
        // Created a moment ago, by this operator or by another actor: the next reconcile observes which.
        (Kind::EntityAlreadyExists, _) => Is::new(Reason::NotOwned, ErrorClass::Conflict),
        (Kind::LimitExceeded, _) => Is::new(Reason::LimitExceeded, ErrorClass::Limit),
        (Kind::MalformedPolicyDocument, Some(Effect::PutInlinePolicy(name, _))) => {
            Is::new(Reason::MalformedPolicy, ErrorClass::Terminal)
                .with_hint(format!("Correct the document of the inline policy {name:?} in spec.policies.inline"))
        }
        (Kind::MalformedPolicyDocument, _) => Is::new(Reason::MalformedPolicy, ErrorClass::Terminal),
        (Kind::PolicyNotAttachable | Kind::InvalidInput | Kind::DeleteConflict, _) => {
            Is::new(Reason::InvalidRequest, ErrorClass::Terminal)
        }
        (Kind::AccessDenied, _) if error.operation == ASSUME_ROLE => {
            Is::new(Reason::AssumeRoleDenied, ErrorClass::Denied)
                .with_hint("AWS does not say which of three is missing: the trust policy of the role has to name the operator's own role as principal; if it asks for an external id, account.externalId of the class has to be the same; and the operator's own policy has to allow sts:AssumeRole on the role. `aws-deploy-user-operator iam-policy --class` prints all of them")
        }
        (Kind::AccessDenied, _) if error.message.contains("explicit deny") => {
            Is::new(Reason::AccessDenied, ErrorClass::Denied)
                .with_hint("A policy denies it whatever else allows it. If that is the operator's own, it was printed for other classes: an AWS admin can print it again, for all of them (iam-policy --class)")
        }
        (Kind::AccessDenied, _) => Is::new(Reason::AccessDenied, ErrorClass::Denied)
            .with_hint(format!("An AWS admin can allow iam:{} in the operator's IAM policy", error.operation)),
        (Kind::Credentials, _) => Is::new(Reason::OperatorCredentials, ErrorClass::Denied)
            .with_hint("Correct the operator's own AWS credentials: see its ServiceAccount, Pod Identity association or environment"),
        (Kind::ClockSkew, _) => Is::new(Reason::ClockSkew, ErrorClass::Denied)
            .with_hint("Synchronise the clock of the operator's node"),
        (Kind::Throttled, _) => Is::new(Reason::Throttled, ErrorClass::Throttled),
        (Kind::Service | Kind::Unreachable, _) => Is::new(Reason::AwsUnavailable, ErrorClass::Transient),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::domain::backoff;

    fn failed(kind: AwsErrorKind, effect: Option<Effect>) -> ReconcileError {
        let error = AwsError { operation: "PutUserPolicy", kind, message: "said".to_owned(), request_id: None };
        ReconcileError::Aws { error, effect: effect.map(Box::new) }
    }

    /// Reason, class and first back-off of every error kind.
    #[test]
    fn every_error_kind_has_a_reason_a_class_and_a_delay() {
        use AwsErrorKind as Kind;
        use ErrorClass as Class;
        let slow = SignedDuration::from_hours(1);
        let secs = SignedDuration::from_secs;
        for (kind, reason, class, delay) in [
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
                assert_eq!(backoff::delay(error.class(), 1, 0, slow), delay, "{kind:?}");
                assert!(error.to_string().contains("PutUserPolicy: said"), "operation and message of AWS: {error}");
            }
        }
    }

    #[test]
    fn explicit_deny_is_not_answered_by_a_hint_to_allow() {
        let answer =
            "User: x is not authorized to perform: y on resource: z with an explicit deny in an identity-based policy";
        let error = AwsError {
            operation: "CreateUser",
            kind: AwsErrorKind::AccessDenied,
            message: answer.to_owned(),
            request_id: None,
        };
        let message = ReconcileError::of_effect(error, Effect::CreateUser).to_string();
        assert!(message.contains("print it again") && !message.contains("can allow"), "{message}");
    }

    #[test]
    fn errors_carry_hints() {
        let message = |kind, effect| failed(kind, effect).to_string();
        for (kind, effect, help) in [
            (AwsErrorKind::AccessDenied, None, "can allow iam:PutUserPolicy in the operator's IAM policy"),
            (AwsErrorKind::Credentials, None, "Correct the operator's own AWS credentials"),
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
            let message = message(kind, effect);
            assert!(message.contains(help), "{message}");
        }
    }

    #[test]
    fn denied_role_hint_names_all_three_requirements() {
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
        let message = error.to_string();
        for part in ["trust policy", "account.externalId", "sts:AssumeRole", "iam-policy --class"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(refused(AwsErrorKind::Unreachable).reason(), Reason::AwsUnavailable);
        assert_eq!(refused(AwsErrorKind::Credentials).reason(), Reason::OperatorCredentials);
    }

    #[test]
    fn errors_that_need_a_person_are_not_transient() {
        for kind in [
            AwsErrorKind::AccessDenied,
            AwsErrorKind::Credentials,
            AwsErrorKind::ClockSkew,
            AwsErrorKind::LimitExceeded,
            AwsErrorKind::MalformedPolicyDocument,
            AwsErrorKind::DeleteConflict,
        ] {
            assert!(!failed(kind, None).classify().transient, "{kind:?}");
        }
        for kind in [AwsErrorKind::Throttled, AwsErrorKind::Busy, AwsErrorKind::Service, AwsErrorKind::Unreachable] {
            assert!(failed(kind, None).classify().transient, "{kind:?}");
        }
    }
}
