//! The conditions of a class. Pure.

use jiff::Timestamp;

use super::plan::Note;
use crate::api::{Condition, Reason, Time, class::ClassCondition};

/// What was found out about a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFacts {
    /// The account that the operator reaches, or why it reaches none.
    pub account: Result<String, Note>,
    /// The account that the class asks for.
    pub expected_account: Option<String>,
    /// ARN of the role that the class asks for.
    pub role: Option<String>,
    /// The boundary of the class, and whether it exists or why that cannot be told. `None` without one.
    pub boundary: Option<(String, Result<bool, Note>)>,
    /// What is wrong with the templates of the class; `None` if all can be used.
    pub templates: Option<String>,
}

/// The conditions of the class. `lastTransitionTime` moves only when a state flips.
#[must_use]
pub fn evaluate(facts: &ClassFacts, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let good = |message: String| ("True", Note::new(Reason::Reconciled, message));
    let credentials = match &facts.account {
        Ok(account) => good(match &facts.role {
            Some(role) => format!("the operator has taken {role}"),
            None => format!("AWS takes the operator for one of account {account}"),
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
                    "{} are of account {found}, the class is for {wanted}; nothing is written to AWS. A cluster admin has to set account.roleArn to a role of account {wanted}, or to give the operator credentials of it",
                    if facts.role.is_some() { "the credentials of the role" } else { "the operator's credentials" },
                ),
            ),
        ),
        (Ok(found), Some(_)) => good(format!("account {found}, as spec.account.id has it")),
        (Ok(found), None) => good(format!("account {found}; the class asks for none")),
    };
    let boundary = match &facts.boundary {
        None => good("the class has no permissions boundary".to_owned()),
        Some((arn, Ok(true))) => good(format!("{arn} exists")),
        Some((arn, Ok(false))) => (
            "False",
            Note::new(
                Reason::BoundaryNotFound,
                format!("there is no policy {arn}; no user of the class is made before an AWS admin has created it"),
            ),
        ),
        Some((_, Err(note))) => ("Unknown", note.clone()),
    };
    let templates = match &facts.templates {
        None => good("every template of inline policies can be used".to_owned()),
        Some(why) => {
            ("False", Note::new(Reason::InvalidSpec, format!("{why}. Nobody can use a template before it is mended")))
        }
    };
    // The API carries whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let all = [
        (ClassCondition::CredentialsValid, credentials),
        (ClassCondition::AccountMatches, account),
        (ClassCondition::BoundaryExists, boundary),
        (ClassCondition::TemplatesValid, templates),
    ];
    all.into_iter()
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

    fn told(facts: &ClassFacts) -> Vec<(String, String)> {
        let conditions = evaluate(facts, &[], Some(1), Timestamp::UNIX_EPOCH);
        conditions.into_iter().map(|condition| (condition.status, condition.reason)).collect()
    }

    #[test]
    fn each_condition_tells_its_own_fault() {
        let pair = |status: &str, reason: Reason| (status.to_owned(), reason.as_str().to_owned());
        let good = ClassFacts {
            account: Ok("1".into()),
            expected_account: Some("1".into()),
            role: None,
            boundary: None,
            templates: None,
        };
        let fine = pair("True", Reason::Reconciled);
        assert_eq!(told(&good), vec![fine.clone(); 4]);
        let other = ClassFacts { expected_account: Some("2".into()), ..good.clone() };
        assert_eq!(told(&other)[1], pair("False", Reason::WrongAccount));
        let missing = ClassFacts { boundary: Some(("b".into(), Ok(false))), ..good.clone() };
        assert_eq!(told(&missing)[2], pair("False", Reason::BoundaryNotFound));
        let denied = Note::new(Reason::OperatorCredentials, "no");
        let blind =
            ClassFacts { account: Err(denied.clone()), boundary: Some(("b".into(), Err(denied))), ..good.clone() };
        let unknown = pair("Unknown", Reason::OperatorCredentials);
        assert_eq!(told(&blind), [pair("False", Reason::OperatorCredentials), unknown.clone(), unknown, fine]);
        let broken = ClassFacts { templates: Some("template t: no".into()), ..good.clone() };
        assert_eq!(told(&broken)[3], pair("False", Reason::InvalidSpec));
    }

    #[test]
    fn only_a_flip_moves_the_time() {
        let facts =
            ClassFacts { account: Ok("1".into()), expected_account: None, role: None, boundary: None, templates: None };
        let first = evaluate(&facts, &[], Some(1), Timestamp::UNIX_EPOCH);
        let later = evaluate(&facts, &first, Some(1), Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(9));
        assert_eq!(first, later);
    }
}
