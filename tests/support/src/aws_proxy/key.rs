//! Access keys and session credentials: their secrets, their states, and how late AWS hears of changes.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use jiff::Timestamp;

use super::caller::{AccountRef, Identity};
use super::settings::Settings;

/// A secret in memory. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    /// Takes a secret in.
    #[must_use]
    pub(super) fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Hands it out, to sign or to compare.
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

/// The state of an access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It signs.
    Active,
    /// It exists and does not sign.
    Inactive,
    /// It is gone.
    Deleted,
}

/// A credential that was handed out through a proxy.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) account_ref: AccountRef,
    pub(super) owner: Identity,
    pub(super) secret: Secret,
    /// Only sessions have one.
    pub(super) token: Option<Secret>,
    pub(super) expires: Option<Timestamp>,
    pub(super) created: Instant,
    pub(super) changes: Vec<(Instant, KeyState)>,
    pub(super) uses: VecDeque<KeyUse>,
    /// Set for keys that the emulator does not hold: those beyond its quota of two.
    pub(super) beyond_quota: Option<Timestamp>,
}

/// One recorded use of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    pub(super) seen: Instant,
    /// When, on AWS's clock.
    pub at: Timestamp,
    /// `iam`, `sts`, ...
    pub service: String,
    /// Region.
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

    /// What IAM's own list says.
    pub(super) fn state(&self) -> KeyState {
        self.changes.last().map_or(KeyState::Deleted, |(_, state)| *state)
    }

    /// Whether the services that check signatures have heard of it yet: each change arrives late, by the delay of its
    /// kind.
    pub(super) fn is_accepted(&self, settings: &Settings, now: Instant) -> bool {
        let arrived = self.changes.iter().rev().find(|(at, state)| {
            let delay = match state {
                KeyState::Active => settings.activation_delay,
                KeyState::Inactive | KeyState::Deleted => settings.revocation_lag,
            };
            now.duration_since(*at) >= delay
        });
        matches!(arrived, Some((_, KeyState::Active)))
    }

    /// Lets the change that made it accepted have come long ago.
    pub(super) fn stay_accepted(&mut self, settings: &Settings, now: Instant) {
        if let Some((at, KeyState::Active)) = self.changes.last_mut()
            && let Some(long_ago) = now.checked_sub(settings.activation_delay)
        {
            *at = long_ago.min(*at);
        }
    }

    pub(super) fn used(&mut self, settings: &Settings, now: Instant, service: &str, region: &str) {
        let too_soon = |last: &KeyUse| now.duration_since(last.seen) < settings.last_used_granularity;
        if self.uses.back().is_some_and(too_soon) {
            return;
        }
        let at = Timestamp::now();
        self.uses.push_back(KeyUse { seen: now, at, service: service.to_owned(), region: region.to_owned() });
        // Only the newest use that has arrived matters, and those still on their way.
        while self.uses.get(1).is_some_and(|next| now.duration_since(next.seen) >= settings.last_used_lag) {
            self.uses.pop_front();
        }
    }

    pub(super) fn last_used(&self, settings: &Settings, now: Instant) -> Option<&KeyUse> {
        self.uses.iter().rev().find(|used| now.duration_since(used.seen) >= settings.last_used_lag)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: &str = "a-secret";
    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn changes_of_a_key_arrive_late_each_by_its_own_delay() {
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
    fn last_use_is_reported_late_and_by_the_quarter_hour() {
        let settings = Settings { last_used_lag: 60 * SEC, last_used_granularity: 900 * SEC, ..Settings::default() };
        let start = Instant::now();
        let mut key = Key::new(AccountRef::aws("1"), Identity::User("u".to_owned()), Secret::new(SECRET), start);
        let seen = |key: &Key, second: u32| {
            key.last_used(&settings, start + second * SEC).map(|used| used.seen.duration_since(start).as_secs())
        };
        assert_eq!(seen(&key, 0), None);
        key.used(&settings, start, "sts", "us-east-1");
        key.used(&settings, start + 100 * SEC, "sts", "us-east-1");
        assert_eq!(seen(&key, 59), None);
        assert_eq!(seen(&key, 60), Some(0));
        assert_eq!(seen(&key, 800), Some(0), "the second use fell into the same quarter of an hour");
        key.used(&settings, start + 900 * SEC, "sts", "us-east-1");
        assert_eq!(seen(&key, 959), Some(0));
        assert_eq!(seen(&key, 960), Some(900));
    }

    #[test]
    fn a_secret_does_not_print() {
        let key = Key::new(AccountRef::aws("1"), Identity::Trusted, Secret::new(SECRET), Instant::now());
        assert!(!format!("{key:?}").contains(SECRET));
    }
}
