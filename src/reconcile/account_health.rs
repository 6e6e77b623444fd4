//! Which accounts let us in. When one does again, its resources need not wait out pauses that were about that.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::account::Role;

/// The account_health of all accounts, by the role that is taken there; `None` is the operator's own.
#[derive(Default)]
pub(super) struct AccountHealth(Mutex<HashMap<Option<Role>, RoleHealth>>);

#[derive(Default)]
struct RoleHealth {
    shut: bool,
    recoveries: u64,
}

impl AccountHealth {
    /// Notes whether we got in. True when the gate was shut before and is open now.
    pub(super) fn note(&self, role: Option<&Role>, open: bool) -> bool {
        let mut account_health = self.lock();
        if open && !account_health.contains_key(&role.cloned()) {
            return false;
        }
        let gate = account_health.entry(role.cloned()).or_default();
        let opens = open && gate.shut;
        gate.recoveries += u64::from(opens);
        gate.shut = !open;
        opens
    }

    /// How often the gate has opened again.
    pub(super) fn recoveries(&self, role: Option<&Role>) -> u64 {
        self.lock().get(&role.cloned()).map_or(0, |gate| gate.recoveries)
    }

    /// Forgets the roles that nobody names any more.
    pub(super) fn keep_only(&self, wanted: impl Fn(&Role) -> bool) {
        self.lock().retain(|role, _| role.as_ref().is_none_or(&wanted));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Role>, RoleHealth>> {
        // Numbers only: a panic elsewhere cannot have left them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_opens_again_is_told_once_and_another_one_never() {
        let account_health = AccountHealth::default();
        let role = Role { arn: "arn:aws:iam::111111111111:role/r".to_owned(), external_id: None };
        assert!(!account_health.note(Some(&role), true), "it was never shut");
        assert!(!account_health.note(Some(&role), false));
        assert!(!account_health.note(None, true), "the operator's own");
        assert!(account_health.note(Some(&role), true));
        assert!(!account_health.note(Some(&role), true));
        assert_eq!((account_health.recoveries(Some(&role)), account_health.recoveries(None)), (1, 0));
        account_health.keep_only(|_| false);
        assert_eq!(account_health.recoveries(Some(&role)), 0);
    }
}
