//! What the operator of a stage may do in AWS: an AWS admin follows the classes of the test with the IAM policy that
//! the operator prints for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use awsdeploy::{
    api::class::AwsDeployUserClassSpec,
    domain::{
        account::{Role, account_of},
        operator_policy::{Home, Scope, operator_policy},
        role_policy::assume_policy,
    },
};
use awsdeploy_testkit::aws_proxy::{Guard, StrictAws};
use serde_json::Value;

/// What the operator may do in AWS: the IAM policy that it prints for the classes of the test.
pub(super) struct Rights {
    pub(super) guard: Arc<Guard>,
    home: Home,
    /// By class: what it needs, and in which role.
    scopes: Mutex<BTreeMap<String, (Option<Role>, Scope)>>,
}

impl Rights {
    pub(super) fn new(aws: &StrictAws) -> Self {
        let home = Home { partition: "aws".to_owned(), account: aws.account().id().to_owned() };
        Self { guard: aws.guard(), home, scopes: Mutex::default() }
    }

    /// An AWS admin grants what a class needs, and no longer what it needed before.
    pub(super) fn grant(&self, class: &str, spec: &Value) {
        let Ok(spec) = serde_json::from_value::<AwsDeployUserClassSpec>(spec.clone()) else { return };
        let mut scopes = self.scopes.lock().expect("no test panics with the lock");
        let role = spec.account.as_ref().and_then(Role::of_class);
        scopes.insert(class.to_owned(), (role, Scope::of_class(&spec)));
        let of = |account: Option<&str>| -> Vec<Scope> {
            let there = |role: &Option<Role>| role.as_ref().and_then(|role| account_of(&role.arn)) == account;
            scopes.values().filter(|(role, _)| there(role)).map(|(_, scope)| scope.clone()).collect()
        };
        let mut own = vec![operator_policy(&self.home, &of(None))];
        for role in scopes.values().filter_map(|(role, _)| role.as_ref()) {
            own.push(assume_policy(&role.arn));
            let account = account_of(&role.arn).expect("an ARN with an account");
            let home = Home { account: account.to_owned(), ..self.home.clone() };
            let policy = operator_policy(&home, &of(Some(account)));
            self.guard.enforce_in(account, [&policy]).expect("a policy that AWS takes");
        }
        self.guard.enforce(&own).expect("policies that AWS takes");
    }
}
