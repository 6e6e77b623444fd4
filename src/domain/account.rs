//! Which AWS account a resource belongs to, and with which credentials the operator reaches it.

use super::authorize::ClassEntry;
use crate::api::{
    AwsDeployUser, AwsDeployUserClass,
    class::ClassAccount,
    user::{AccountReference, UserStatus},
};

/// IAM role that the operator assumes in another account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role {
    pub arn: String,
    /// External id that its trust policy requires.
    pub external_id: Option<String>,
}

/// How the operator reaches an AWS account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccountRoute {
    /// Id that STS must return before anything is read or written. `None`: any account.
    pub account: Option<String>,
    /// Role to assume. `None`: the operator's own credentials.
    pub role: Option<Role>,
    pub source: RouteSource,
}

/// Where an [`AccountRoute`] comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteSource {
    /// Class of this name.
    Class(String),
    /// No class serves the account any more; the status recorded the route of the class of this name.
    Recorded(String),
    /// Neither a class nor the status names a route.
    #[default]
    Unspecified,
}

impl AccountRoute {
    #[must_use]
    pub fn from_class(class: &AwsDeployUserClass) -> Self {
        let account = class.spec.account.as_ref();
        Self {
            account: account.map(|account| account.id.clone()),
            role: account.and_then(Role::from_class),
            source: RouteSource::Class(class.metadata.name.clone().unwrap_or_default()),
        }
    }

    /// What a cluster admin can do when the account is not reachable and no class serves it any more.
    #[must_use]
    pub fn recovery_hint(&self) -> Option<String> {
        let RouteSource::Recorded(class) = &self.source else { return None };
        let account = self.account.as_deref().unwrap_or_default();
        Some(format!(
            "class {class}, which served AWS account {account}, was deleted; a cluster admin can restore it, or create another class with account.id {account} and a role of that account (account.roleArn)"
        ))
    }

    /// Key for limits per account: an unresponsive account must not use up the limits of others.
    #[must_use]
    pub fn account_key(&self) -> &str {
        self.role.as_ref().and_then(|role| account_in_arn(&role.arn)).unwrap_or_default()
    }
}

impl Role {
    #[must_use]
    pub fn from_class(account: &ClassAccount) -> Option<Self> {
        Some(Self { arn: account.role_arn.clone()?, external_id: account.external_id.clone() })
    }

    /// Role that the status recorded.
    #[must_use]
    pub fn recorded(user: &AwsDeployUser) -> Option<Self> {
        let account = recorded_account(user)?;
        Some(Self { arn: account.role_arn.clone()?, external_id: account.external_id.clone() })
    }
}

/// Account id in an ARN.
#[must_use]
pub fn account_in_arn(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// The IAM user that a resource is bound to. Only the status counts: tenants can write everything else.
#[must_use]
pub fn recorded_user(user: &AwsDeployUser) -> Option<&UserStatus> {
    user.status.as_ref()?.user.as_ref()
}

/// Account that the IAM user of a resource is in, or is about to be created in.
#[must_use]
pub fn current_account(user: &AwsDeployUser) -> Option<&str> {
    recorded_user(user).map(|user| user.account.as_str())
}

fn recorded_account(user: &AwsDeployUser) -> Option<&AccountReference> {
    user.status.as_ref()?.class.as_ref()?.account.as_ref()
}

/// Whether a class serves the account of the resource's IAM user. An existing user is not moved.
#[must_use]
pub fn serves_account(class: &AwsDeployUserClass, user: &AwsDeployUser) -> bool {
    match (current_account(user), &class.spec.account) {
        (None, _) => true,
        (Some(current), Some(account)) => account.id == current,
        // The class uses the operator's own account, which is not the account of a recorded role.
        (Some(_), None) => Role::recorded(user).is_none(),
    }
}

/// Route to the IAM user of a resource: from its own classes, else from any class for the account, else from the status,
/// so that access can be revoked after the class was deleted.
#[must_use]
pub fn resolve_route(
    user: &AwsDeployUser,
    classes: &[&AwsDeployUserClass],
    entries: &[ClassEntry<'_>],
) -> AccountRoute {
    let current = current_account(user);
    let bound = |route: AccountRoute| AccountRoute { account: current.map(str::to_owned).or(route.account), ..route };
    if let Some(class) = classes.iter().find(|class| serves_account(class, user)) {
        return bound(AccountRoute::from_class(class));
    }
    let (Some(current), Some(role)) = (current, Role::recorded(user)) else { return bound(AccountRoute::default()) };
    let others = entries.iter().filter_map(|entry| entry.class.ok());
    let for_account = |class: &&AwsDeployUserClass| {
        let account = class.spec.account.as_ref();
        account.is_some_and(|account| account.id == current && account.role_arn.is_some())
    };
    // Watches have no order, and every reconcile must resolve the same route.
    match others.filter(for_account).min_by_key(|class| class.metadata.name.clone()) {
        Some(class) => bound(AccountRoute::from_class(class)),
        // The status is not authoritative: accept only a role of the same account.
        None if account_in_arn(&role.arn) == Some(current) => {
            let name = user.status.as_ref().and_then(|status| status.class.as_ref()).map(|class| class.name.clone());
            bound(AccountRoute {
                role: Some(role),
                source: RouteSource::Recorded(name.unwrap_or_default()),
                account: None,
            })
        }
        None => bound(AccountRoute::default()),
    }
}

/// Message for credentials that belong to another account (`found`) than the route requires.
#[must_use]
pub fn wrong_account_message(route: &AccountRoute, user: &AwsDeployUser, found: &str) -> String {
    let expected = route.account.as_deref().unwrap_or_default();
    let status = user.status.as_ref();
    let arn = recorded_user(user).and_then(|user| user.arn.as_deref());
    let why = match (&route.source, arn) {
        (RouteSource::Class(class), None) => format!("class {class} is for AWS account {expected}"),
        (_, Some(arn)) => format!("the IAM user is {arn}"),
        (_, None) => format!("this resource belongs to AWS account {expected}"),
    };
    let (whose, help) = match (&route.role, &route.source) {
        (Some(role), _) => (
            format!("the credentials of {}", role.arn),
            format!("A cluster admin has to set account.roleArn of the class to a role of account {expected}"),
        ),
        (None, RouteSource::Class(class)) => (
            "the operator's credentials".to_owned(),
            format!(
                "A cluster admin has to give the operator credentials of account {expected}, or set account.id of class {class} to {expected} and account.roleArn to a role of that account"
            ),
        ),
        (None, _) => {
            let last = status.and_then(|status| status.class.as_ref()).map(|class| class.name.as_str());
            let restore = last.map_or_else(
                || "create a class".to_owned(),
                |last| format!("restore class {last} or create another class"),
            );
            (
                "the operator's credentials".to_owned(),
                format!(
                    "No class serves account {expected}: a cluster admin has to {restore} with account.id {expected} and a role of that account (account.roleArn), or give the operator credentials of that account"
                ),
            )
        }
    };
    format!("{why}, but {whose} belong to account {found}; nothing is written to AWS. {help}")
}

/// Session name for `sts:AssumeRole`: operator and cluster, limited to the characters and the length that STS accepts.
#[must_use]
pub fn session_name(cluster_id: &str) -> String {
    const MAX_SESSION_NAME_CHARACTERS: usize = 64;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let name = format!("aws-deploy-user-operator@{cluster_id}");
    name.chars().map(|c| if is_allowed(c) { c } else { '-' }).take(MAX_SESSION_NAME_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(name: &str, account: &Value) -> AwsDeployUserClass {
        let mut class = json!({"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass", "metadata": {"name": name}, "spec": {}});
        if !account.is_null() {
            class["spec"]["account"] = account.clone();
        }
        serde_json::from_value(class).unwrap()
    }

    fn account(id: &str, role: &str) -> Value {
        json!({"id": id, "roleArn": format!("arn:aws:iam::{id}:role/{role}")})
    }

    /// A resource whose IAM user is in `current` (empty: it has none), with the account of the class in its status.
    fn user(current: &str, recorded: &Value) -> AwsDeployUser {
        let mut status = json!({"class": {"name": "last", "generation": 1, "onRevoked": "Freeze"}});
        if !current.is_empty() {
            let arn = format!("arn:aws:iam::{current}:user/awsdeploy/u");
            status["user"] = json!({"name": "u", "account": current, "arn": arn, "id": "AIDA"});
        }
        if !recorded.is_null() {
            status["class"]["account"] = recorded.clone();
        }
        let metadata = json!({"name": "x", "namespace": "deploy", "finalizers": ["awsdeploy.dev/iam-user"]});
        serde_json::from_value(json!({"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "metadata": metadata, "spec": {}, "status": status}))
            .unwrap()
    }

    fn parts(route: &AccountRoute) -> (Option<&str>, Option<&str>, &RouteSource) {
        (route.account.as_deref(), route.role.as_ref().map(|role| role.arn.as_str()), &route.source)
    }

    fn entries(classes: &[AwsDeployUserClass]) -> Vec<ClassEntry<'_>> {
        let entry = |class| ClassEntry { name: "", is_default: false, class: Ok(class) };
        classes.iter().map(entry).collect()
    }

    #[test]
    fn route_follows_the_class_unless_the_user_is_elsewhere() {
        let (a, b) = (class("a", &account("111111111111", "r")), class("b", &account("222222222222", "r")));
        let all = [a.clone(), b.clone(), class("a0", &account("111111111111", "q"))];
        let by = |name: &str| RouteSource::Class(name.to_owned());
        let recorded_account = account("111111111111", "old");
        let (role_r, role_q) = ("arn:aws:iam::111111111111:role/r", "arn:aws:iam::111111111111:role/q");
        let fresh = resolve_route(&user("", &Value::Null), &[&a], &entries(&all));
        assert_eq!(parts(&fresh), (Some("111111111111"), Some(role_r), &by("a")));
        let home = user("111111111111", &recorded_account);
        assert_eq!(parts(&resolve_route(&home, &[&a], &entries(&all))), (Some("111111111111"), Some(role_r), &by("a")));
        assert!(!serves_account(&b, &home));
        let other = resolve_route(&home, &[&b], &entries(&all));
        assert_eq!(parts(&other), (Some("111111111111"), Some(role_r), &by("a")), "the first by name for that account");
        let gone = resolve_route(&home, &[], &entries(&all[1..]));
        assert_eq!(parts(&gone), (Some("111111111111"), Some(role_q), &by("a0")));
        let lost = resolve_route(&home, &[], &[]);
        let recorded = RouteSource::Recorded("last".to_owned());
        assert_eq!(parts(&lost), (Some("111111111111"), Some("arn:aws:iam::111111111111:role/old"), &recorded));
        assert_eq!(gone.recovery_hint(), None);
        assert!(
            lost.recovery_hint().unwrap().contains("class last, which served AWS account 111111111111, was deleted")
        );
    }

    #[test]
    fn recorded_role_of_another_account_is_ignored() {
        let lured = user("111111111111", &account("333333333333", "lure"));
        assert_eq!(parts(&resolve_route(&lured, &[], &[])), (Some("111111111111"), None, &RouteSource::Unspecified));
    }

    #[test]
    fn own_account_is_reached_with_own_credentials() {
        let own = class("own", &Value::Null);
        let home = user("111111111111", &Value::Null);
        let all = [class("a", &account("111111111111", "r"))];
        let by = RouteSource::Class("own".to_owned());
        assert_eq!(parts(&resolve_route(&home, &[&own], &entries(&all))), (Some("111111111111"), None, &by));
        assert_eq!(
            parts(&resolve_route(&home, &[], &entries(&all))),
            (Some("111111111111"), None, &RouteSource::Unspecified)
        );
        assert!(!serves_account(&own, &user("111111111111", &account("111111111111", "r"))), "no role is no way out");
        assert_eq!(parts(&resolve_route(&user("", &Value::Null), &[&own], &[])), (None, None, &by));
    }

    #[test]
    fn only_the_status_names_the_account() {
        let mut begun = user("", &account("111111111111", "r"));
        begun.metadata.annotations = Some([("awsdeploy.dev/account".to_owned(), "111111111111".to_owned())].into());
        assert_eq!(current_account(&begun), None, "a tenant can write annotations and finalizers");
        assert_eq!(parts(&resolve_route(&begun, &[], &[])), (None, None, &RouteSource::Unspecified));
        // Recorded before the user is created: the account is known without an ARN.
        let recorded = json!({"name": "u", "account": "111111111111"});
        begun.status.as_mut().unwrap().user = serde_json::from_value(recorded).unwrap();
        assert_eq!(current_account(&begun), Some("111111111111"));
        assert_eq!(
            resolve_route(&begun, &[], &[]).role.map(|role| role.arn),
            Some("arn:aws:iam::111111111111:role/r".into())
        );
    }

    #[test]
    fn wrong_account_message_names_the_remedy() {
        let home = user("111111111111", &Value::Null);
        let message = wrong_account_message(&resolve_route(&home, &[], &[]), &home, "999999999999");
        for part in [
            "arn:aws:iam::111111111111:user/awsdeploy/u",
            "999999999999",
            "restore class last",
            "account.id 111111111111",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let fresh = user("", &Value::Null);
        let pinned = class("pinned", &json!({"id": "111111111111"}));
        let message = wrong_account_message(&resolve_route(&fresh, &[&pinned], &[]), &fresh, "999999999999");
        assert!(
            message.contains("class pinned is for AWS account 111111111111") && message.contains("roleArn"),
            "{message}"
        );
    }

    #[test]
    fn session_name_contains_operator_and_cluster() {
        let name = session_name("3f0c7a52-5f0e-4a57-8a44-0a0f2f2d9c11");
        assert_eq!(name, "aws-deploy-user-operator@3f0c7a52-5f0e-4a57-8a44-0a0f2f2d9c11");
        assert_eq!(session_name("prod/eu #1"), "aws-deploy-user-operator@prod-eu--1");
        assert_eq!(session_name(&"x".repeat(100)).len(), 64);
    }
}
