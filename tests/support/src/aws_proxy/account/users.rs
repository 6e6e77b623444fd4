//! User attributes that the emulator does not keep, and the index of user names.

use std::collections::HashMap;
use std::sync::PoisonError;

use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;

use super::Account;
use crate::aws_proxy::caller::{AccountRef, Identity};

/// Attributes of a user that the emulator does not keep.
#[derive(Clone, Debug, Default)]
pub(in crate::aws_proxy) struct User {
    pub(in crate::aws_proxy) name: String,
    pub(in crate::aws_proxy) boundary: Option<String>,
    pub(in crate::aws_proxy) password_reset_required: bool,
    pub(in crate::aws_proxy) password_set: Option<Timestamp>,
    pub(in crate::aws_proxy) service_credentials: Vec<ServiceCredential>,
}

/// A service-specific credential, as git over HTTPS to `CodeCommit` uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::aws_proxy) struct ServiceCredential {
    /// Credential id, `ACCA...`.
    pub(in crate::aws_proxy) id: String,
    /// Service name, for example `codecommit.amazonaws.com`.
    pub(in crate::aws_proxy) service: String,
    /// The user name for that service.
    pub(in crate::aws_proxy) service_user_name: String,
    pub(in crate::aws_proxy) active: bool,
    /// Creation date.
    pub(in crate::aws_proxy) created: Timestamp,
}

impl Account {
    /// The permissions boundary of a user.
    #[must_use]
    pub fn boundary(&self, account_ref: &AccountRef, user: &str) -> Option<String> {
        self.user(account_ref, user).boundary
    }

    /// The attributes of a user; the defaults for an unknown user.
    pub(in crate::aws_proxy) fn user(&self, account_ref: &AccountRef, name: &str) -> User {
        let known = self.state().users.get(&(account_ref.clone(), name.to_lowercase())).cloned();
        known.unwrap_or_else(|| User { name: name.to_owned(), ..User::default() })
    }

    /// Changes the attributes of a user.
    pub(in crate::aws_proxy) fn change_user<T>(
        &self,
        account_ref: &AccountRef,
        name: &str,
        change: impl FnOnce(&mut User) -> T,
    ) -> T {
        let mut state = self.state();
        let user = state
            .users
            .entry((account_ref.clone(), name.to_lowercase()))
            .or_insert_with(|| User { name: name.to_owned(), ..User::default() });
        change(user)
    }

    pub(in crate::aws_proxy) fn record_user(&self, account_ref: &AccountRef, name: &str, boundary: Option<String>) {
        let user = User { name: name.to_owned(), boundary, ..User::default() };
        self.state().users.insert((account_ref.clone(), name.to_lowercase()), user);
    }

    pub(in crate::aws_proxy) fn remove_user(&self, account_ref: &AccountRef, name: &str) {
        self.state().users.remove(&(account_ref.clone(), name.to_lowercase()));
    }

    pub(in crate::aws_proxy) fn rename_user(&self, account_ref: &AccountRef, from: &str, to: &str) {
        let mut state = self.state();
        if let Some(mut user) = state.users.remove(&(account_ref.clone(), from.to_lowercase())) {
            to.clone_into(&mut user.name);
            state.users.insert((account_ref.clone(), to.to_lowercase()), user);
        }
        let before = Identity::User(from.to_owned());
        for key in state.keys.values_mut().filter(|key| key.account_ref == *account_ref && key.owner == before) {
            key.owner = Identity::User(to.to_owned());
        }
    }

    /// The user with this name ignoring case.
    pub(in crate::aws_proxy) fn find_user_ignoring_case(&self, account_ref: &AccountRef, name: &str) -> Option<String> {
        self.state().users.get(&(account_ref.clone(), name.to_lowercase())).map(|user| user.name.clone())
    }

    /// Number of users in the account.
    pub(in crate::aws_proxy) fn count_users(&self, account_ref: &AccountRef) -> usize {
        self.state().users.keys().filter(|(of, _)| of == account_ref).count()
    }

    /// Whether the users that existed before this account state are in the index.
    pub(in crate::aws_proxy) fn has_imported_names(&self, account_ref: &AccountRef) -> bool {
        self.state().names_imported.contains(account_ref)
    }

    pub(in crate::aws_proxy) fn import_names(&self, account_ref: &AccountRef, names: Vec<String>) {
        let mut state = self.state();
        for name in names {
            state
                .users
                .entry((account_ref.clone(), name.to_lowercase()))
                .or_insert_with(|| User { name, ..User::default() });
        }
        state.names_imported.insert(account_ref.clone());
    }

    /// Users with a boundary, by name.
    pub(in crate::aws_proxy) fn boundaries(&self, account_ref: &AccountRef) -> HashMap<String, String> {
        let state = self.state();
        state
            .users
            .iter()
            .filter(|((of, _), _)| of == account_ref)
            .filter_map(|(_, user)| Some((user.name.clone(), user.boundary.clone()?)))
            .collect()
    }

    /// Serializes check-then-act calls on one user across all proxies of this account.
    pub(in crate::aws_proxy) async fn lock_user(&self, account_ref: &AccountRef, name: &str) -> OwnedMutexGuard<()> {
        let lock = self
            .user_locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((account_ref.clone(), name.to_lowercase()))
            .or_default()
            .clone();
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_partitions_have_separate_user_names() {
        let account = Account::new();
        let home = account.home();
        account.record_user(&home, "Deploy-A", None);
        assert_eq!(account.find_user_ignoring_case(&home, "deploy-a").as_deref(), Some("Deploy-A"));
        assert_eq!(account.find_user_ignoring_case(&home.in_region("cn-north-1"), "deploy-a"), None);
        assert_eq!(account.find_user_ignoring_case(&AccountRef::aws("999999999999"), "deploy-a"), None);
        assert_ne!(Account::unique().id(), Account::unique().id());
        assert_eq!(Account::unique().id().len(), 12);
    }
}
