//! Access keys and session credentials: secret, state history, propagation delay and last use.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use jiff::Timestamp;

use super::caller::{AccountRef, Identity};
use super::settings::Settings;

/// Secret key material. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    #[must_use]
    pub(super) fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    #[must_use]
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// State of an access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Requests signed with the key are accepted.
    Active,
    /// The key exists; requests signed with it are rejected.
    Inactive,
    /// The key does not exist any more.
    Deleted,
}

/// A credential created through a proxy of this account.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) account_ref: AccountRef,
    pub(super) owner: Identity,
    pub(super) secret: Secret,
    /// Session token; `None` for access keys of users.
    pub(super) token: Option<Secret>,
    pub(super) expires: Option<Timestamp>,
    pub(super) created: Instant,
    pub(super) changes: Vec<(Instant, KeyState)>,
    pub(super) uses: VecDeque<KeyUse>,
    /// Creation date of a key beyond the quota of two, which the emulator cannot store.
    pub(super) beyond_quota: Option<Timestamp>,
}

/// One recorded use of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    pub(super) observed: Instant,
    /// Time of the use, on the clock of AWS.
    pub at: Timestamp,
    /// Service name, for example `iam` or `sts`.
    pub service: String,
    /// Region of the credential scope.
    pub region: String,
}

impl Key {
    pub(super) fn new(account_ref: AccountRef, owner: Identity, secret: Secret, now: Instant) -> Self {
        Self {
            account_ref,
            owner,
            secret,
            token: None,
            expires: None,
            created: now,
            changes: vec![(now, KeyState::Active)],
            uses: VecDeque::new(),
            beyond_quota: None,
        }
    }

    /// The state that IAM lists, without propagation delay.
    pub(super) fn state(&self) -> KeyState {
        self.changes.last().map_or(KeyState::Deleted, |(_, state)| *state)
    }

    /// Whether a signature check accepts the key. A change takes effect after the activation or the revocation delay:
    /// IAM is eventually consistent.
    pub(super) fn is_accepted(&self, settings: &Settings, now: Instant) -> bool {
        let effective = self.changes.iter().rev().find(|(at, state)| {
            let delay = match state {
                KeyState::Active => settings.activation_delay,
                KeyState::Inactive | KeyState::Deleted => settings.revocation_lag,
            };
            now.duration_since(*at) >= delay
        });
        matches!(effective, Some((_, KeyState::Active)))
    }

    /// Backdates the activation, so that a longer activation delay does not reject a key that is accepted already.
    pub(super) fn keep_accepted(&mut self, settings: &Settings, now: Instant) {
        if let Some((at, KeyState::Active)) = self.changes.last_mut()
            && let Some(latest) = now.checked_sub(settings.activation_delay)
        {
            *at = latest.min(*at);
        }
    }

    pub(super) fn record_use(&mut self, settings: &Settings, now: Instant, service: &str, region: &str) {
        let too_soon = |last: &KeyUse| now.duration_since(last.observed) < settings.last_used_granularity;
        if self.uses.back().is_some_and(too_soon) {
            return;
        }
        let at = Timestamp::now();
        self.uses.push_back(KeyUse { observed: now, at, service: service.to_owned(), region: region.to_owned() });
        // Keep the newest reported use and those that are not reported yet.
        while self.uses.get(1).is_some_and(|next| now.duration_since(next.observed) >= settings.last_used_lag) {
            self.uses.pop_front();
        }
    }

    pub(super) fn last_used(&self, settings: &Settings, now: Instant) -> Option<&KeyUse> {
        self.uses.iter().rev().find(|used| now.duration_since(used.observed) >= settings.last_used_lag)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: &str = "a-secret";
    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn key_changes_take_effect_after_their_delay() {
        let settings = Settings { activation_delay: 10 * SEC, revocation_lag: 4 * SEC, ..Settings::default() };
        let start = Instant::now();
        let mut key = Key::new(AccountRef::aws("1"), Identity::User("u".to_owned()), Secret::new(SECRET), start);
        let accepted = |key: &Key, second: u32| key.is_accepted(&settings, start + second * SEC);
        assert!(!accepted(&key, 9));
        assert!(accepted(&key, 10));
        key.changes.push((start + 20 * SEC, KeyState::Inactive));
        assert_eq!(key.state(), KeyState::Inactive);
        assert!(accepted(&key, 23));
        assert!(!accepted(&key, 24));
        key.changes.push((start + 30 * SEC, KeyState::Active));
        assert!(!accepted(&key, 39));
        assert!(accepted(&key, 40));
    }

    #[test]
    fn last_use_is_delayed_and_has_a_granularity() {
        let settings = Settings { last_used_lag: 60 * SEC, last_used_granularity: 900 * SEC, ..Settings::default() };
        let start = Instant::now();
        let mut key = Key::new(AccountRef::aws("1"), Identity::User("u".to_owned()), Secret::new(SECRET), start);
        let last_used_second = |key: &Key, second: u32| {
            key.last_used(&settings, start + second * SEC).map(|used| used.observed.duration_since(start).as_secs())
        };
        assert_eq!(last_used_second(&key, 0), None);
        key.record_use(&settings, start, "sts", "us-east-1");
        key.record_use(&settings, start + 100 * SEC, "sts", "us-east-1");
        assert_eq!(last_used_second(&key, 59), None);
        assert_eq!(last_used_second(&key, 60), Some(0));
        assert_eq!(last_used_second(&key, 800), Some(0), "the second use is within the same 15 minutes");
        key.record_use(&settings, start + 900 * SEC, "sts", "us-east-1");
        assert_eq!(last_used_second(&key, 959), Some(0));
        assert_eq!(last_used_second(&key, 960), Some(900));
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let key = Key::new(AccountRef::aws("1"), Identity::Trusted, Secret::new(SECRET), Instant::now());
        assert!(!format!("{key:?}").contains(SECRET));
    }
}
