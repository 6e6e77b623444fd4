//! Why a reconcile failed: one function classifies every error.

use super::claim;
use crate::{
    api::Reason,
    aws::{ASSUME_ROLE, AwsError, AwsErrorKind},
    cluster::{ClusterError, ClusterErrorKind},
    domain::{
        backoff::ErrorClass,
        conditions::{FailureScope, ReconcileFailure},
        desired::{self, Violation},
        managed_policy, pause,
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
    /// The operator of another namespace serves the resource.
    #[error("{0}")]
    ServedElsewhere(String),
    /// The author has paused the resource.
    #[error("{}", pause::note().message)]
    Paused,
    /// The caller identity is of another account than that of the resource.
    #[error("{0}")]
    WrongAccount(String),
    /// The IAM user of that name has another owner.
    #[error("{0}")]
    NotOwned(String),
    /// An effect was planned, and no user with the ownership tags of the resource was observed to execute it on.
    #[error("{0} was not executed: no IAM user with the ownership tags of this resource was observed")]
    UserNotObserved(EffectVerb),
    /// An effect was planned, and no managed policy of the resource was observed to execute it on.
    #[error("{0} was not executed: {1} was not observed as a managed policy of a declared document of this resource")]
    PolicyNotObserved(EffectVerb, String),
    /// IAM lists a managed policy of a document as attached, and does not show it.
    #[error(
        "IAM reports that the managed policy {0} is attached, and that it does not exist: one of the answers is outdated, and both are read again"
    )]
    OutdatedPolicy(String),
    /// The managed policies were not read in time, in seconds, while access keys wait for their end.
    #[error("AWS did not return the managed policies of documents within {0} s; access keys are ended without them")]
    PoliciesDeadline(u64),
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
    /// The API server stores a Secret otherwise than it was written.
    #[error(
        "the API server does not keep Secret {secret} verbatim: {difference}; other field manager: {manager}. An admission policy or webhook changes it: a cluster admin has to exclude the Secrets of the operator (label app.kubernetes.io/managed-by=aws-deploy-user-operator) from it, or the author to declare what it sets"
    )]
    NotKept {
        /// Namespace and name.
        secret: String,
        /// What differs, without data.
        difference: String,
        /// Who owns the field, as far as the API server records it.
        manager: String,
    },
    /// A reconcile ended with effects that were still planned.
    #[error("the reconcile did not converge: {0} is still to be done; this is a defect of the operator, report it")]
    NotConverged(String),
    /// As [`Self::Undone`], but IAM does not know the key yet.
    #[error(
        "another attempt is under way; access key {0}, which was created at the same time and never published, is not visible in IAM yet and is deleted later"
    )]
    NotVisible(String),
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
    /// The operator of namespace `other` serves the resource, not the one of `namespace`.
    pub(super) fn served_by(other: &str, namespace: &str) -> Self {
        Self::ServedElsewhere(claim::description(other, namespace))
    }

    /// No failure: it is the same however often it is decided.
    pub(super) fn is_decision(&self) -> bool {
        matches!(self, Self::NotAllowed(_) | Self::ServedElsewhere(_) | Self::Paused)
    }

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
            Self::ServedElsewhere(_) => Is::new(Reason::ServedElsewhere, ErrorClass::Terminal),
            Self::Paused => Is::new(Reason::Paused, ErrorClass::Terminal),
            Self::WrongAccount(_) => Is::new(Reason::WrongAccount, ErrorClass::Denied),
            Self::NotOwned(_) => Is::new(Reason::NotOwned, ErrorClass::Terminal),
            Self::Invalid(_) | Self::Unreadable(_) => Is::new(Reason::InvalidSpec, ErrorClass::Terminal),
            Self::Aws { error, effect } => classify_aws(error, effect.as_deref()),
            Self::Cluster(error) => match error.kind {
                ClusterErrorKind::NotFound | ClusterErrorKind::AlreadyExists | ClusterErrorKind::Conflict => {
                    Is::new(Reason::Conflict, ErrorClass::Conflict)
                }
                ClusterErrorKind::Refused => Is::new(Reason::AdmissionDenied, ErrorClass::Denied),
                ClusterErrorKind::Forbidden => Is::new(Reason::SecretAccessDenied, ErrorClass::Denied),
                ClusterErrorKind::Invalid => Is::new(Reason::InvalidSpec, ErrorClass::Terminal),
                ClusterErrorKind::Unavailable => Is::new(Reason::KubernetesUnavailable, ErrorClass::Transient),
            },
            Self::SecretAccess(_) => Is::new(Reason::SecretAccessDenied, ErrorClass::Denied),
            Self::UserNotObserved(_) | Self::PolicyNotObserved(..) | Self::OutdatedPolicy(_) | Self::NotVisible(_) => {
                Is::new(Reason::Conflict, ErrorClass::Transient)
            }
            Self::Undone(_) => Is::new(Reason::Conflict, ErrorClass::Conflict),
            // Written once and stored otherwise: it would be the same at once.
            Self::NotKept { .. } => Is::new(Reason::SecretConflict, ErrorClass::Denied),
            Self::NotConverged(_) => Is::new(Reason::Conflict, ErrorClass::Transient).not_transient(),
            Self::KeyNotAccepted(_) => Is::new(Reason::KeyNotAccepted, ErrorClass::Transient).not_transient(),
            Self::NoRandomness => Is::new(Reason::NoRandomness, ErrorClass::Transient),
            Self::Deadline(_) | Self::PoliciesDeadline(_) => Is::new(Reason::AwsUnavailable, ErrorClass::Transient),
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
        let Classification { reason, class, transient, .. } = self.classify();
        ReconcileFailure { scope, note: Note::new(reason, self.to_string()), class, transient }
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
        // It was observed or created a moment ago: another server of IAM has answered.
        (Kind::NoSuchEntity, Some(_)) if names_user(&error.message) => {
            Is::new(Reason::Conflict, ErrorClass::Transient).with_hint(
                "IAM shows a new user everywhere within a minute; the operator tries again until then and reads the user again",
            )
        }
        (Kind::NoSuchEntity, Some(Effect::AttachPolicy(arn))) if !managed_policy::is_of_a_document(arn) => {
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
        // The entity is not visible everywhere yet, or was deleted a moment ago; keys, policies and groups of a user that were
        // removed a moment ago may still count.
        (Kind::NoSuchEntity | Kind::Busy, _) | (Kind::DeleteConflict, Some(Effect::DeleteUser | Effect::DeletePolicy(_))) => {
            Is::new(Reason::Conflict, ErrorClass::Transient)
        }
        // `GetUser` did not show it: created a moment ago, or its name differs in case and `ListUsers` is denied.
        (Kind::EntityAlreadyExists, Some(Effect::CreateUser)) => {
            Is::new(Reason::NotOwned, ErrorClass::Transient).not_transient()
        }
        // `GetPolicy` did not show it: created a moment ago, or it is at another path or its name differs in case.
        (Kind::EntityAlreadyExists, Some(Effect::CreatePolicy(arn))) => {
            Is::new(Reason::NotOwned, ErrorClass::Transient).not_transient().with_hint(format!(
                "Another managed policy of the account has the name {}, at another path or in another case; it is not changed. Choose another name for the document, or have an AWS admin delete that policy",
                policy::name(arn)
            ))
        }
        // Created a moment ago, by this operator or by another actor: a later read of IAM shows which.
        (Kind::EntityAlreadyExists, _) => Is::new(Reason::NotOwned, ErrorClass::Transient),
        // It was planned on a list of IAM with a free slot. The two agree again within a minute: then the list shows the keys.
        (Kind::LimitExceeded, Some(Effect::CreateKey { .. })) if error.message.contains(KEY_QUOTA) => {
            Is::new(Reason::Conflict, ErrorClass::Transient)
                .with_hint("IAM lists a free slot; a key that was deleted a moment ago may still count")
        }
        (Kind::LimitExceeded, _) => Is::new(Reason::LimitExceeded, ErrorClass::Limit),
        (Kind::MalformedPolicyDocument | Kind::InvalidInput, Some(effect))
            if let Some(name) = effect.written_document() =>
        {
            Is::new(Reason::MalformedPolicy, ErrorClass::Terminal)
                .with_hint(format!("Correct the document {name:?} in spec.policies.documents"))
        }
        (Kind::MalformedPolicyDocument, _) => Is::new(Reason::MalformedPolicy, ErrorClass::Terminal),
        (Kind::PolicyNotAttachable, Some(Effect::AttachPolicy(arn))) => {
            Is::new(Reason::InvalidSpec, ErrorClass::Terminal)
                .with_hint(format!("Remove {arn} from spec.policies.managed: AWS does not let it be attached to users"))
        }
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

/// The quota of access keys, as IAM names it.
const KEY_QUOTA: &str = "AccessKeysPerUser";

/// Whether IAM says that the user does not exist, and not what is attached to it.
fn names_user(message: &str) -> bool {
    message.contains("user with name ")
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::domain::backoff::{self, Backoff, DelayInput};

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
            (Kind::EntityAlreadyExists, Reason::NotOwned, Class::Transient, secs(5)),
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
            for effect in [None, Some(Effect::PutBoundary("b".to_owned()))] {
                if kind == Kind::NoSuchEntity && effect.is_some() {
                    continue;
                }
                let error = failed(kind, effect);
                assert_eq!((error.reason(), error.class()), (reason, class), "{kind:?}");
                assert_eq!(backoff::delay(error.class(), SignedDuration::ZERO, 0, slow), delay, "{kind:?}");
                assert!(error.to_string().contains("PutUserPolicy: said"), "operation and message of AWS: {error}");
            }
        }
    }

    fn answered(kind: AwsErrorKind, message: &str, effect: Effect) -> ReconcileError {
        let error = AwsError { operation: "X", kind, message: message.to_owned(), request_id: None };
        ReconcileError::of_effect(error, effect)
    }

    #[test]
    fn missing_user_is_not_reported_as_missing_policy() {
        let missing = "NoSuchEntity: The user with name deploy_x cannot be found.";
        for effect in [
            Effect::AttachPolicy("arn:aws:iam::aws:policy/A".to_owned()),
            Effect::AddToGroup("g".to_owned()),
            Effect::PutBoundary("b".to_owned()),
        ] {
            let error = answered(AwsErrorKind::NoSuchEntity, missing, effect);
            assert_eq!((error.reason(), error.class()), (Reason::Conflict, ErrorClass::Transient), "{error}");
        }
        let policy = "NoSuchEntity: Policy arn:aws:iam::aws:policy/A does not exist or is not attachable.";
        let effect = Effect::AttachPolicy("arn:aws:iam::aws:policy/A".to_owned());
        assert_eq!(answered(AwsErrorKind::NoSuchEntity, policy, effect).reason(), Reason::PolicyNotFound);
    }

    #[test]
    fn answers_from_before_a_deletion_are_retried_soon() {
        let create = Effect::CreateKey { known: Vec::new(), repairs: None };
        let quota = "LimitExceeded: Cannot exceed quota for AccessKeysPerUser: 2";
        for (kind, message, effect, class) in [
            (AwsErrorKind::LimitExceeded, quota, create.clone(), ErrorClass::Transient),
            (AwsErrorKind::LimitExceeded, "Cannot exceed quota for UsersPerAccount", create, ErrorClass::Limit),
            (AwsErrorKind::LimitExceeded, quota, Effect::CreateUser, ErrorClass::Limit),
            (AwsErrorKind::DeleteConflict, "must detach all policies first", Effect::DeleteUser, ErrorClass::Transient),
        ] {
            let error = answered(kind, message, effect);
            assert_eq!(error.class(), class, "{error}");
        }
    }

    /// The name is free again within a minute if its user was deleted a moment ago, and never if it differs in case.
    #[test]
    fn taken_name_is_tried_at_growing_delays() {
        let input = |now| DelayInput { now, permille: 0, slow_resync: SignedDuration::from_hours(1) };
        let taken =
            || answered(AwsErrorKind::EntityAlreadyExists, "User with name x already exists.", Effect::CreateUser);
        assert_eq!(taken().reason(), Reason::NotOwned);
        assert!(!taken().classify().transient, "it most likely waits for a person");
        let (mut now, mut backoff, mut delays) = (Timestamp::UNIX_EPOCH, Backoff::default(), Vec::new());
        for _ in 0..9 {
            backoff = backoff.after(&[taken().for_conditions(FailureScope::User)], &[], &input(now));
            let next = backoff.next_retry(&input(now)).unwrap();
            delays.push(next.duration_since(now).as_secs());
            now = next;
        }
        assert_eq!(delays, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        let owned = ReconcileError::NotOwned("another owner".to_owned());
        let backoff = Backoff::default().after(&[owned.for_conditions(FailureScope::User)], &[], &input(now));
        assert_eq!(backoff.next_retry(&input(now)), Some(now + SignedDuration::from_hours(1)), "the resync");
    }

    #[test]
    fn refused_policy_is_named_with_what_is_wrong() {
        let attach = Effect::AttachPolicy("arn:aws:iam::aws:policy/aws-service-role/A".to_owned());
        let error = answered(AwsErrorKind::PolicyNotAttachable, "said", attach);
        assert_eq!((error.reason(), error.class()), (Reason::InvalidSpec, ErrorClass::Terminal));
        assert!(error.to_string().contains("Remove arn:aws:iam::aws:policy/aws-service-role/A"), "{error}");
        let put = Effect::PutInlinePolicy("own".to_owned(), serde_json::json!({}));
        let error = answered(AwsErrorKind::InvalidInput, "printable ASCII", put);
        assert_eq!(error.reason(), Reason::MalformedPolicy);
        assert!(error.to_string().contains("\"own\" in spec.policies.documents"), "{error}");
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
                "\"own\" in spec.policies.documents",
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
