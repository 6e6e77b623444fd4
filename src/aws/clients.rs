//! The clients of all AWS accounts: the operator's own, and those of the roles that classes name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use aws_config::{BehaviorVersion, SdkConfig};
use parking_lot::Mutex;

use super::{
    client::{
        AccountClient, CallObserver, api_caller::ApiCaller, clock::AwsClock, pacer::Pacer, session::RoleSession,
        token_bucket::TokenBucket,
    },
    iam::IamClient,
};
use crate::domain::account::{Role, account_in_arn};

/// Settings of all clients.
pub struct ClientSettings {
    /// Rate limit of each account.
    pub calls_per_second: f64,
    /// Receives every call; records metrics.
    pub observer: Arc<dyn CallObserver>,
    /// Name of role sessions, as `CloudTrail` shows it.
    pub session_name: String,
}

/// One client per role, created at its first use, and one with the operator's own credentials.
pub struct IamClients {
    config: SdkConfig,
    settings: ClientSettings,
    /// Shared by all accounts: roles are assumed within a partition, and a partition has one clock.
    clock: Arc<AwsClock>,
    own: Arc<IamClient>,
    roles: Mutex<HashMap<Role, Arc<IamClient>>>,
}

impl IamClients {
    /// Uses the SDK's default credential chain: environment, web identity (IRSA), Pod Identity, instance metadata.
    /// Makes no call.
    pub async fn connect(settings: ClientSettings) -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
        Self::with_config(config, settings)
    }

    /// Like [`IamClients::connect`], with the given SDK configuration.
    #[must_use]
    pub fn with_config(config: SdkConfig, settings: ClientSettings) -> Self {
        let clock = Arc::new(AwsClock::default());
        let pacer = Arc::new(Pacer::new(TokenBucket::new(settings.calls_per_second, Instant::now())));
        let caller = Arc::new(ApiCaller::new(pacer, Arc::clone(&settings.observer), None));
        let own = Arc::new(IamClient::new(AccountClient::with_own_credentials(&config, caller, Arc::clone(&clock))));
        Self { config, settings, clock, own, roles: Mutex::default() }
    }

    /// The clock of AWS.
    #[must_use]
    pub fn clock(&self) -> &AwsClock {
        &self.clock
    }

    /// The client of a role, or of the operator's own credentials.
    #[must_use]
    pub fn client(&self, role: Option<&Role>) -> Arc<IamClient> {
        let Some(role) = role else { return Arc::clone(&self.own) };
        let mut roles = self.roles.lock();
        if let Some(iam) = roles.get(role) {
            return Arc::clone(iam);
        }
        let account = account_in_arn(&role.arn);
        // AWS throttles an account as a whole, so all roles of one account share a token bucket.
        let sibling = roles
            .values()
            .map(|iam| iam.account().caller())
            .find(|caller| account.is_some() && caller.account() == account);
        let new = || Arc::new(Pacer::new(TokenBucket::new(self.settings.calls_per_second, Instant::now())));
        let pacer = sibling.map_or_else(new, ApiCaller::pacer);
        let caller = Arc::new(ApiCaller::new(pacer, Arc::clone(&self.settings.observer), account));
        let session = RoleSession::new(
            role.clone(),
            self.settings.session_name.clone(),
            self.own.account().sts().clone(),
            Arc::clone(&caller),
            Arc::clone(&self.clock),
        );
        let account = AccountClient::with_session(&self.config, caller, Arc::clone(&self.clock), session);
        let iam = Arc::new(IamClient::new(account));
        roles.insert(role.clone(), Arc::clone(&iam));
        iam
    }

    /// Drops the clients of all other roles. A reconcile that runs keeps its client until it ends.
    pub fn retain_roles(&self, wanted: &HashSet<Role>) {
        self.roles.lock().retain(|role, _| wanted.contains(role));
    }
}
