//! What AWS knows beyond what the emulator keeps: the state that all proxies in front of one emulator share.
//!
//! The emulator stays the store of users, policies, tags and keys. Here is only what it lacks (secrets it does not
//! check, boundaries, password flags, service-specific credentials), and what makes IAM an eventually consistent
//! service (since when a key works, until when a dead one still does).
//!
//! One `Account` stands for the home account of the operator and for every account reached from there by
//! `AssumeRole`; a [`Realm`] tells them apart. Accounts with different ids share one emulator without seeing each
//! other, so each test can have its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;

use super::answer::AwsError;
use super::call::{Call, Request};
use super::key::{Key, KeyState, KeyUse, Secret};
use super::realm::{Caller, Identity, Realm};
use super::settings::Settings;
use super::sigv4::Authorization;

/// The id of the emulator's default account.
pub const DEFAULT_ACCOUNT_ID: &str = "123456789012";

/// Keys that are trusted from the start: the emulator's customary one with any secret, and the administrator's of the
/// test rig, which is the example of AWS's documentation.
const TRUSTED: [(&str, Option<&str>); 2] =
    [("testing", None), ("AKIAIOSFODNN7EXAMPLE", Some("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"))];

/// What is known of a user beyond the emulator.
#[derive(Clone, Debug, Default)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) boundary: Option<String>,
    pub(super) password_reset_required: bool,
    pub(super) password_set: Option<Timestamp>,
    pub(super) service_credentials: Vec<ServiceCredential>,
}

/// A service-specific credential, as git over HTTPS to `CodeCommit` uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceCredential {
    /// `ACCA...`
    pub(super) id: String,
    /// For example `codecommit.amazonaws.com`.
    pub(super) service: String,
    /// The user name for that service.
    pub(super) service_user_name: String,
    /// Active or not.
    pub(super) active: bool,
    /// When it was made.
    pub(super) created: Timestamp,
}

/// A page list that is being handed out piece by piece.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) question: String,
    pub(super) items: Vec<(String, String)>,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, Key>,
    trusted: HashMap<String, Option<Secret>>,
    users: HashMap<(Realm, String), User>,
    names_known: HashSet<Realm>,
    listings: VecDeque<(String, Arc<Listing>)>,
}

type UserLock = Arc<tokio::sync::Mutex<()>>;

/// A check of a caller's permission, consulted before a call is worked on: the seam for a policy evaluator.
pub trait Authorizer: Send + Sync {
    /// `Err` is what the caller gets to see; use [`AwsError::access_denied`].
    fn check<'a>(&'a self, caller: &'a Caller, call: &'a Call) -> BoxFuture<'a, Result<(), AwsError>>;
}

/// The truth of AWS behind one emulator; see the module.
pub struct Account {
    id: String,
    settings: RwLock<Settings>,
    state: Mutex<State>,
    authorizers: RwLock<Vec<Arc<dyn Authorizer>>>,
    // One lock per user for calls that check and then act: IAM never half-does a change.
    user_locks: Mutex<HashMap<(Realm, String), UserLock>>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Account {
    /// The emulator's default account. It trusts the key id `testing` with any secret, and the administrator's key of
    /// the test rig.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_id(DEFAULT_ACCOUNT_ID)
    }

    /// An account of its own: nothing in it is seen from an account with another id on the same emulator.
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

    /// An account with an id that no other account of this process has.
    #[must_use]
    pub fn unique() -> Arc<Self> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // The process id keeps apart the runs that share a long-lived emulator.
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
    pub fn home(&self) -> Realm {
        Realm::aws(&self.id)
    }

    /// The knobs as they are now.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Turns knobs; calls that start afterwards see it. A key that is accepted stays so: a longer delay is one for keys
    /// to come.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        let before = self.settings();
        change(&mut self.settings.write().unwrap_or_else(PoisonError::into_inner));
        let (after, now) = (self.settings(), Instant::now());
        for key in self.state().keys.values_mut().filter(|key| key.is_accepted(&before, now)) {
            key.stay_accepted(&after, now);
        }
    }

    /// Trusts a key id that AWS did not make, with this secret or, for `None`, with any.
    pub fn trust(&self, key_id: &str, secret: Option<&str>) {
        self.state().trusted.insert(key_id.to_owned(), secret.map(Secret::new));
    }

    /// Stops trusting a key id.
    pub fn distrust(&self, key_id: &str) {
        self.state().trusted.remove(key_id);
    }

    /// Adds a permission check; all must pass.
    pub fn authorize_with(&self, authorizer: Arc<dyn Authorizer>) {
        self.authorizers.write().unwrap_or_else(PoisonError::into_inner).push(authorizer);
    }

    /// Forgets everything but settings and trusted keys; for use with a reset of the emulator.
    pub fn forget(&self) {
        let mut state = self.state();
        let trusted = std::mem::take(&mut state.trusted);
        *state = State { trusted, ..State::default() };
    }

    /// The state of a key as IAM lists it; `None` if no proxy of this account made it.
    #[must_use]
    pub fn key_state(&self, key_id: &str) -> Option<KeyState> {
        self.state().keys.get(key_id).map(Key::state)
    }

    /// Whether a request signed with this key right now would pass.
    #[must_use]
    pub fn accepts(&self, key_id: &str) -> bool {
        let settings = self.settings();
        let state = self.state();
        state.trusted.contains_key(key_id)
            || state.keys.get(key_id).is_some_and(|key| key.is_accepted(&settings, Instant::now()))
    }

    /// Whether this is the secret of that key: lets an auditor check a published credential without having kept it.
    #[must_use]
    pub fn secret_matches(&self, key_id: &str, secret: &str) -> bool {
        self.state().keys.get(key_id).is_some_and(|key| key.secret.expose() == secret)
    }

    /// The ids of the keys whose secret, or session token stands in `text`, plainly, as base64 or
    /// percent-encoded: lets a leak scanner look for what it must never hold.
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

    /// Takes in a key that was made behind the proxies' back, as after a restart of the test rig.
    pub fn learn_key(&self, realm: Realm, user: &str, key_id: &str, secret: &str) {
        let key = Key::new(realm, Identity::User(user.to_owned()), Secret::new(secret), Instant::now());
        self.state().keys.insert(key_id.to_owned(), key);
    }

    /// Puts a use of a key at a time of the test's choosing, as if it had been reported just now.
    pub fn set_last_used(&self, key_id: &str, at: Timestamp, service: &str, region: &str) {
        let lag = self.settings().last_used_lag;
        let now = Instant::now();
        if let Some(key) = self.state().keys.get_mut(key_id) {
            key.uses.clear();
            key.uses.push_back(KeyUse {
                seen: now.checked_sub(lag).unwrap_or(now),
                at,
                service: service.to_owned(),
                region: region.to_owned(),
            });
        }
    }

    /// The last use of a key that has been reported by now.
    #[must_use]
    pub fn last_used(&self, key_id: &str) -> Option<KeyUse> {
        let settings = self.settings();
        self.state().keys.get(key_id).and_then(|key| key.last_used(&settings, Instant::now())).cloned()
    }

    /// The boundary of a user.
    #[must_use]
    pub fn boundary(&self, realm: &Realm, user: &str) -> Option<String> {
        self.user(realm, user).boundary
    }

    // ---- for the proxy itself ----

    /// Finds out who signed a request, or how AWS refuses it. `aws_now` is AWS's clock.
    pub(super) fn authenticate(&self, request: &Request, call: &Call, aws_now: Timestamp) -> Result<Caller, AwsError> {
        let Some(authorization) = Authorization::of(request) else {
            // These carry their proof in a parameter and are unsigned by design.
            if matches!(call.action.as_str(), "AssumeRoleWithWebIdentity" | "AssumeRoleWithSAML") {
                let realm = self.home().in_region(&call.region);
                return Ok(Caller { key_id: None, realm, identity: Identity::Anonymous });
            }
            return Err(AwsError::new(403, "MissingAuthenticationToken", "Request is missing Authentication Token"));
        };
        let settings = self.settings();
        let now = Instant::now();
        let key_id = authorization.access_key_id.clone();
        let mut state = self.state();
        let (secret, realm, identity) = if let Some(secret) = state.trusted.get(&key_id) {
            (secret.clone(), self.home(), Identity::Trusted)
        } else {
            let Some(key) = state.keys.get(&key_id) else {
                return Err(AwsError::invalid_client_token());
            };
            // A session without its token, and a user's key with one, are as good as unknown.
            let token = request.headers.get("x-amz-security-token").and_then(|value| value.to_str().ok());
            if !key.is_accepted(&settings, now) || key.token.as_ref().map(Secret::expose) != token {
                return Err(AwsError::invalid_client_token());
            }
            if key.expires.is_some_and(|expires| expires <= aws_now) {
                return Err(AwsError::new(
                    403,
                    "ExpiredToken",
                    "The security token included in the request is expired",
                ));
            }
            (Some(key.secret.clone()), key.realm.clone(), key.owner.clone())
        };
        if authorization.service != call.service.name() {
            return Err(AwsError::new(
                403,
                "SignatureDoesNotMatch",
                format!("Credential should be scoped to correct service: '{}'.", call.service.name()),
            ));
        }
        if let Some(secret) = secret
            && !authorization.was_made_with(secret.expose(), request)
        {
            return Err(AwsError::signature_does_not_match());
        }
        if settings.check_signature_age {
            check_age(request, aws_now)?;
        }
        if let Some(key) = state.keys.get_mut(&key_id) {
            key.used(&settings, now, &authorization.service, &authorization.region);
        }
        let realm = match identity {
            Identity::Trusted => realm.in_region(&authorization.region),
            _ => realm,
        };
        Ok(Caller { key_id: Some(key_id), realm, identity })
    }

    /// Runs the permission checks.
    pub(super) async fn authorize(&self, caller: &Caller, call: &Call) -> Result<(), AwsError> {
        let authorizers = self.authorizers.read().unwrap_or_else(PoisonError::into_inner).clone();
        for authorizer in authorizers {
            authorizer.check(caller, call).await?;
        }
        Ok(())
    }

    /// The caller's ARN, as error messages name it.
    pub(super) fn caller_arn(&self, caller: &Caller) -> String {
        match &caller.identity {
            Identity::User(name) => caller.realm.arn("iam", &format!("user/{name}")),
            Identity::Session { arn, .. } => arn.clone(),
            Identity::Human => caller.realm.arn("iam", "root"),
            Identity::Trusted | Identity::Anonymous => self
                .settings()
                .operator_arn
                .unwrap_or_else(|| caller.realm.arn("sts", "assumed-role/deploy-users/operator")),
        }
    }

    /// The user that owns a key, and where.
    pub(super) fn owner_of(&self, key_id: &str) -> Option<String> {
        match &self.state().keys.get(key_id)?.owner {
            Identity::User(name) => Some(name.clone()),
            _ => None,
        }
    }

    pub(super) fn key(&self, key_id: &str) -> Option<Key> {
        self.state().keys.get(key_id).cloned()
    }

    pub(super) fn key_made(&self, realm: &Realm, user: &str, key_id: &str, secret: &str) {
        self.learn_key(realm.clone(), user, key_id, secret);
    }

    /// A key that only we hold.
    pub(super) fn key_made_beyond_quota(&self, realm: &Realm, user: &str, key_id: &str, secret: &str, at: Timestamp) {
        let owner = Identity::User(user.to_owned());
        let mut key = Key::new(realm.clone(), owner, Secret::new(secret), Instant::now());
        key.beyond_quota = Some(at);
        self.state().keys.insert(key_id.to_owned(), key);
    }

    /// The keys of a user that only we hold and that are not deleted, oldest first.
    pub(super) fn keys_beyond_quota(&self, realm: &Realm, user: &str) -> Vec<(String, KeyState, Timestamp)> {
        let owner = Identity::User(user.to_owned());
        let mut keys: Vec<_> = self
            .state()
            .keys
            .iter()
            // First the test that nearly all keys fail: this runs over thousands of them.
            .filter_map(|(id, key)| Some((id, key, key.beyond_quota?)))
            .filter(|(_, key, _)| key.realm == *realm && key.owner == owner && key.state() != KeyState::Deleted)
            .map(|(id, key, at)| (id.clone(), key.state(), at))
            .collect();
        keys.sort_by_key(|(_, _, at)| *at);
        keys
    }

    pub(super) fn key_changed(&self, key_id: &str, to: KeyState) {
        let now = Instant::now();
        if let Some(key) = self.state().keys.get_mut(key_id)
            && key.state() != to
        {
            key.changes.push((now, to));
        }
    }

    pub(super) fn session_made(&self, session: NewSession) {
        let owner = Identity::Session { arn: session.arn, id: session.id };
        // A session is good at once: only users' keys travel slowly.
        let mut key = Key::new(session.realm, owner, Secret::new(session.secret), Instant::now());
        key.changes = vec![(
            Instant::now().checked_sub(self.settings().activation_delay).unwrap_or(key.created),
            KeyState::Active,
        )];
        key.token = session.token.map(Secret::new);
        key.expires = session.expires;
        self.state().keys.insert(session.key_id, key);
    }

    /// What is known of a user; the default for one we have not heard of.
    pub(super) fn user(&self, realm: &Realm, name: &str) -> User {
        let known = self.state().users.get(&(realm.clone(), name.to_lowercase())).cloned();
        known.unwrap_or_else(|| User { name: name.to_owned(), ..User::default() })
    }

    /// Changes what is known of a user.
    pub(super) fn change_user<T>(&self, realm: &Realm, name: &str, change: impl FnOnce(&mut User) -> T) -> T {
        let mut state = self.state();
        let user = state
            .users
            .entry((realm.clone(), name.to_lowercase()))
            .or_insert_with(|| User { name: name.to_owned(), ..User::default() });
        change(user)
    }

    pub(super) fn user_made(&self, realm: &Realm, name: &str, boundary: Option<String>) {
        let user = User { name: name.to_owned(), boundary, ..User::default() };
        self.state().users.insert((realm.clone(), name.to_lowercase()), user);
    }

    pub(super) fn user_gone(&self, realm: &Realm, name: &str) {
        self.state().users.remove(&(realm.clone(), name.to_lowercase()));
    }

    pub(super) fn user_renamed(&self, realm: &Realm, from: &str, to: &str) {
        let mut state = self.state();
        if let Some(mut user) = state.users.remove(&(realm.clone(), from.to_lowercase())) {
            to.clone_into(&mut user.name);
            state.users.insert((realm.clone(), to.to_lowercase()), user);
        }
        let before = Identity::User(from.to_owned());
        for key in state.keys.values_mut().filter(|key| key.realm == *realm && key.owner == before) {
            key.owner = Identity::User(to.to_owned());
        }
    }

    /// The user whose name is this one but for its case, if IAM has one.
    pub(super) fn same_name_ignoring_case(&self, realm: &Realm, name: &str) -> Option<String> {
        self.state().users.get(&(realm.clone(), name.to_lowercase())).map(|user| user.name.clone())
    }

    /// How many users there are.
    pub(super) fn user_count(&self, realm: &Realm) -> usize {
        self.state().users.keys().filter(|(of, _)| of == realm).count()
    }

    /// Whether the names that were in the emulator before us have been taken in.
    pub(super) fn knows_names(&self, realm: &Realm) -> bool {
        self.state().names_known.contains(realm)
    }

    pub(super) fn learn_names(&self, realm: &Realm, names: Vec<String>) {
        let mut state = self.state();
        for name in names {
            state.users.entry((realm.clone(), name.to_lowercase())).or_insert_with(|| User { name, ..User::default() });
        }
        state.names_known.insert(realm.clone());
    }

    /// Users with a boundary, by name.
    pub(super) fn boundaries(&self, realm: &Realm) -> HashMap<String, String> {
        let state = self.state();
        state
            .users
            .iter()
            .filter(|((of, _), _)| of == realm)
            .filter_map(|(_, user)| Some((user.name.clone(), user.boundary.clone()?)))
            .collect()
    }

    /// Keeps a listing for the pages that follow.
    pub(super) fn keep_listing(&self, token: String, listing: Arc<Listing>) {
        // Some ten lists of 5,000 users, each with all its policies, or very many short ones.
        const ITEMS_KEPT: usize = 50_000;
        let mut state = self.state();
        state.listings.push_back((token, listing));
        let mut items: usize = state.listings.iter().map(|(_, listing)| listing.items.len()).sum();
        while items > ITEMS_KEPT && state.listings.len() > 1 {
            items -= state.listings.pop_front().map_or(0, |(_, listing)| listing.items.len());
        }
    }

    pub(super) fn listing(&self, token: &str) -> Option<Arc<Listing>> {
        self.state().listings.iter().find(|(kept, _)| kept == token).map(|(_, listing)| listing.clone())
    }

    /// Makes check-then-act on one user atomic among all proxies of this account.
    pub(super) async fn lock_user(&self, realm: &Realm, name: &str) -> OwnedMutexGuard<()> {
        let lock = self
            .user_locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((realm.clone(), name.to_lowercase()))
            .or_default()
            .clone();
        lock.lock_owned().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer of `AssumeRole` and its kin hands out.
pub(super) struct NewSession {
    pub(super) realm: Realm,
    pub(super) key_id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
    pub(super) arn: String,
    pub(super) id: String,
    pub(super) expires: Option<Timestamp>,
}

fn check_age(request: &Request, aws_now: Timestamp) -> Result<(), AwsError> {
    const FORMAT: &str = "%Y%m%dT%H%M%SZ";
    let signed_at = request.headers.get("x-amz-date").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parsed = jiff::civil::DateTime::strptime(FORMAT, signed_at)
        .and_then(|signed| signed.to_zoned(jiff::tz::TimeZone::UTC))
        .map(|signed| signed.timestamp());
    let Ok(time) = parsed else {
        return Err(AwsError::new(
            400,
            "IncompleteSignature",
            format!("Date must be in ISO-8601 'basic format'. Got '{signed_at}'."),
        ));
    };
    if aws_now.duration_since(time).abs() > jiff::SignedDuration::from_mins(15) {
        return Err(AwsError::signature_expired(signed_at, &aws_now.strftime(FORMAT).to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aws_proxy::sigv4;

    const SECRET: &str = "a-secret";
    const SEC: Duration = Duration::from_secs(1);

    fn signed(call: &Call, key_id: &str, secret: &str, at: Timestamp) -> Request {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("host", "127.0.0.1:1".parse().unwrap());
        let mut request = Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers,
            body: call.body().into_bytes(),
        };
        let timestamp = at.strftime("%Y%m%dT%H%M%SZ").to_string();
        sigv4::sign(&mut request, key_id, secret, "us-east-1", call.service.name(), &timestamp);
        request
    }

    fn identity(account: &Account, key_id: &str, secret: &str) -> Result<Identity, String> {
        let call = Call::sts("GetCallerIdentity");
        let now = Timestamp::now();
        account
            .authenticate(&signed(&call, key_id, secret, now), &call, now)
            .map(|caller| caller.identity)
            .map_err(|error| error.code)
    }

    fn refused(code: &str) -> Result<Identity, String> {
        Err(code.to_owned())
    }

    #[test]
    fn only_keys_that_were_handed_out_sign_and_only_with_their_secret() {
        let account = Account::new();
        account.learn_key(account.home(), "u", "AKIA1", SECRET);
        assert_eq!(identity(&account, "AKIA1", SECRET), Ok(Identity::User("u".to_owned())));
        assert_eq!(identity(&account, "AKIA1", "wrong"), refused("SignatureDoesNotMatch"));
        assert_eq!(identity(&account, "AKIA2", SECRET), refused("InvalidClientTokenId"));
        assert_eq!(identity(&account, "testing", "anything"), Ok(Identity::Trusted));
        account.trust("operator", Some("its-secret"));
        assert_eq!(identity(&account, "operator", "its-secret"), Ok(Identity::Trusted));
        assert_eq!(identity(&account, "operator", "another"), refused("SignatureDoesNotMatch"));
        account.distrust("testing");
        assert_eq!(identity(&account, "testing", "anything"), refused("InvalidClientTokenId"));
    }

    #[test]
    fn inactive_and_deleted_keys_are_refused_and_come_back() {
        let account = Account::new();
        account.learn_key(account.home(), "u", "AKIA1", SECRET);
        account.key_changed("AKIA1", KeyState::Inactive);
        assert_eq!(identity(&account, "AKIA1", SECRET), refused("InvalidClientTokenId"));
        account.key_changed("AKIA1", KeyState::Active);
        assert!(identity(&account, "AKIA1", SECRET).is_ok());
        account.key_changed("AKIA1", KeyState::Deleted);
        assert_eq!(identity(&account, "AKIA1", SECRET), refused("InvalidClientTokenId"));
        assert_eq!(account.key_state("AKIA1"), Some(KeyState::Deleted));
    }

    #[test]
    fn a_signature_is_good_for_fifteen_minutes_of_aws_time() {
        let account = Account::new();
        let call = Call::iam("GetUser");
        let signed_at = Timestamp::now();
        let request = signed(&call, "testing", "x", signed_at);
        let minutes = |n| signed_at + jiff::SignedDuration::from_mins(n);
        for n in [-14, 0, 14] {
            assert!(account.authenticate(&request, &call, minutes(n)).is_ok(), "{n}");
        }
        for (n, words) in [(-16, "not yet current"), (16, "expired")] {
            let error = account.authenticate(&request, &call, minutes(n)).unwrap_err();
            assert_eq!(error.code, "SignatureDoesNotMatch");
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn a_signature_for_another_service_and_no_signature_are_refused() {
        let account = Account::new();
        let now = Timestamp::now();
        let call = Call::iam("GetUser");
        let for_sts = signed(&Call::sts("GetCallerIdentity"), "testing", "x", now);
        assert_eq!(account.authenticate(&for_sts, &call, now).unwrap_err().code, "SignatureDoesNotMatch");
        let mut unsigned = signed(&call, "testing", "x", now);
        unsigned.headers.remove("authorization");
        assert_eq!(account.authenticate(&unsigned, &call, now).unwrap_err().code, "MissingAuthenticationToken");
        let web_identity = Call::sts("AssumeRoleWithWebIdentity");
        assert_eq!(account.authenticate(&unsigned, &web_identity, now).unwrap().identity, Identity::Anonymous);
    }

    #[test]
    fn a_session_ends() {
        let account = Account::new();
        let expires = Timestamp::now() + jiff::SignedDuration::from_mins(1);
        account.configure(|settings| settings.activation_delay = 60 * SEC);
        account.session_made(NewSession {
            realm: Realm::aws("444455556666"),
            key_id: "ASIA1".to_owned(),
            secret: SECRET.to_owned(),
            token: Some("a-token".to_owned()),
            arn: "arn:aws:sts::444455556666:assumed-role/r/s".to_owned(),
            id: "AROA:s".to_owned(),
            expires: Some(expires),
        });
        let call = Call::iam("ListUsers");
        let now = Timestamp::now();
        let mut request = signed(&call, "ASIA1", SECRET, now);
        assert_eq!(account.authenticate(&request, &call, now).unwrap_err().code, "InvalidClientTokenId");
        request.headers.insert("x-amz-security-token", "a-token".parse().unwrap());
        assert_eq!(account.authenticate(&request, &call, now).unwrap().realm.account, "444455556666");
        let late = expires + jiff::SignedDuration::from_secs(1);
        assert_eq!(account.authenticate(&request, &call, late).unwrap_err().code, "ExpiredToken");
    }

    #[test]
    fn accounts_and_partitions_are_name_spaces_of_their_own() {
        let account = Account::new();
        let home = account.home();
        account.user_made(&home, "Deploy-A", None);
        assert_eq!(account.same_name_ignoring_case(&home, "deploy-a").as_deref(), Some("Deploy-A"));
        assert_eq!(account.same_name_ignoring_case(&home.in_region("cn-north-1"), "deploy-a"), None);
        assert_eq!(account.same_name_ignoring_case(&Realm::aws("999999999999"), "deploy-a"), None);
        assert_ne!(Account::unique().id(), Account::unique().id());
        assert_eq!(Account::unique().id().len(), 12);
    }

    #[test]
    fn secrets_do_not_print() {
        let account = Account::new();
        account.learn_key(account.home(), "u", "AKIA1", SECRET);
        let printed = format!("{account:?} {:?}", account.key("AKIA1"));
        assert!(!printed.contains(SECRET), "{printed}");
        assert!(account.secret_matches("AKIA1", SECRET));
    }
}
