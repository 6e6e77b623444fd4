//! Tracks reachable accounts; a recovery ends the back-off of their resources.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::account::Role;

/// Health of all accounts, by the role that the operator assumes there; `None` for its own credentials.
#[derive(Default)]
pub(super) struct AccountHealth {
    roles: Mutex<HashMap<Option<Role>, RoleHealth>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct RoleHealth {
    is_failing: bool,
    recoveries: u64,
}

impl AccountHealth {
    /// Records whether the caller identity could be resolved. True on a recovery.
    pub(super) fn record(&self, role: Option<&Role>, succeeded: bool) -> bool {
        let mut roles = self.roles.lock();
        if succeeded && !roles.contains_key(&role.cloned()) {
            return false;
        }
        let health = roles.entry(role.cloned()).or_default();
        let recovers = succeeded && health.is_failing;
        health.recoveries += u64::from(recovers);
        if health.is_failing == succeeded {
            self.changed.send_replace(());
        }
        health.is_failing = !succeeded;
        recovers
    }

    /// The number of recoveries since the process started.
    pub(super) fn recoveries(&self, role: Option<&Role>) -> u64 {
        self.roles.lock().get(&role.cloned()).map_or(0, |health| health.recoveries)
    }

    /// Drops roles that no class and no resource names.
    pub(super) fn retain(&self, is_used: impl Fn(&Role) -> bool) {
        self.roles.lock().retain(|role, _| role.as_ref().is_none_or(&is_used));
    }

    /// Changes when an account becomes reachable or unreachable.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_reported_once_and_only_for_its_account() {
        let accounts = AccountHealth::default();
        let role = Role { arn: "arn:aws:iam::111111111111:role/r".to_owned(), external_id: None };
        assert!(!accounts.record(Some(&role), true), "it never failed");
        assert!(!accounts.record(Some(&role), false));
        assert!(!accounts.record(None, true), "the operator's own account");
        assert!(accounts.record(Some(&role), true));
        assert!(!accounts.record(Some(&role), true));
        assert_eq!((accounts.recoveries(Some(&role)), accounts.recoveries(None)), (1, 0));
        accounts.retain(|_| false);
        assert_eq!(accounts.recoveries(Some(&role)), 0);
    }
}
