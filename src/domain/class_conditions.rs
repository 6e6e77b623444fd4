//! Conditions of an `AwsDeployUserClass`.

use jiff::Timestamp;

use super::{dates::floor, plan::Note};
use crate::api::{Condition, Reason, Time, class::ClassCondition};

/// Observed facts of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFacts {
    /// Account of the credentials for the class, or why it is unknown.
    pub account: Result<String, Note>,
    /// `spec.account.id`.
    pub expected_account: Option<String>,
    /// `spec.account.roleArn`.
    pub role: Option<String>,
    /// ARN of the permissions boundary, and whether it exists or why that is unknown. `None` without a boundary.
    pub boundary: Option<(String, Result<bool, Note>)>,
    /// Errors of the templates. `None` if all are valid.
    pub templates: Option<String>,
}

/// Evaluates the conditions of a class. `lastTransitionTime` changes only when the status changes.
#[must_use]
pub fn evaluate(facts: &ClassFacts, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let good = |message: String| ("True", Note::new(Reason::Reconciled, message));
    let credentials = match &facts.account {
        Ok(account) => good(match &facts.role {
            Some(role) => format!("assumed {role}"),
            None => format!("the operator's credentials belong to account {account}"),
        }),
        Err(note) => ("False", note.clone()),
    };
    let account = match (&facts.account, &facts.expected_account) {
        (Err(note), _) => ("Unknown", note.clone()),
        (Ok(found), Some(wanted)) if found != wanted => (
            "False",
            Note::new(
                Reason::WrongAccount,
                format!(
                    "{} belong to account {found}, the class is for {wanted}; nothing is written to AWS. A cluster admin has to set account.roleArn to a role of account {wanted}, or give the operator credentials of that account",
                    if facts.role.is_some() { "the credentials of the role" } else { "the operator's credentials" },
                ),
            ),
        ),
        (Ok(found), Some(_)) => good(format!("account {found} matches spec.account.id")),
        (Ok(found), None) => good(format!("account {found}; spec.account is not set")),
    };
    let boundary = match &facts.boundary {
        None => good("no permissions boundary configured".to_owned()),
        Some((arn, Ok(true))) => good(format!("{arn} exists")),
        Some((arn, Ok(false))) => (
            "False",
            Note::new(
                Reason::BoundaryNotFound,
                format!(
                    "policy {arn} does not exist, and no user of the class can be created without it; ask an AWS admin to create it, or change spec.permissionsBoundary"
                ),
            ),
        ),
        Some((_, Err(note))) => ("Unknown", note.clone()),
    };
    let templates = match &facts.templates {
        None => good("all templates of policy documents are valid".to_owned()),
        Some(why) => (
            "False",
            Note::new(
                Reason::InvalidSpec,
                format!("{why}. Resources cannot use an invalid template; correct spec.policies.templates"),
            ),
        ),
    };
    // The API stores whole seconds.
    let now = floor(now);
    let all = [
        (ClassCondition::CredentialsValid, credentials),
        (ClassCondition::AccountMatches, account),
        (ClassCondition::BoundaryExists, boundary),
        (ClassCondition::TemplatesValid, templates),
    ];
    let ready = all
        .iter()
        .find(|(_, (status, _))| *status == "False")
        .or_else(|| all.iter().find(|(_, (status, _))| *status != "True"));
    let ready = match ready {
        Some((_, (_, note))) => ("False", note.clone()),
        None => good("the operator can serve the resources of the class".to_owned()),
    };
    // Everything else may be corrected outside of the class.
    let stalled = (ready.1.reason == Reason::InvalidSpec).then(|| (ClassCondition::Stalled, ("True", ready.1.clone())));
    [(ClassCondition::Ready, ready)]
        .into_iter()
        .chain(all)
        .chain(stalled)
        .map(|(kind, (status, note))| Condition {
            type_: kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: note.reason.as_str().to_owned(),
            message: note.message,
            observed_generation: generation,
            last_transition_time: before
                .iter()
                .find(|old| old.type_ == kind.as_str() && old.status == status)
                .map_or(Time(now), |old| old.last_transition_time.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_and_reason(facts: &ClassFacts) -> Vec<(String, String)> {
        let conditions = evaluate(facts, &[], Some(1), Timestamp::UNIX_EPOCH);
        conditions.into_iter().map(|condition| (condition.status, condition.reason)).collect()
    }

    #[test]
    fn each_condition_reports_its_own_error() {
        let pair = |status: &str, reason: Reason| (status.to_owned(), reason.as_str().to_owned());
        let good = ClassFacts {
            account: Ok("1".into()),
            expected_account: Some("1".into()),
            role: None,
            boundary: None,
            templates: None,
        };
        let fine = pair("True", Reason::Reconciled);
        assert_eq!(status_and_reason(&good), vec![fine.clone(); 5]);
        let other = ClassFacts { expected_account: Some("2".into()), ..good.clone() };
        assert_eq!(status_and_reason(&other)[2], pair("False", Reason::WrongAccount));
        let missing = ClassFacts { boundary: Some(("b".into(), Ok(false))), ..good.clone() };
        assert_eq!(status_and_reason(&missing)[3], pair("False", Reason::BoundaryNotFound));
        let denied = Note::new(Reason::OperatorCredentials, "no");
        let blind =
            ClassFacts { account: Err(denied.clone()), boundary: Some(("b".into(), Err(denied))), ..good.clone() };
        let (denied, unknown) =
            (pair("False", Reason::OperatorCredentials), pair("Unknown", Reason::OperatorCredentials));
        assert_eq!(status_and_reason(&blind), [denied.clone(), denied, unknown.clone(), unknown, fine]);
        let broken = ClassFacts { templates: Some("template t: no".into()), ..good.clone() };
        assert_eq!(status_and_reason(&broken)[4], pair("False", Reason::InvalidSpec));
    }

    #[test]
    fn ready_of_a_class_summarizes_the_others() {
        let good =
            ClassFacts { account: Ok("1".into()), expected_account: None, role: None, boundary: None, templates: None };
        let of = |facts: &ClassFacts, kind: ClassCondition| {
            let conditions = evaluate(facts, &[], Some(1), Timestamp::UNIX_EPOCH);
            let found = conditions.into_iter().find(|condition| condition.type_ == kind.as_str());
            found.map(|condition| (condition.status, condition.reason))
        };
        let pair = |status: &str, reason: Reason| Some((status.to_owned(), reason.as_str().to_owned()));
        assert_eq!(of(&good, ClassCondition::Ready), pair("True", Reason::Reconciled));
        let missing = ClassFacts { boundary: Some(("b".into(), Ok(false))), ..good.clone() };
        assert_eq!(of(&missing, ClassCondition::Ready), pair("False", Reason::BoundaryNotFound));
        assert_eq!(of(&missing, ClassCondition::Stalled), None, "an AWS admin may create it");
        let broken = ClassFacts { templates: Some("template t: no".into()), ..good };
        assert_eq!(of(&broken, ClassCondition::Ready), pair("False", Reason::InvalidSpec));
        assert_eq!(of(&broken, ClassCondition::Stalled), pair("True", Reason::InvalidSpec));
    }

    #[test]
    fn transition_time_changes_only_with_the_status() {
        let facts =
            ClassFacts { account: Ok("1".into()), expected_account: None, role: None, boundary: None, templates: None };
        let first = evaluate(&facts, &[], Some(1), Timestamp::UNIX_EPOCH);
        let later = evaluate(&facts, &first, Some(1), Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(9));
        assert_eq!(first, later);
    }
}
