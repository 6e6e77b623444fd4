//! The generated IAM policy against what all the tests together have seen the operator ask for. Runs last.

use std::collections::BTreeSet;

use awsdeploy::domain::operator_policy::{AwsAccount, PolicyScope, allowed_actions, operator_policy};

use crate::test_env;

/// Actions that the policy allows although no test leads to them, and why it must.
const UNSEEN: &[(&str, &str)] = &[];

pub(crate) async fn printed_policy_allows_exactly_the_observed_actions() {
    let home = AwsAccount { partition: "aws".to_owned(), id: "123456789012".to_owned() };
    let scope = PolicyScope {
        path: "/awsdeploy/".to_owned(),
        boundary: Some("arn:aws:iam::123456789012:policy/deploy-boundary".to_owned()),
        groups: vec!["deployers".to_owned()],
        policies: None,
        administrators: true,
        inline: true,
        console: true,
    };
    let policy = operator_policy(&home, &[scope]);
    let (allowed, seen) = (allowed_actions(&policy), test_env::actions_seen());
    let missing: Vec<_> = seen.difference(&allowed).collect();
    assert!(missing.is_empty(), "the operator asks for what its policy does not allow: {missing:?}");
    let unseen: BTreeSet<&str> = allowed.difference(&seen).map(String::as_str).collect();
    let excused: BTreeSet<&str> = UNSEEN.iter().map(|(action, _)| *action).collect();
    assert_eq!(unseen, excused, "the policy allows what nobody was seen to need, or an excuse is out of date");
}
