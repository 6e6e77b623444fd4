//! Which operator writes the status of a class. Two of them would replace each other's account and number of users without end,
//! and a class that none of them writes would look unobserved to clients that wait.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::api::AwsDeployUserClass;

/// What an operator does about the status of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClassClaim {
    /// It writes the status.
    Write,
    /// Another operator writes it and has not observed this generation: checked again after this time.
    Check(Duration),
    /// Another operator writes it. A change of the class is the next event.
    Skip,
}

/// Since when the operator of another namespace has not observed the generation of a class, by name.
#[derive(Default)]
pub(super) struct ClassClaims(Mutex<HashMap<String, (Option<i64>, Instant)>>);

impl ClassClaims {
    /// The first operator that writes the status keeps it, by `status.operatorNamespace`. Another one takes the class over when
    /// its generation has not been observed for `patience`: the first operator was uninstalled, or moved.
    pub(super) fn evaluate(
        &self,
        class: &AwsDeployUserClass,
        namespace: &str,
        now: Instant,
        patience: Duration,
    ) -> ClassClaim {
        let (name, generation) = (class.metadata.name.as_deref().unwrap_or_default(), class.metadata.generation);
        let mut unobserved = self.0.lock();
        let status = class
            .status
            .as_ref()
            .filter(|status| status.operator_namespace.as_deref().is_some_and(|other| other != namespace));
        let Some(status) = status else {
            unobserved.remove(name);
            return ClassClaim::Write;
        };
        if status.observed_generation == generation {
            unobserved.remove(name);
            return ClassClaim::Skip;
        }
        let entry = unobserved.entry(name.to_owned()).or_insert((generation, now));
        if entry.0 != generation {
            *entry = (generation, now);
        }
        let left = patience.saturating_sub(now.saturating_duration_since(entry.1));
        if left.is_zero() { ClassClaim::Write } else { ClassClaim::Check(left) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    fn class(operator: Option<&str>, generation: i64, observed: i64) -> AwsDeployUserClass {
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass",
            "metadata": {"name": "c", "generation": generation}, "spec": {},
            "status": {"observedGeneration": observed, "operatorNamespace": operator},
        }))
        .unwrap()
    }

    #[test]
    fn first_writer_keeps_the_status_of_a_class() {
        let (claims, now) = (ClassClaims::default(), Instant::now());
        let of = |class: &AwsDeployUserClass| claims.evaluate(class, "here", now, PATIENCE);
        assert_eq!(of(&class(None, 1, -1)), ClassClaim::Write);
        assert_eq!(of(&class(Some("here"), 2, 1)), ClassClaim::Write);
        assert_eq!(of(&class(Some("there"), 2, 2)), ClassClaim::Skip);
    }

    #[test]
    fn unobserved_class_is_taken_over_after_a_while() {
        let (claims, start) = (ClassClaims::default(), Instant::now());
        let after = |seconds: u64, class: &AwsDeployUserClass| {
            claims.evaluate(class, "here", start + Duration::from_secs(seconds), PATIENCE)
        };
        assert_eq!(after(0, &class(Some("there"), 2, 1)), ClassClaim::Check(PATIENCE));
        assert_eq!(after(40, &class(Some("there"), 2, 1)), ClassClaim::Check(Duration::from_secs(20)));
        assert_eq!(after(50, &class(Some("there"), 3, 1)), ClassClaim::Check(PATIENCE), "another change");
        assert_eq!(after(60, &class(Some("there"), 3, 3)), ClassClaim::Skip, "it was observed");
        assert_eq!(after(70, &class(Some("there"), 4, 3)), ClassClaim::Check(PATIENCE));
        assert_eq!(after(130, &class(Some("there"), 4, 3)), ClassClaim::Write);
    }
}
