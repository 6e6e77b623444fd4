//! The IAM policy of the operator in a test: the one that the operator prints for the classes of the test.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use awsdeploy::{
    api::class::AwsDeployUserClassSpec,
    domain::{
        account::{Role, account_in_arn},
        operator_policy::{AwsAccount, PolicyScope, operator_policy},
        role_policy::assume_policy,
    },
};
use awsdeploy_testkit::aws_proxy::{PolicyAuthorizer, StrictAws};
use serde_json::Value;

pub(super) struct IamPermissions {
    pub(super) authorizer: Arc<PolicyAuthorizer>,
    home: AwsAccount,
    /// By class: its role and scope.
    scopes: Mutex<BTreeMap<String, (Option<Role>, PolicyScope)>>,
}

impl IamPermissions {
    pub(super) fn new(aws: &StrictAws) -> Self {
        let home = AwsAccount { partition: "aws".to_owned(), id: aws.account().id().to_owned() };
        Self { authorizer: aws.enforce_policies(), home, scopes: Mutex::default() }
    }

    /// Sets the permissions for a class, replacing its previous ones.
    pub(super) fn grant(&self, class: &str, spec: &Value) {
        let Ok(spec) = serde_json::from_value::<AwsDeployUserClassSpec>(spec.clone()) else { return };
        let mut scopes = self.scopes.lock().expect("no test panics with the lock");
        let role = spec.account.as_ref().and_then(Role::from_class);
        scopes.insert(class.to_owned(), (role, PolicyScope::from_class(&spec)));
        let of = |account: Option<&str>| -> Vec<PolicyScope> {
            let there = |role: &Option<Role>| role.as_ref().and_then(|role| account_in_arn(&role.arn)) == account;
            scopes.values().filter(|(role, _)| there(role)).map(|(_, scope)| scope.clone()).collect()
        };
        let mut own = vec![operator_policy(&self.home, &of(None))];
        for role in scopes.values().filter_map(|(role, _)| role.as_ref()) {
            own.push(assume_policy(&role.arn));
            let account = account_in_arn(&role.arn).expect("an ARN with an account");
            let home = AwsAccount { id: account.to_owned(), ..self.home.clone() };
            let policy = operator_policy(&home, &of(Some(account)));
            self.authorizer.enforce_in(account, [&policy]).expect("a valid policy");
        }
        self.authorizer.enforce(&own).expect("valid policies");
    }
}
