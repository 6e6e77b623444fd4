//! What the classes of the cluster say to a resource. From what is watched: no call, and no await.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::Context;
use crate::{
    api::{
        AwsDeployUser, AwsDeployUserClass,
        class::{OnQuarantine, OnRevoked},
    },
    domain::{
        account::{self, AccountRoute},
        authorize::{self, Authorization, ClassEntry, ClassSelection, NamespaceContext, Revocation},
        current_state::IamUser,
        desired::Violation,
        target::Target,
    },
};

/// The verdict on a resource, and what it was made from.
pub(super) struct ClassDecision {
    /// Names of the resource, as its class has them.
    pub(super) target: Target,
    pub(super) verdict: Verdict,
    /// The way to the account of the resource.
    pub(super) route: AccountRoute,
    /// The class allows it, and is not for the account that the user is in.
    pub(super) elsewhere: Option<String>,
    /// Changes when the verdict may. Two resources of one class differ in nothing that is in here.
    pub(super) digest: u64,
    /// The class has a limit of users, and others come first.
    pub(super) waits_for_room: bool,
    labels: BTreeMap<String, String>,
    /// The class that allowed the resource last, or the one that it names.
    answerable: Option<AwsDeployUserClass>,
}

/// What a class says.
pub(super) enum Verdict {
    Allowed(Box<Authorization>),
    Refused(Vec<Violation>),
    /// There is a class, and this operator cannot read it, or not tell yet whether it serves the namespace.
    Unreadable(String),
}

/// Asks the classes.
pub(super) fn rule(user: &AwsDeployUser, target: Target, context: &Context) -> ClassDecision {
    let classes = context.rules.classes();
    let known = classes.known();
    let seen = context.rules.namespace_labels(&target.owner.namespace);
    let unseen = seen.is_none();
    let labels = seen.unwrap_or_default();
    let choice = authorize::select_class(authorize::requested_class(user), &known);
    let class = if let ClassSelection::Selected(class) = &choice { Some(*class) } else { None };
    let target = target.with_user_name(user, class.map(|class| class.spec.users.name_template.as_str()));
    let before = class.map_or(0, |class| before(user, class, &known, &target, context));
    let verdict = match choice {
        ClassSelection::Selected(class) => {
            let facts =
                NamespaceContext { namespace: &target.owner.namespace, labels: &labels, preceding_users: before };
            match authorize::authorize(user, &target, class, facts) {
                Ok(authorization) => Verdict::Allowed(Box::new(authorization)),
                Err(violations) => Verdict::Refused(violations),
            }
        }
        ClassSelection::Refused(violation) => Verdict::Refused(vec![violation]),
        ClassSelection::Unreadable(why) => Verdict::Unreadable(why),
    };
    let by_name = class
        .is_some_and(|class| !authorize::namespace::depends_on_labels(&class.spec.namespaces, &target.owner.namespace));
    let allowed_by_name = by_name && matches!(verdict, Verdict::Allowed(_));
    let verdict = if unseen && !allowed_by_name {
        // The watch of namespaces is another one than that of resources. It tells soon, and then all are looked at again.
        Verdict::Unreadable(format!("namespace {} is not known to this operator yet", target.owner.namespace))
    } else {
        verdict
    };
    let (answerable, verdict) = match answerable(user, class, &known) {
        Ok(answerable) => (answerable, verdict),
        Err(why) => (None, Verdict::Unreadable(why)),
    };
    let allowed = class.filter(|_| matches!(verdict, Verdict::Allowed(_)));
    let elsewhere = allowed.filter(|class| !account::serves_account(class, user)).map(|class| elsewhere(class, user));
    let route = match allowed.filter(|_| elsewhere.is_none()) {
        Some(class) => account::resolve_route(user, &[class], &known),
        // A refused resource is looked after in the account that it was allowed to be in.
        None => account::resolve_route(user, &answerable.iter().chain(class).collect::<Vec<_>>(), &known),
    };
    let mut hasher = DefaultHasher::new();
    (&route, &elsewhere, context.account_health.recoveries(route.role.as_ref())).hash(&mut hasher);
    class.map(|class| (&class.metadata.uid, class.metadata.generation)).hash(&mut hasher);
    match &verdict {
        Verdict::Allowed(_) => 0.hash(&mut hasher),
        Verdict::Refused(violations) => violations.iter().for_each(|violation| violation.message.hash(&mut hasher)),
        Verdict::Unreadable(why) => why.hash(&mut hasher),
    }
    answerable.as_ref().map(|class| (&class.metadata.uid, class.metadata.generation)).hash(&mut hasher);
    labels.hash(&mut hasher);
    ClassDecision {
        target,
        verdict,
        route,
        elsewhere,
        digest: hasher.finish(),
        waits_for_room: before > 0,
        labels,
        answerable,
    }
}

impl ClassDecision {
    /// Whether the class says what it said when the status was written. Else there may be something to revoke.
    pub(super) fn is_as_recorded(&self, user: &AwsDeployUser) -> bool {
        let recorded = user.status.as_ref().and_then(|status| status.class.as_ref());
        self.elsewhere.is_none()
            && matches!(&self.verdict, Verdict::Allowed(authorization) if Some(&authorization.class) == recorded)
    }

    /// What the class that is asked about the user says of revocations.
    pub(super) fn on_revoked(&self) -> Option<OnRevoked> {
        self.answerable.as_ref().map(|class| class.spec.on_revoked)
    }

    /// What the class that is asked about the user says of quarantines, or said when it was there.
    pub(super) fn on_quarantine(&self, user: &AwsDeployUser) -> OnQuarantine {
        let recorded = || Some(user.status.as_ref()?.class.as_ref()?.on_quarantine);
        self.answerable.as_ref().map(|class| class.spec.on_quarantine).or_else(recorded).unwrap_or_default()
    }

    /// What is done to the user of a resource that is not allowed.
    pub(super) fn revocation(&self, user: &AwsDeployUser, found: &IamUser) -> Revocation {
        let status = user.status.as_ref();
        let recorded = status.and_then(|status| status.class.as_ref()).map(|class| class.on_revoked);
        let begun = status.is_some_and(|status| status.revocation.is_some());
        let facts =
            NamespaceContext { namespace: &self.target.owner.namespace, labels: &self.labels, preceding_users: 0 };
        authorize::decide_revocation(self.answerable.as_ref(), recorded, begun, found, facts)
    }
}

/// A user that exists is not moved, and neither is one that may exist.
fn elsewhere(class: &AwsDeployUserClass, user: &AwsDeployUser) -> String {
    let account = class.spec.account.as_ref();
    format!(
        "spec.className: class {} is for AWS account {}, and the IAM user of this resource is in account {}: a user that exists is not moved; make another resource for that class",
        class.metadata.name.as_deref().unwrap_or_default(),
        account.map_or("of the operator's own credentials", |account| account.id.as_str()),
        account::current_account(user).unwrap_or_default(),
    )
}

/// The class by which it is decided what the user of a refused resource may keep: the one that allowed it last. Naming
/// another one is no way out, and no way in.
fn answerable(
    user: &AwsDeployUser,
    named: Option<&AwsDeployUserClass>,
    known: &[ClassEntry<'_>],
) -> Result<Option<AwsDeployUserClass>, String> {
    let recorded = user.status.as_ref().and_then(|status| status.class.as_ref());
    let Some(recorded) =
        recorded.filter(|recorded| named.is_none_or(|class| class.metadata.name.as_ref() != Some(&recorded.name)))
    else {
        return Ok(named.cloned());
    };
    // One that cannot be read is not gone.
    match known.iter().find(|known| known.name == recorded.name).map(|known| known.class) {
        None => Ok(None),
        Some(Ok(class)) => Ok(Some(class.clone())),
        Some(Err(why)) => Err(format!("AwsDeployUserClass {} cannot be read by this operator: {why}", recorded.name)),
    }
}

/// Resources of the class in the namespace that come before this one. Counted only where there is a limit, and only for
/// a resource that has no place in it yet.
fn before(
    user: &AwsDeployUser,
    class: &AwsDeployUserClass,
    known: &[ClassEntry<'_>],
    target: &Target,
    context: &Context,
) -> usize {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    if class.spec.users.max_per_namespace.is_none() || authorize::is_admitted(user, name) {
        return 0;
    }
    context.resources.count(|other| {
        other.metadata.namespace.as_deref() == Some(&target.owner.namespace)
            && class_name(other, known) == Some(name)
            && authorize::precedes(other, user, name)
    })
}

/// The name of the class of a resource, whether or not there is such a class.
pub(super) fn class_name<'a>(user: &'a AwsDeployUser, known: &[ClassEntry<'a>]) -> Option<&'a str> {
    authorize::requested_class(user).or_else(|| known.iter().find(|known| known.is_default).map(|known| known.name))
}
