//! Which AWS account a resource belongs to, and how the operator gets there. Pure.

use super::authorize::ClassEntry;
use crate::api::{AwsDeployUser, AwsDeployUserClass, class::ClassAccount, user::AccountReference, well_known};

/// A role of another account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role {
    /// ARN of the IAM role.
    pub arn: String,
    /// The external id that its trust policy asks for.
    pub external_id: Option<String>,
}

/// The way into an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccountRoute {
    /// The account that AWS has to name before anything is read or written. `None`: whichever it is.
    pub account: Option<String>,
    /// The role to take; `None`: the operator's own credentials.
    pub role: Option<Role>,
    /// Who says so.
    pub source: RouteSource,
}

/// Who says how to get into an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteSource {
    /// The class of this name.
    Class(String),
    /// No class leads there any more; the class that allowed the resource last did.
    Recorded(String),
    /// Nobody.
    #[default]
    Unspecified,
}

impl AccountRoute {
    /// The way that a class prescribes.
    #[must_use]
    pub fn from_class(class: &AwsDeployUserClass) -> Self {
        let account = class.spec.account.as_ref();
        Self {
            account: account.map(|account| account.id.clone()),
            role: account.and_then(Role::from_class),
            source: RouteSource::Class(class.metadata.name.clone().unwrap_or_default()),
        }
    }

    /// What helps when the way is closed and no class can be corrected, because none leads there any more.
    #[must_use]
    pub fn recovery_hint(&self) -> Option<String> {
        let RouteSource::Recorded(class) = &self.source else { return None };
        let account = self.account.as_deref().unwrap_or_default();
        Some(format!(
            "class {class}, which led to AWS account {account}, is gone; a cluster admin can put it back, or make another one with account.id {account} and a role there (account.roleArn)"
        ))
    }

    /// What limits apply to together: one account that does not answer must not use up those of others.
    #[must_use]
    pub fn account_key(&self) -> &str {
        self.role.as_ref().and_then(|role| account_in_arn(&role.arn)).unwrap_or_default()
    }
}

impl Role {
    /// The role of a class; `None` without one.
    #[must_use]
    pub fn from_class(account: &ClassAccount) -> Option<Self> {
        Some(Self { arn: account.role_arn.clone()?, external_id: account.external_id.clone() })
    }

    /// The role that the status remembers.
    #[must_use]
    pub fn recorded(user: &AwsDeployUser) -> Option<Self> {
        let account = remembered(user)?;
        Some(Self { arn: account.role_arn.clone()?, external_id: account.external_id.clone() })
    }
}

/// The account in an ARN.
#[must_use]
pub fn account_in_arn(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// The account that the user of a resource is in, or may be: as its status says, else as was noted before it was made.
#[must_use]
pub fn current_account(user: &AwsDeployUser) -> Option<&str> {
    let reported =
        user.status.as_ref().and_then(|status| status.user.as_ref()).and_then(|user| account_in_arn(&user.arn));
    let noted = || user.metadata.annotations.as_ref()?.get(well_known::ANNOTATION_ACCOUNT).map(String::as_str);
    let finalizers = user.metadata.finalizers.iter().flatten();
    reported.or_else(|| if finalizers.into_iter().any(|one| one == well_known::FINALIZER) { noted() } else { None })
}

fn remembered(user: &AwsDeployUser) -> Option<&AccountReference> {
    user.status.as_ref()?.class.as_ref()?.account.as_ref()
}

/// Whether a class leads to where the user of the resource is. A user that exists is not moved.
#[must_use]
pub fn serves_account(class: &AwsDeployUserClass, user: &AwsDeployUser) -> bool {
    match (current_account(user), &class.spec.account) {
        (None, _) => true,
        (Some(there), Some(account)) => account.id == there,
        // The operator's own account, whichever that is: not where another role led.
        (Some(_), None) => Role::recorded(user).is_none(),
    }
}

/// The way to the user of a resource: by its own class if that leads there, else by any other class for the account, else
/// as the class that allowed it last did. That one may be gone, and what it has allowed must be taken back all the same.
#[must_use]
pub fn resolve_route(user: &AwsDeployUser, classes: &[&AwsDeployUserClass], known: &[ClassEntry<'_>]) -> AccountRoute {
    let there = current_account(user);
    let bound = |route: AccountRoute| AccountRoute { account: there.map(str::to_owned).or(route.account), ..route };
    if let Some(class) = classes.iter().find(|class| serves_account(class, user)) {
        return bound(AccountRoute::from_class(class));
    }
    let (Some(there), Some(role)) = (there, Role::recorded(user)) else { return bound(AccountRoute::default()) };
    let others = known.iter().filter_map(|known| known.class.ok());
    let for_account = |class: &&AwsDeployUserClass| {
        let account = class.spec.account.as_ref();
        account.is_some_and(|account| account.id == there && account.role_arn.is_some())
    };
    // Watches have no order, and every pass has to take the same way.
    match others.filter(for_account).min_by_key(|class| class.metadata.name.clone()) {
        Some(class) => bound(AccountRoute::from_class(class)),
        // Only a role of that very account, whatever the status says.
        None if account_in_arn(&role.arn) == Some(there) => {
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

/// What to tell when the way has led to another account than it should.
#[must_use]
pub fn wrong_account_message(route: &AccountRoute, user: &AwsDeployUser, found: &str) -> String {
    let wanted = route.account.as_deref().unwrap_or_default();
    let status = user.status.as_ref();
    let arn = status.and_then(|status| status.user.as_ref()).map(|user| user.arn.as_str());
    let why = match (&route.source, arn) {
        (RouteSource::Class(class), None) => format!("class {class} is for AWS account {wanted}"),
        (_, Some(arn)) => format!("the IAM user is {arn}"),
        (_, None) => format!("what there may be of this resource is in AWS account {wanted}"),
    };
    let (whose, help) = match (&route.role, &route.source) {
        (Some(role), _) => (
            format!("the credentials of {}", role.arn),
            format!("A cluster admin has to set account.roleArn of the class to a role of account {wanted}"),
        ),
        (None, RouteSource::Class(class)) => (
            "the operator's credentials".to_owned(),
            format!(
                "A cluster admin has to give the operator credentials of account {wanted}, or to set account of class {class} to {wanted} with a role there (account.roleArn)"
            ),
        ),
        (None, _) => {
            let last = status.and_then(|status| status.class.as_ref()).map(|class| class.name.as_str());
            let put_back = last.map_or_else(
                || "make a class".to_owned(),
                |last| format!("put class {last} back, or make another one"),
            );
            (
                "the operator's credentials".to_owned(),
                format!(
                    "No class leads to account {wanted} any more: a cluster admin has to {put_back}, with account.id {wanted} and a role there (account.roleArn), or give the operator credentials of that account"
                ),
            )
        }
    };
    format!("{why}, and {whose} are of account {found}; nothing is written to AWS. {help}")
}

/// The name of the sessions of roles: who acts, and from which cluster. Cut to what STS takes.
#[must_use]
pub fn session_name(cluster_id: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let name = format!("aws-deploy-user-operator@{cluster_id}");
    name.chars().map(|c| if fits(c) { c } else { '-' }).take(64).collect()
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

    /// A resource whose user is in `account` (empty: it has none), and what its status remembers of the class.
    fn user(there: &str, remembered: &Value) -> AwsDeployUser {
        let mut status = json!({"class": {"name": "last", "generation": 1, "onRevoked": "Freeze"}});
        if !there.is_empty() {
            status["user"] =
                json!({"name": "u", "arn": format!("arn:aws:iam::{there}:user/awsdeploy/u"), "id": "AIDA"});
        }
        if !remembered.is_null() {
            status["class"]["account"] = remembered.clone();
        }
        let metadata = json!({"name": "x", "namespace": "deploy", "finalizers": [well_known::FINALIZER]});
        serde_json::from_value(json!({"apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "metadata": metadata, "spec": {}, "status": status}))
            .unwrap()
    }

    fn told(route: &AccountRoute) -> (Option<&str>, Option<&str>, &RouteSource) {
        (route.account.as_deref(), route.role.as_ref().map(|role| role.arn.as_str()), &route.source)
    }

    fn known(classes: &[AwsDeployUserClass]) -> Vec<ClassEntry<'_>> {
        let known = |class| ClassEntry { name: "", is_default: false, class: Ok(class) };
        classes.iter().map(known).collect()
    }

    #[test]
    fn the_class_leads_unless_the_user_is_elsewhere() {
        let (a, b) = (class("a", &account("111111111111", "r")), class("b", &account("222222222222", "r")));
        let all = [a.clone(), b.clone(), class("a0", &account("111111111111", "q"))];
        let by = |name: &str| RouteSource::Class(name.to_owned());
        let memory = account("111111111111", "old");
        let (role_r, role_q) = ("arn:aws:iam::111111111111:role/r", "arn:aws:iam::111111111111:role/q");
        let fresh = resolve_route(&user("", &Value::Null), &[&a], &known(&all));
        assert_eq!(told(&fresh), (Some("111111111111"), Some(role_r), &by("a")));
        let home = user("111111111111", &memory);
        assert_eq!(told(&resolve_route(&home, &[&a], &known(&all))), (Some("111111111111"), Some(role_r), &by("a")));
        assert!(!serves_account(&b, &home));
        let other = resolve_route(&home, &[&b], &known(&all));
        assert_eq!(told(&other), (Some("111111111111"), Some(role_r), &by("a")), "the first by name for that account");
        let gone = resolve_route(&home, &[], &known(&all[1..]));
        assert_eq!(told(&gone), (Some("111111111111"), Some(role_q), &by("a0")));
        let lost = resolve_route(&home, &[], &[]);
        let by_memory = RouteSource::Recorded("last".to_owned());
        assert_eq!(told(&lost), (Some("111111111111"), Some("arn:aws:iam::111111111111:role/old"), &by_memory));
        assert_eq!(gone.recovery_hint(), None);
        assert!(lost.recovery_hint().unwrap().contains("class last, which led to AWS account 111111111111, is gone"));
    }

    #[test]
    fn a_status_leads_nowhere_but_to_the_account_of_the_user() {
        let lured = user("111111111111", &account("333333333333", "lure"));
        assert_eq!(told(&resolve_route(&lured, &[], &[])), (Some("111111111111"), None, &RouteSource::Unspecified));
    }

    #[test]
    fn the_operators_own_account_is_asked_with_its_own_credentials() {
        let own = class("own", &Value::Null);
        let home = user("111111111111", &Value::Null);
        let all = [class("a", &account("111111111111", "r"))];
        let by = RouteSource::Class("own".to_owned());
        assert_eq!(told(&resolve_route(&home, &[&own], &known(&all))), (Some("111111111111"), None, &by));
        assert_eq!(
            told(&resolve_route(&home, &[], &known(&all))),
            (Some("111111111111"), None, &RouteSource::Unspecified)
        );
        assert!(!serves_account(&own, &user("111111111111", &account("111111111111", "r"))), "no role is no way out");
        assert_eq!(told(&resolve_route(&user("", &Value::Null), &[&own], &[])), (None, None, &by));
    }

    #[test]
    fn what_was_noted_before_the_user_was_made_counts_while_the_finalizer_is_there() {
        let mut begun = user("", &account("111111111111", "r"));
        begun.metadata.annotations =
            Some([(well_known::ANNOTATION_ACCOUNT.to_owned(), "111111111111".to_owned())].into());
        assert_eq!(current_account(&begun), Some("111111111111"));
        assert_eq!(
            resolve_route(&begun, &[], &[]).role.map(|role| role.arn),
            Some("arn:aws:iam::111111111111:role/r".into())
        );
        begun.metadata.finalizers = None;
        assert_eq!(current_account(&begun), None, "nothing was begun");
    }

    #[test]
    fn who_went_astray_is_told_who_can_mend_it() {
        let home = user("111111111111", &Value::Null);
        let told = wrong_account_message(&resolve_route(&home, &[], &[]), &home, "999999999999");
        for part in [
            "arn:aws:iam::111111111111:user/awsdeploy/u",
            "999999999999",
            "put class last back",
            "account.id 111111111111",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let fresh = user("", &Value::Null);
        let pinned = class("pinned", &json!({"id": "111111111111"}));
        let told = wrong_account_message(&resolve_route(&fresh, &[&pinned], &[]), &fresh, "999999999999");
        assert!(told.contains("class pinned is for AWS account 111111111111") && told.contains("roleArn"), "{told}");
    }

    #[test]
    fn a_session_is_named_after_operator_and_cluster() {
        let name = session_name("3f0c7a52-5f0e-4a57-8a44-0a0f2f2d9c11");
        assert_eq!(name, "aws-deploy-user-operator@3f0c7a52-5f0e-4a57-8a44-0a0f2f2d9c11");
        assert_eq!(session_name("prod/eu #1"), "aws-deploy-user-operator@prod-eu--1");
        assert_eq!(session_name(&"x".repeat(100)).len(), 64);
    }
}
