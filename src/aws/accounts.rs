//! The accounts that the operator works in: its own, and those whose roles the classes name.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aws_config::{BehaviorVersion, SdkConfig};

use super::{AwsClock, CallObserver, bucket::Bucket, iam::Iam, line::Line, session::Session};
use crate::domain::account::{Role, account_of};

/// How to reach AWS.
pub struct Connection {
    /// Calls per second and account, at the most.
    pub rate: f64,
    /// Told of every call.
    pub observer: Arc<dyn CallObserver>,
    /// Name of the sessions of roles.
    pub session_name: String,
}

/// One client for each way into an account, made when it is first asked for.
pub struct Accounts {
    config: SdkConfig,
    connection: Connection,
    /// One for all: roles are assumed within a partition, and a partition has one clock.
    clock: Arc<AwsClock>,
    own: Arc<Iam>,
    roles: Mutex<HashMap<Role, Arc<Iam>>>,
}

impl Accounts {
    /// Connects with the SDK's default chain of credentials: environment, web identity (IRSA),
    /// Pod Identity, instance metadata. Nothing is called before the first verb.
    pub async fn connect(connection: Connection) -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
        Self::with_config(config, connection)
    }

    /// Like [`Accounts::connect`], with the SDK's configuration given.
    #[must_use]
    pub fn with_config(config: SdkConfig, connection: Connection) -> Self {
        let clock = Arc::new(AwsClock::default());
        let bucket = Arc::new(Bucket::new(connection.rate, Instant::now()));
        let line = Line::new(bucket, Arc::clone(&connection.observer), None);
        let own = Arc::new(Iam::of_config(&config, line, Arc::clone(&clock)));
        Self { config, connection, clock, own, roles: Mutex::default() }
    }

    /// AWS's clock.
    #[must_use]
    pub fn clock(&self) -> &AwsClock {
        &self.clock
    }

    /// The account of a role, or the operator's own.
    #[must_use]
    pub fn of(&self, role: Option<&Role>) -> Arc<Iam> {
        let Some(role) = role else { return Arc::clone(&self.own) };
        let mut roles = self.lock();
        if let Some(iam) = roles.get(role) {
            return Arc::clone(iam);
        }
        let account = account_of(&role.arn);
        // Who gets there by another role is throttled together with this one.
        let pace = roles.values().map(|iam| iam.line()).find(|line| account.is_some() && line.account() == account);
        let new = || Arc::new(Bucket::new(self.connection.rate, Instant::now()));
        let bucket = pace.map_or_else(new, Line::bucket);
        let line = Arc::new(Line::new(bucket, Arc::clone(&self.connection.observer), account));
        let session = Session::new(
            role.clone(),
            self.connection.session_name.clone(),
            self.own.sts().clone(),
            Arc::clone(&line),
            Arc::clone(&self.clock),
        );
        let iam = Arc::new(Iam::of_session(&self.config, line, Arc::clone(&self.clock), session));
        roles.insert(role.clone(), Arc::clone(&iam));
        iam
    }

    /// Drops what belongs to other roles than these. Passes under way keep theirs to their end.
    pub fn keep_only(&self, wanted: &HashSet<Role>) {
        self.lock().retain(|role, _| wanted.contains(role));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Role, Arc<Iam>>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
