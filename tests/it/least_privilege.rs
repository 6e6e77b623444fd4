//! The printed IAM policy compared with the actions that all other tests observed. Runs last.

use std::collections::BTreeSet;

use awsdeploy::domain::operator_policy::{AwsAccount, PolicyScope, allowed_actions, operator_policy};

use crate::test_env;

/// Actions that the policy must allow although no test needs them, with the reason.
const UNSEEN: &[(&str, &str)] = &[];

pub(crate) async fn printed_policy_allows_exactly_the_observed_actions() {
    let home = AwsAccount { partition: "aws".to_owned(), id: "123456789012".to_owned() };
    let scope = PolicyScope {
        path: "/awsdeploy/".to_owned(),
        boundary: Some("arn:aws:iam::123456789012:policy/deploy-boundary".to_owned()),
        groups: vec!["deployers".to_owned()],
        policies: None,
        administrators: true,
        documents: true,
        console: true,
    };
    let policy = operator_policy(&home, &[scope]);
    let (allowed, seen) = (allowed_actions(&policy), test_env::actions_seen());
    let missing: Vec<_> = seen.difference(&allowed).collect();
    assert!(missing.is_empty(), "the operator calls actions that its policy does not allow: {missing:?}");
    let unseen: BTreeSet<&str> = allowed.difference(&seen).map(String::as_str).collect();
    let excused: BTreeSet<&str> = UNSEEN.iter().map(|(action, _)| *action).collect();
    assert_eq!(unseen, excused, "the policy allows actions that no test needs, or UNSEEN is out of date");
}
