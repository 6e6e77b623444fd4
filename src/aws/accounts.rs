//! The accounts that the operator works in: its own, and those whose roles the classes name.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aws_config::{BehaviorVersion, SdkConfig};

use super::{AwsClock, CallObserver, api_caller::ApiCaller, bucket::Bucket, iam::IamClient, session::Session};
use crate::domain::account::{Role, account_in_arn};

/// How to reach AWS.
pub struct ClientSettings {
    /// Calls per second and account, at the most.
    pub calls_per_second: f64,
    /// Told of every call.
    pub observer: Arc<dyn CallObserver>,
    /// Name of the sessions of roles.
    pub session_name: String,
}

/// One client for each way into an account, made when it is first asked for.
pub struct IamClients {
    config: SdkConfig,
    connection: ClientSettings,
    /// One for all: roles are assumed within a partition, and a partition has one clock.
    clock: Arc<AwsClock>,
    own: Arc<IamClient>,
    roles: Mutex<HashMap<Role, Arc<IamClient>>>,
}

impl IamClients {
    /// Connects with the SDK's default chain of credentials: environment, web identity (IRSA),
    /// Pod Identity, instance metadata. Nothing is called before the first verb.
    pub async fn connect(connection: ClientSettings) -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
        Self::with_config(config, connection)
    }

    /// Like [`IamClients::connect`], with the SDK's configuration given.
    #[must_use]
    pub fn with_config(config: SdkConfig, connection: ClientSettings) -> Self {
        let clock = Arc::new(AwsClock::default());
        let bucket = Arc::new(Bucket::new(connection.calls_per_second, Instant::now()));
        let line = ApiCaller::new(bucket, Arc::clone(&connection.observer), None);
        let own = Arc::new(IamClient::of_config(&config, line, Arc::clone(&clock)));
        Self { config, connection, clock, own, roles: Mutex::default() }
    }

    /// AWS's clock.
    #[must_use]
    pub fn clock(&self) -> &AwsClock {
        &self.clock
    }

    /// The account of a role, or the operator's own.
    #[must_use]
    pub fn client(&self, role: Option<&Role>) -> Arc<IamClient> {
        let Some(role) = role else { return Arc::clone(&self.own) };
        let mut roles = self.lock();
        if let Some(iam) = roles.get(role) {
            return Arc::clone(iam);
        }
        let account = account_in_arn(&role.arn);
        // Who gets there by another role is throttled together with this one.
        let pace = roles.values().map(|iam| iam.line()).find(|line| account.is_some() && line.account() == account);
        let new = || Arc::new(Bucket::new(self.connection.calls_per_second, Instant::now()));
        let bucket = pace.map_or_else(new, ApiCaller::bucket);
        let line = Arc::new(ApiCaller::new(bucket, Arc::clone(&self.connection.observer), account));
        let session = Session::new(
            role.clone(),
            self.connection.session_name.clone(),
            self.own.sts().clone(),
            Arc::clone(&line),
            Arc::clone(&self.clock),
        );
        let iam = Arc::new(IamClient::of_session(&self.config, line, Arc::clone(&self.clock), session));
        roles.insert(role.clone(), Arc::clone(&iam));
        iam
    }

    /// Drops what belongs to other roles than these. Passes under way keep theirs to their end.
    pub fn retain_roles(&self, wanted: &HashSet<Role>) {
        self.lock().retain(|role, _| wanted.contains(role));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Role, Arc<IamClient>>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
