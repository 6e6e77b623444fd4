//! Access keys and sessions: existence, acceptance and last use.

use std::time::Instant;

use jiff::Timestamp;

use super::Account;
use crate::aws_proxy::caller::{AccountRef, Identity};
use crate::aws_proxy::key::{Key, KeyState, KeyUse, Secret};

/// The credentials in a response of `AssumeRole` or another STS action.
pub(in crate::aws_proxy) struct NewSession {
    pub(in crate::aws_proxy) account_ref: AccountRef,
    pub(in crate::aws_proxy) key_id: String,
    pub(in crate::aws_proxy) secret: String,
    pub(in crate::aws_proxy) token: Option<String>,
    pub(in crate::aws_proxy) arn: String,
    pub(in crate::aws_proxy) id: String,
    pub(in crate::aws_proxy) expires: Option<Timestamp>,
}

impl Account {
    /// The state of a key as IAM lists it; `None` if it was not created through a proxy of this account.
    #[must_use]
    pub fn key_state(&self, key_id: &str) -> Option<KeyState> {
        self.state().keys.get(key_id).map(Key::state)
    }

    /// Whether a request signed with this key now is accepted.
    #[must_use]
    pub fn accepts(&self, key_id: &str) -> bool {
        let settings = self.settings();
        let state = self.state();
        state.trusted.contains_key(key_id)
            || state.keys.get(key_id).is_some_and(|key| key.is_accepted(&settings, Instant::now()))
    }

    /// Whether `secret` is the secret of the key. The auditor checks published credentials without storing them.
    #[must_use]
    pub fn secret_matches(&self, key_id: &str, secret: &str) -> bool {
        self.state().keys.get(key_id).is_some_and(|key| key.secret.expose() == secret)
    }

    /// The ids of the keys whose secret or session token occurs in `text`, in plain text, base64 or percent-encoded. A
    /// leak scanner needs no copy of the secrets.
    #[must_use]
    pub fn leaks_in(&self, text: &str) -> Vec<String> {
        let state = self.state();
        let leaked = |secret: &Secret| {
            let plain = secret.expose();
            let base64 = crate::auditor::base64(plain.as_bytes());
            let percent: String = form_urlencoded::byte_serialize(plain.as_bytes()).collect();
            text.contains(plain) || text.contains(base64.as_str()) || text.contains(percent.as_str())
        };
        let secrets = state.keys.iter().filter(|(_, key)| !key.secret.expose().is_empty());
        secrets
            .filter(|(_, key)| leaked(&key.secret) || key.token.as_ref().is_some_and(leaked))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Registers a key that was not created through a proxy of this account, as after a restart of the test rig.
    pub fn import_key(&self, account_ref: AccountRef, user: &str, key_id: &str, secret: &str) {
        let key = Key::new(account_ref, Identity::User(user.to_owned()), Secret::new(secret), Instant::now());
        self.state().keys.insert(key_id.to_owned(), key);
    }

    /// Sets the reported last use of a key.
    pub fn set_last_used(&self, key_id: &str, at: Timestamp, service: &str, region: &str) {
        let lag = self.settings().last_used_lag;
        let now = Instant::now();
        if let Some(key) = self.state().keys.get_mut(key_id) {
            key.uses.clear();
            key.uses.push_back(KeyUse {
                observed: now.checked_sub(lag).unwrap_or(now),
                at,
                service: service.to_owned(),
                region: region.to_owned(),
            });
        }
    }

    /// The last reported use of a key.
    #[must_use]
    pub fn last_used(&self, key_id: &str) -> Option<KeyUse> {
        let settings = self.settings();
        self.state().keys.get(key_id).and_then(|key| key.last_used(&settings, Instant::now())).cloned()
    }

    /// The user that owns a key; `None` for sessions.
    pub(in crate::aws_proxy) fn owner_of(&self, key_id: &str) -> Option<String> {
        match &self.state().keys.get(key_id)?.owner {
            Identity::User(name) => Some(name.clone()),
            _ => None,
        }
    }

    pub(in crate::aws_proxy) fn key(&self, key_id: &str) -> Option<Key> {
        self.state().keys.get(key_id).cloned()
    }

    pub(in crate::aws_proxy) fn record_key(&self, account_ref: &AccountRef, user: &str, key_id: &str, secret: &str) {
        self.import_key(account_ref.clone(), user, key_id, secret);
    }

    /// Registers a key beyond the quota, which the emulator cannot store.
    pub(in crate::aws_proxy) fn record_key_beyond_quota(
        &self,
        account_ref: &AccountRef,
        user: &str,
        key_id: &str,
        secret: &str,
        at: Timestamp,
    ) {
        let owner = Identity::User(user.to_owned());
        let mut key = Key::new(account_ref.clone(), owner, Secret::new(secret), Instant::now());
        key.beyond_quota = Some(at);
        self.state().keys.insert(key_id.to_owned(), key);
    }

    /// The keys of a user beyond the quota that are not deleted, oldest first.
    pub(in crate::aws_proxy) fn keys_beyond_quota(
        &self,
        account_ref: &AccountRef,
        user: &str,
    ) -> Vec<(String, KeyState, Timestamp)> {
        let owner = Identity::User(user.to_owned());
        let mut keys: Vec<_> = self
            .state()
            .keys
            .iter()
            // Filter by this field first: nearly all of thousands of keys fail it.
            .filter_map(|(id, key)| Some((id, key, key.beyond_quota?)))
            .filter(|(_, key, _)| {
                key.account_ref == *account_ref && key.owner == owner && key.state() != KeyState::Deleted
            })
            .map(|(id, key, at)| (id.clone(), key.state(), at))
            .collect();
        keys.sort_by_key(|(_, _, at)| *at);
        keys
    }

    pub(in crate::aws_proxy) fn record_key_state(&self, key_id: &str, to: KeyState) {
        let now = Instant::now();
        if let Some(key) = self.state().keys.get_mut(key_id)
            && key.state() != to
        {
            key.changes.push((now, to));
        }
    }

    pub(in crate::aws_proxy) fn record_session(&self, session: NewSession) {
        let owner = Identity::Session { arn: session.arn, id: session.id };
        // A session is accepted at once: only access keys of users have an activation delay.
        let mut key = Key::new(session.account_ref, owner, Secret::new(session.secret), Instant::now());
        key.changes = vec![(
            Instant::now().checked_sub(self.settings().activation_delay).unwrap_or(key.created),
            KeyState::Active,
        )];
        key.token = session.token.map(Secret::new);
        key.expires = session.expires;
        self.state().keys.insert(session.key_id, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret";

    #[test]
    fn debug_output_contains_no_secret() {
        let account = Account::new();
        account.import_key(account.home(), "u", "AKIA1", SECRET);
        let printed = format!("{account:?} {:?}", account.key("AKIA1"));
        assert!(!printed.contains(SECRET), "{printed}");
        assert!(account.secret_matches("AKIA1", SECRET));
    }
}
