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
        user::ClassReference,
    },
    domain::{
        account::{self, AccountRoute},
        authorize::{self, Authorization, ClassAbsence, ClassEntry, ClassSelection, NamespaceContext, Revocation},
        current_state::IamUser,
        desired::Violation,
        managed_policy::CurrentPolicies,
        target::Target,
    },
};

/// What the classes decide about a resource, and what that was decided from.
pub(super) struct ClassDecision {
    /// Names of the resource, by the template of its class.
    pub(super) target: Target,
    pub(super) decision: Decision,
    /// How to reach the account of the resource.
    pub(super) route: AccountRoute,
    /// The class allows the resource but serves another account than that of its user.
    pub(super) account_mismatch: Option<String>,
    /// Changes when the decision may; the same for all resources of a class.
    pub(super) digest: u64,
    /// The quota of the class is used up by resources that were created earlier.
    pub(super) over_quota: bool,
    /// Another object may allow the resource without an edit of it: a class that does not exist, or the end of a resource that
    /// uses up the quota.
    pub(super) awaits_others: bool,
    labels: BTreeMap<String, String>,
    /// The class that allowed the resource last does not exist.
    class_is_missing: bool,
    /// The class that allowed the resource last, else the one that it names.
    governing_class: Option<AwsDeployUserClass>,
}

/// The decision of a class.
pub(super) enum Decision {
    Allowed(Box<Authorization>),
    Denied(Vec<Violation>),
    /// A class exists that this operator cannot read, or the labels of the namespace are not known yet.
    Unreadable(String),
}

/// Decides by the watched classes.
pub(super) fn decide(user: &AwsDeployUser, target: Target, context: &Context) -> ClassDecision {
    let classes = context.rules.classes();
    let known = classes.entries();
    let watched_labels = context.rules.namespace_labels(&target.owner.namespace);
    let namespace_is_unknown = watched_labels.is_none();
    let labels = watched_labels.unwrap_or_default();
    let choice = authorize::select_class(authorize::requested_class(user), &known);
    let class = if let ClassSelection::Selected(class) = &choice { Some(*class) } else { None };
    let is_class_absent = matches!(choice, ClassSelection::Refused(_));
    let target = target.with_user_name(user, class.map(|class| class.spec.users.name_template.as_str()));
    let preceding = class.map_or(0, |class| preceding_users(user, class, &known, &target, context));
    let decision = match choice {
        ClassSelection::Selected(class) => {
            let namespace =
                NamespaceContext { namespace: &target.owner.namespace, labels: &labels, preceding_users: preceding };
            match authorize::authorize(user, &target, class, namespace) {
                Ok(authorization) => Decision::Allowed(Box::new(authorization)),
                Err(violations) => Decision::Denied(violations),
            }
        }
        ClassSelection::Refused(violation) => Decision::Denied(vec![violation]),
        // The class that allowed the resource last decides. Naming another one that cannot be read hides it no more than naming
        // one that does not exist.
        ClassSelection::Unreadable(message) if names_another_class(user) => {
            Decision::Denied(vec![Violation { field: "className", message }])
        }
        ClassSelection::Unreadable(why) => Decision::Unreadable(why),
    };
    let selects_by_name = class
        .is_some_and(|class| !authorize::namespace::depends_on_labels(&class.spec.namespaces, &target.owner.namespace));
    let is_allowed_by_name = selects_by_name && matches!(decision, Decision::Allowed(_));
    let decision = if namespace_is_unknown && !is_allowed_by_name {
        // Namespaces have a watch of their own. Its first list reconciles all resources again.
        Decision::Unreadable(format!("namespace {} is not known to this operator yet", target.owner.namespace))
    } else {
        decision
    };
    let (governing_class, decision) = match governing_class(user, class, &known) {
        Ok(governing_class) => (governing_class, decision),
        Err(why) => (None, Decision::Unreadable(why)),
    };
    let allowed = class.filter(|_| matches!(decision, Decision::Allowed(_)));
    let account_mismatch =
        allowed.filter(|class| !account::serves_account(class, user)).map(|class| account_mismatch(class, user));
    let route = match allowed.filter(|_| account_mismatch.is_none()) {
        Some(class) => account::resolve_route(user, &[class], &known),
        // A denied resource is revoked in the account that it was allowed to be in.
        None => account::resolve_route(user, &governing_class.iter().chain(class).collect::<Vec<_>>(), &known),
    };
    let mut hasher = DefaultHasher::new();
    (&route, &account_mismatch, context.account_health.recoveries(route.role.as_ref())).hash(&mut hasher);
    class.map(|class| (&class.metadata.uid, class.metadata.generation)).hash(&mut hasher);
    match &decision {
        Decision::Allowed(_) => 0.hash(&mut hasher),
        Decision::Denied(violations) => violations.iter().for_each(|violation| violation.message.hash(&mut hasher)),
        Decision::Unreadable(why) => why.hash(&mut hasher),
    }
    governing_class.as_ref().map(|class| (&class.metadata.uid, class.metadata.generation)).hash(&mut hasher);
    labels.hash(&mut hasher);
    ClassDecision {
        target,
        decision,
        route,
        account_mismatch,
        digest: hasher.finish(),
        over_quota: preceding > 0,
        awaits_others: is_class_absent || class.is_some_and(|class| fills_quota(class, preceding)),
        labels,
        class_is_missing: recorded_class(user).is_some_and(|class| known.iter().all(|known| known.name != class.name)),
        governing_class,
    }
}

impl ClassDecision {
    /// Whether the class still allows what the status records. Otherwise there may be something to revoke.
    pub(super) fn is_as_recorded(&self, user: &AwsDeployUser) -> bool {
        let recorded = recorded_class(user);
        self.account_mismatch.is_none()
            && matches!(&self.decision, Decision::Allowed(authorization) if Some(&authorization.class) == recorded)
    }

    /// The class that allows the resource in the account of its user.
    pub(super) fn allowing_class(&self) -> Option<&ClassReference> {
        match &self.decision {
            Decision::Allowed(authorization) if self.account_mismatch.is_none() => Some(&authorization.class),
            Decision::Allowed(_) | Decision::Denied(_) | Decision::Unreadable(_) => None,
        }
    }

    /// `onRevoked` of the governing class.
    pub(super) fn on_revoked(&self) -> Option<OnRevoked> {
        self.governing_class.as_ref().map(|class| class.spec.on_revoked)
    }

    /// `onQuarantine` of the governing class, or as the status recorded it.
    pub(super) fn on_quarantine(&self, user: &AwsDeployUser) -> OnQuarantine {
        let recorded = || Some(user.status.as_ref()?.class.as_ref()?.on_quarantine);
        self.governing_class.as_ref().map(|class| class.spec.on_quarantine).or_else(recorded).unwrap_or_default()
    }

    /// What a denied resource loses. `absence`: of the class that allowed it last.
    pub(super) fn revocation(
        &self,
        user: &AwsDeployUser,
        absence: Option<ClassAbsence>,
        found: (&IamUser, &CurrentPolicies),
    ) -> Revocation {
        let namespace =
            NamespaceContext { namespace: &self.target.owner.namespace, labels: &self.labels, preceding_users: 0 };
        authorize::decide_revocation(self.governing_class.as_ref(), absence, has_begun(user), found, namespace)
    }

    /// The class that allowed the resource last, if it does not exist, whatever the class says that the resource names now.
    pub(super) fn missing_class<'a>(&self, user: &'a AwsDeployUser) -> Option<&'a ClassReference> {
        recorded_class(user).filter(|_| self.class_is_missing)
    }
}

/// Whether a revocation of the resource has begun.
pub(super) fn has_begun(user: &AwsDeployUser) -> bool {
    user.status.as_ref().is_some_and(|status| status.revocation.is_some())
}

/// The class that allowed the resource last.
fn recorded_class(user: &AwsDeployUser) -> Option<&ClassReference> {
    user.status.as_ref()?.class.as_ref()
}

fn names_another_class(user: &AwsDeployUser) -> bool {
    recorded_class(user).is_some_and(|recorded| authorize::requested_class(user) != Some(&recorded.name))
}

/// Existing users are not moved, nor are those that may exist.
fn account_mismatch(class: &AwsDeployUserClass, user: &AwsDeployUser) -> String {
    let account = class.spec.account.as_ref();
    format!(
        "spec.className: class {} is for AWS account {}, and the IAM user of this resource is in account {}: existing users are not moved; create another resource for that class",
        class.metadata.name.as_deref().unwrap_or_default(),
        account.map_or("of the operator's own credentials", |account| account.id.as_str()),
        account::current_account(user).unwrap_or_default(),
    )
}

/// The class that decides what the user of a denied resource may keep: the one that allowed it last. A tenant cannot choose it
/// by naming another one.
fn governing_class(
    user: &AwsDeployUser,
    named: Option<&AwsDeployUserClass>,
    known: &[ClassEntry<'_>],
) -> Result<Option<AwsDeployUserClass>, String> {
    let Some(recorded) = recorded_class(user)
        .filter(|recorded| named.is_none_or(|class| class.metadata.name.as_ref() != Some(&recorded.name)))
    else {
        return Ok(named.cloned());
    };
    // A class that cannot be read still exists.
    match known.iter().find(|known| known.name == recorded.name).map(|known| known.class) {
        None => Ok(None),
        Some(Ok(class)) => Ok(Some(class.clone())),
        Some(Err(why)) => Err(format!("AwsDeployUserClass {} cannot be read by this operator: {why}", recorded.name)),
    }
}

/// The number of resources of the class and namespace that precede this one. Counted only where there is a quota, and for
/// resources that it does not count yet.
fn preceding_users(
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

fn fills_quota(class: &AwsDeployUserClass, preceding: usize) -> bool {
    let max = class.spec.users.max_per_namespace.and_then(|max| usize::try_from(max).ok());
    max.is_some_and(|max| preceding >= max)
}

/// The name of the class of a resource, whether or not there is such a class.
pub(super) fn class_name<'a>(user: &'a AwsDeployUser, known: &[ClassEntry<'a>]) -> Option<&'a str> {
    authorize::requested_class(user).or_else(|| known.iter().find(|known| known.is_default).map(|known| known.name))
}
