//! The AWS state that the emulator does not keep, shared by all proxies in front of one emulator.
//!
//! The emulator stores users, policies, tags and keys. An [`Account`] adds what the emulator lacks (secrets for the
//! signature check, permissions boundaries, password flags, service-specific credentials) and the propagation delays of
//! an eventually consistent IAM.
//!
//! One `Account` represents the home account of the operator and every account reached from it by `AssumeRole`,
//! distinguished by [`AccountRef`]. Accounts with different ids are isolated on one emulator, so each test can use its
//! own.

mod callers;
mod keys;
mod listings;
mod policies;
mod users;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

pub use callers::Authorizer;
pub(super) use keys::NewSession;
pub(super) use listings::Listing;
use policies::ManagedPolicy;
pub(super) use users::{ServiceCredential, User};

use super::caller::AccountRef;
use super::key::{Key, Secret};
use super::settings::Settings;

/// The id of the emulator's default account.
pub const DEFAULT_ACCOUNT_ID: &str = "123456789012";

/// Keys that are trusted initially: the customary key of the emulator with any secret, and the administrator key of the
/// test rig, which is the example of the AWS documentation.
const TRUSTED: [(&str, Option<&str>); 2] =
    [("testing", None), ("AKIAIOSFODNN7EXAMPLE", Some("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))];

#[derive(Default)]
struct State {
    keys: HashMap<String, Key>,
    trusted: HashMap<String, Option<Secret>>,
    users: HashMap<(AccountRef, String), User>,
    policies: HashMap<(AccountRef, String), ManagedPolicy>,
    names_imported: HashSet<AccountRef>,
    listings: VecDeque<(String, Arc<Listing>)>,
}

type UserLock = Arc<tokio::sync::Mutex<()>>;

/// The AWS state behind one emulator; see the module.
pub struct Account {
    id: String,
    settings: RwLock<Settings>,
    state: Mutex<State>,
    authorizers: RwLock<Vec<Arc<dyn Authorizer>>>,
    // One lock per user for check-then-act calls: changes in IAM are atomic.
    user_locks: Mutex<HashMap<(AccountRef, String), UserLock>>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Account {
    /// The default account of the emulator. It trusts the key id `testing` with any secret, and the administrator key
    /// of the test rig.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_id(DEFAULT_ACCOUNT_ID)
    }

    /// An account that is isolated from accounts with other ids on the same emulator.
    #[must_use]
    pub fn with_id(id: &str) -> Arc<Self> {
        let trusted = TRUSTED.map(|(id, secret)| (id.to_owned(), secret.map(Secret::new)));
        let state = State { trusted: HashMap::from(trusted), ..State::default() };
        Arc::new(Self {
            id: id.to_owned(),
            settings: RwLock::default(),
            state: Mutex::new(state),
            authorizers: RwLock::default(),
            user_locks: Mutex::default(),
        })
    }

    /// An account whose id is unique in this process.
    #[must_use]
    pub fn unique() -> Arc<Self> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // The process id separates test runs that share a long-lived emulator.
        let run = u64::from(std::process::id()) % 1_000_000;
        let id = 200_000_000_000 + run * 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        Self::with_id(&id.to_string())
    }

    /// The account id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The home account in the commercial partition.
    #[must_use]
    pub fn home(&self) -> AccountRef {
        AccountRef::aws(&self.id)
    }

    /// The current settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes settings for later calls. A key that is accepted remains accepted: a longer activation delay applies to
    /// later activations.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        let before = self.settings();
        change(&mut self.settings.write().unwrap_or_else(PoisonError::into_inner));
        let (after, now) = (self.settings(), Instant::now());
        for key in self.state().keys.values_mut().filter(|key| key.is_accepted(&before, now)) {
            key.keep_accepted(&after, now);
        }
    }

    /// Clears all state except settings and trusted keys; for use with a reset of the emulator.
    pub fn reset(&self) {
        let mut state = self.state();
        let trusted = std::mem::take(&mut state.trusted);
        *state = State { trusted, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
