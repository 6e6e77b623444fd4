//! An AWS account for tests without Kubernetes.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use awsdeploy::aws::{ClientSettings, IamClients};
use awsdeploy_testkit::{
    aws_proxy::{Account, StrictAws},
    emulator::AwsAccess,
};

use super::shared::{shared, start_aws};

pub(crate) struct TestAccount {
    pub(crate) account: Arc<Account>,
    proxy: StrictAws,
}

impl TestAccount {
    pub(crate) async fn new() -> Self {
        let account = Account::unique();
        let proxy = start_aws(shared().await, &account).await;
        Self { account, proxy }
    }

    /// The operator's AWS client for this account, on the real SDK.
    pub(crate) async fn accounts(&self) -> IamClients {
        let access = AwsAccess::administrator(self.address());
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(access.region))
            .endpoint_url(access.endpoint)
            .credentials_provider(Credentials::new(access.access_key_id, access.secret_access_key, None, None, "test"))
            .load()
            .await;
        let connection =
            ClientSettings { calls_per_second: 1000.0, observer: Arc::new(()), session_name: "it".to_owned() };
        IamClients::with_config(config, connection)
    }
}

impl std::ops::Deref for TestAccount {
    type Target = StrictAws;

    fn deref(&self) -> &StrictAws {
        &self.proxy
    }
}
