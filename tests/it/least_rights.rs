//! The generated IAM policy against what all the tests together have seen the operator ask for. Runs last.

use std::collections::BTreeSet;

use awsdeploy::domain::operator_policy::{Home, Scope, allowed_actions, operator_policy};

use crate::stage;

/// Actions that the policy allows although no test leads to them, and why it must.
const UNSEEN: &[(&str, &str)] = &[];

pub(crate) async fn the_policy_allows_what_was_seen_and_nothing_else() {
    let home = Home { partition: "aws".to_owned(), account: "123456789012".to_owned() };
    let scope = Scope {
        path: "/awsdeploy/".to_owned(),
        boundary: Some("arn:aws:iam::123456789012:policy/deploy-boundary".to_owned()),
        groups: vec!["deployers".to_owned()],
        policies: None,
        administrators: true,
        inline: true,
        console: true,
    };
    let policy = operator_policy(&home, &[scope]);
    let (allowed, seen) = (allowed_actions(&policy), stage::actions_seen());
    let missing: Vec<_> = seen.difference(&allowed).collect();
    assert!(missing.is_empty(), "the operator asks for what its policy does not allow: {missing:?}");
    let unseen: BTreeSet<&str> = allowed.difference(&seen).map(String::as_str).collect();
    let excused: BTreeSet<&str> = UNSEEN.iter().map(|(action, _)| *action).collect();
    assert_eq!(unseen, excused, "the policy allows what nobody was seen to need, or an excuse is out of date");
}
