//! The adapter to one account: about twenty verbs of IAM and STS, each one call unless it says otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_config::{Region, SdkConfig, identity::IdentityCache, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_iam::types::{AttachedPermissionsBoundary, StatusType, Tag, User};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::{DateTime, error::metadata::ProvideErrorMetadata};
use futures::future::BoxFuture;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{
    AwsClock, AwsError, AwsErrorKind, account_details,
    asked::Asked,
    clock::ReadDate,
    document::document,
    line::{HearThrottling, Line},
    session::{Session, SessionCredentials},
};
use crate::domain::{
    console::PasswordPolicy,
    desired::Account,
    secret::KeyMaterial,
    world::{AccessKey, Grants, IamUser},
};

/// One attempt may take this long; IAM answers in well under a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call with its retries may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts of calls that can be repeated without harm.
const ATTEMPTS: u32 = 3;
/// Region when the environment names none: IAM of the commercial partition lives there.
const DEFAULT_REGION: &str = "us-east-1";
const GET_CALLER_IDENTITY: &str = "GetCallerIdentity";

/// Whom AWS takes us for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// ARN of the caller.
    pub arn: String,
    /// Its account.
    pub account: Account,
}

/// What STS says of a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// AWS takes its bearer for this ARN.
    Accepted(String),
    /// AWS does not know the key (yet).
    NotYet,
}

/// IAM and STS of one account, with one set of credentials.
#[allow(clippy::struct_field_names, reason = "the two services have the names they have")]
pub struct Iam {
    pub(super) iam: aws_sdk_iam::Client,
    sts: aws_sdk_sts::Client,
    line: Arc<Line>,
    clock: Arc<AwsClock>,
    /// `None` with the operator's own credentials.
    session: Option<Arc<Session>>,
    identity: Asked<Arc<Identity>>,
    /// The account of the first identity.
    settled: Mutex<Option<String>>,
    pub(super) password_policy: OnceCell<PasswordPolicy>,
    pub(super) details: Asked<account_details::Answer>,
}

impl Iam {
    /// With the credentials of the configuration.
    pub(super) fn of_config(config: &SdkConfig, line: Line, clock: Arc<AwsClock>) -> Self {
        Self::new(config, Arc::new(line), clock, None)
    }

    /// With the session of a role.
    pub(super) fn of_session(config: &SdkConfig, line: Arc<Line>, clock: Arc<AwsClock>, session: Session) -> Self {
        let session = Arc::new(session);
        let config = config
            .clone()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(SessionCredentials(Arc::clone(&session))))
            // The session is the cache.
            .identity_cache(IdentityCache::no_cache())
            .build();
        Self::new(&config, line, clock, Some(session))
    }

    fn new(config: &SdkConfig, line: Arc<Line>, clock: Arc<AwsClock>, session: Option<Arc<Session>>) -> Self {
        // Set in code, not by environment: how often a call is made is part of the protocol.
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let region = config.region().cloned().unwrap_or(Region::from_static(DEFAULT_REGION));
        let iam = aws_sdk_iam::config::Builder::from(config)
            .region(region.clone())
            .retry_config(retries.clone())
            .timeout_config(timeouts.clone())
            .interceptor(ReadDate(Arc::clone(&clock)))
            .interceptor(HearThrottling(Arc::clone(&line)))
            .build();
        let sts = aws_sdk_sts::config::Builder::from(config)
            .region(region)
            .retry_config(retries)
            .timeout_config(timeouts)
            .interceptor(ReadDate(Arc::clone(&clock)))
            .interceptor(HearThrottling(Arc::clone(&line)))
            .build();
        Self {
            iam: aws_sdk_iam::Client::from_conf(iam),
            sts: aws_sdk_sts::Client::from_conf(sts),
            line,
            clock,
            session,
            identity: Asked::default(),
            settled: Mutex::default(),
            password_policy: OnceCell::new(),
            details: Asked::default(),
        }
    }

    pub(super) fn sts(&self) -> &aws_sdk_sts::Client {
        &self.sts
    }

    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    /// AWS's clock.
    #[must_use]
    pub fn clock(&self) -> &AwsClock {
        &self.clock
    }

    /// Whom AWS takes the operator for; asked once, and again after AWS has refused the credentials. No other call is
    /// made before it is known.
    ///
    /// # Errors
    /// Besides those of AWS: when the credentials are of another account than at first. The next one to ask is told the
    /// new account, and has to compare it before it goes on.
    pub fn identity(&self) -> BoxFuture<'_, Result<Arc<Identity>, AwsError>> {
        // Every call waits for it, nearly always in vain: what it holds must not lie on the stack of each.
        Box::pin(self.settled_identity())
    }

    async fn settled_identity(&self) -> Result<Arc<Identity>, AwsError> {
        if let Some(session) = &self.session {
            session.ready().await?;
        }
        let identity = self.identity.get(|_| true, || self.ask_identity()).await?;
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        match settled.replace(identity.account.id.clone()) {
            Some(before) if before != identity.account.id => Err(AwsError {
                operation: GET_CALLER_IDENTITY,
                kind: AwsErrorKind::Credentials,
                message: format!(
                    "the credentials are of account {} now, and were of account {before}",
                    identity.account.id
                ),
                request_id: None,
            }),
            _ => Ok(identity),
        }
    }

    async fn ask_identity(&self) -> Result<Arc<Identity>, AwsError> {
        let request = async {
            let answer = self.sts.get_caller_identity().send().await;
            // Before the call is told of: from now on its account is known.
            if let Some(account) = answer.as_ref().ok().and_then(|answer| answer.account()) {
                self.line.leads_to(account);
            }
            answer
        };
        let key_id = self.session.as_ref().and_then(|session| session.key_id());
        let answer = self.watch(key_id.as_deref(), Box::pin(self.line.call(GET_CALLER_IDENTITY, request)).await)?;
        let arn = answer.arn().unwrap_or_default().to_owned();
        let partition = arn.split(':').nth(1).filter(|part| !part.is_empty()).unwrap_or("aws").to_owned();
        let id = answer.account().unwrap_or_default().to_owned();
        tracing::info!(account = id, arn, "whom AWS takes the operator for");
        Ok(Arc::new(Identity { arn, account: Account { partition, id, users_may_change_passwords: false } }))
    }

    /// The user with its tags, without keys and grants. `None` only when IAM says `NoSuchEntity`.
    pub async fn user(&self, name: &str) -> Result<Option<IamUser>, AwsError> {
        let answer = self.call("GetUser", self.iam.get_user().user_name(name).send()).await;
        Ok(absent(answer)?.and_then(|answer| answer.user).map(|user| user_facts(&user)))
    }

    /// Whether a managed policy exists.
    pub async fn policy_exists(&self, arn: &str) -> Result<bool, AwsError> {
        let answer = self.call("GetPolicy", self.iam.get_policy().policy_arn(arn).send()).await;
        Ok(absent(answer)?.is_some())
    }

    /// Finds a user whose name differs only in case: IAM refuses the name and does not say whose it is.
    /// One call per page of users; for messages only.
    pub async fn user_ignoring_case(&self, name: &str) -> Result<Option<IamUser>, AwsError> {
        let mut marker = None;
        loop {
            let page = self.call("ListUsers", self.iam.list_users().set_marker(marker).max_items(1000).send()).await?;
            if let Some(user) = page.users().iter().find(|user| user.user_name().eq_ignore_ascii_case(name)) {
                // Lists carry no tags.
                return self.user(user.user_name()).await;
            }
            marker = next(page.is_truncated(), page.marker());
            if marker.is_none() {
                return Ok(None);
            }
        }
    }

    /// All access keys of the user.
    pub async fn access_keys(&self, user: &str) -> Result<Vec<AccessKey>, AwsError> {
        let mut keys = Vec::new();
        let mut marker = None;
        loop {
            let page = self
                .call("ListAccessKeys", self.iam.list_access_keys().user_name(user).set_marker(marker).send())
                .await?;
            keys.extend(page.access_key_metadata().iter().filter_map(|key| {
                Some(AccessKey {
                    id: key.access_key_id()?.to_owned(),
                    // Anything but Inactive is taken for a key that works.
                    active: key.status() != Some(&StatusType::Inactive),
                    created_at: key.create_date().map(timestamp).unwrap_or_default(),
                })
            }));
            marker = next(page.is_truncated(), page.marker());
            if marker.is_none() {
                return Ok(keys);
            }
        }
    }

    /// All policies and groups of the user: three lists, and one call per inline policy.
    pub async fn grants(&self, user: &str) -> Result<Grants, AwsError> {
        let (attached, names, groups) = tokio::try_join!(
            Box::pin(self.attached_policies(user)),
            Box::pin(self.inline_policy_names(user)),
            Box::pin(self.groups(user))
        )?;
        let mut inline = BTreeMap::new();
        for name in names {
            if let Some(document) = self.inline_policy(user, &name).await? {
                inline.insert(name, document);
            }
        }
        Ok(Grants { attached, inline, groups })
    }

    async fn attached_policies(&self, user: &str) -> Result<BTreeSet<String>, AwsError> {
        let mut arns = BTreeSet::new();
        let mut marker = None;
        loop {
            let page = self
                .call(
                    "ListAttachedUserPolicies",
                    self.iam.list_attached_user_policies().user_name(user).set_marker(marker).send(),
                )
                .await?;
            arns.extend(page.attached_policies().iter().filter_map(|policy| policy.policy_arn().map(str::to_owned)));
            marker = next(page.is_truncated(), page.marker());
            if marker.is_none() {
                return Ok(arns);
            }
        }
    }

    async fn groups(&self, user: &str) -> Result<BTreeSet<String>, AwsError> {
        let mut groups = BTreeSet::new();
        let mut marker = None;
        loop {
            let page = self
                .call("ListGroupsForUser", self.iam.list_groups_for_user().user_name(user).set_marker(marker).send())
                .await?;
            groups.extend(page.groups().iter().map(|group| group.group_name().to_owned()));
            marker = next(page.is_truncated(), page.marker());
            if marker.is_none() {
                return Ok(groups);
            }
        }
    }

    async fn inline_policy_names(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let mut names = Vec::new();
        let mut marker = None;
        loop {
            let page = self
                .call("ListUserPolicies", self.iam.list_user_policies().user_name(user).set_marker(marker).send())
                .await?;
            names.extend_from_slice(page.policy_names());
            marker = next(page.is_truncated(), page.marker());
            if marker.is_none() {
                return Ok(names);
            }
        }
    }

    async fn inline_policy(&self, user: &str, name: &str) -> Result<Option<Value>, AwsError> {
        let answer =
            self.call("GetUserPolicy", self.iam.get_user_policy().user_name(user).policy_name(name).send()).await;
        Ok(absent(answer)?.map(|answer| document(answer.policy_document())))
    }

    /// When a key was last used; `None` if never, or not within AWS's record.
    pub async fn last_used(&self, key_id: &str) -> Result<Option<Timestamp>, AwsError> {
        let answer =
            self.call("GetAccessKeyLastUsed", self.iam.get_access_key_last_used().access_key_id(key_id).send()).await;
        Ok(absent(answer)?
            .and_then(|answer| answer.access_key_last_used)
            .and_then(|used| used.last_used_date)
            .map(|date| timestamp(&date)))
    }

    /// Creates the user with path, boundary and tags in one call: a lost answer leaves a user that carries our marks.
    pub async fn create_user(
        &self,
        name: &str,
        path: &str,
        boundary: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Result<IamUser, AwsError> {
        let request = self.iam.create_user().user_name(name).path(path).set_tags(Some(to_tags(tags)));
        let request = request.set_permissions_boundary(boundary.map(str::to_owned));
        let answer = self.call("CreateUser", request.send()).await?;
        let mut user = answer.user.as_ref().map(user_facts).unwrap_or_default();
        // Some answers leave the tags out; they were set in this very call.
        user.tags.clone_from(tags);
        user.boundary = boundary.map(str::to_owned);
        user.grants = Some(Grants::default());
        Ok(user)
    }

    /// Sets tags. Can be repeated.
    pub async fn tag_user(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), AwsError> {
        self.call("TagUser", self.iam.tag_user().user_name(name).set_tags(Some(to_tags(tags))).send()).await.map(drop)
    }

    /// Removes tags. Can be repeated; tags that are not there are no error.
    pub async fn untag_user(&self, name: &str, keys: &BTreeSet<String>) -> Result<(), AwsError> {
        let request = self.iam.untag_user().user_name(name).set_tag_keys(Some(keys.iter().cloned().collect()));
        absent(self.call("UntagUser", request.send()).await).map(drop)
    }

    /// Attaches a managed policy. Can be repeated.
    pub async fn attach_policy(&self, user: &str, arn: &str) -> Result<(), AwsError> {
        self.call("AttachUserPolicy", self.iam.attach_user_policy().user_name(user).policy_arn(arn).send())
            .await
            .map(drop)
    }

    /// Detaches a managed policy. Can be repeated.
    pub async fn detach_policy(&self, user: &str, arn: &str) -> Result<(), AwsError> {
        absent(
            self.call("DetachUserPolicy", self.iam.detach_user_policy().user_name(user).policy_arn(arn).send()).await,
        )
        .map(drop)
    }

    /// Writes an inline policy. Can be repeated.
    pub async fn put_inline_policy(&self, user: &str, name: &str, document: &Value) -> Result<(), AwsError> {
        let request =
            self.iam.put_user_policy().user_name(user).policy_name(name).policy_document(document.to_string());
        self.call("PutUserPolicy", request.send()).await.map(drop)
    }

    /// Removes an inline policy. Can be repeated.
    pub async fn delete_inline_policy(&self, user: &str, name: &str) -> Result<(), AwsError> {
        absent(
            self.call("DeleteUserPolicy", self.iam.delete_user_policy().user_name(user).policy_name(name).send()).await,
        )
        .map(drop)
    }

    /// Puts the user into a group. Can be repeated.
    pub async fn add_to_group(&self, user: &str, group: &str) -> Result<(), AwsError> {
        let request = self.iam.add_user_to_group().user_name(user).group_name(group);
        self.call("AddUserToGroup", request.send()).await.map(drop)
    }

    /// Takes the user out of a group. Can be repeated.
    pub async fn remove_from_group(&self, user: &str, group: &str) -> Result<(), AwsError> {
        let request = self.iam.remove_user_from_group().user_name(user).group_name(group);
        absent(self.call("RemoveUserFromGroup", request.send()).await).map(drop)
    }

    /// Sets the permissions boundary. Can be repeated.
    pub async fn put_boundary(&self, user: &str, arn: &str) -> Result<(), AwsError> {
        let request = self.iam.put_user_permissions_boundary().user_name(user).permissions_boundary(arn);
        self.call("PutUserPermissionsBoundary", request.send()).await.map(drop)
    }

    /// Makes an access key. **Not idempotent**: the secret is shown once, there is no client token,
    /// and the SDK's retries would leave a second key whose secret nobody holds. So there is
    /// exactly one attempt, here and nowhere else.
    ///
    /// # Errors
    /// When the kind of the error is not definite, a key may have been made.
    pub async fn create_access_key(&self, user: &str) -> Result<(KeyMaterial, Timestamp), AwsError> {
        let once = aws_sdk_iam::config::Builder::new().retry_config(RetryConfig::disabled());
        let request = self.iam.create_access_key().user_name(user).customize().config_override(once);
        let answer = self.call("CreateAccessKey", request.send()).await?;
        let key = answer.access_key.ok_or_else(|| AwsError {
            operation: "CreateAccessKey",
            kind: AwsErrorKind::Service,
            message: "AWS answered without a key".to_owned(),
            request_id: None,
        })?;
        let created_at = key.create_date().map_or_else(|| self.clock.now(), timestamp);
        let aws_sdk_iam::types::AccessKey { access_key_id, secret_access_key, .. } = key;
        Ok((KeyMaterial { id: access_key_id, secret: secret_access_key.into() }, created_at))
    }

    /// Sets a key Inactive. Can be repeated; a key that is gone counts as done and gives false.
    pub async fn deactivate_access_key(&self, user: &str, id: &str) -> Result<bool, AwsError> {
        let request = self.iam.update_access_key().user_name(user).access_key_id(id).status(StatusType::Inactive);
        Ok(absent(self.call("UpdateAccessKey", request.send()).await)?.is_some())
    }

    /// Deletes a key. Can be repeated.
    pub async fn delete_access_key(&self, user: &str, id: &str) -> Result<(), AwsError> {
        absent(
            self.call("DeleteAccessKey", self.iam.delete_access_key().user_name(user).access_key_id(id).send()).await,
        )
        .map(drop)
    }

    /// Deletes the user. Can be repeated: false when there was none. `DeleteConflict` when something still hangs on it.
    pub async fn delete_user(&self, name: &str) -> Result<bool, AwsError> {
        let answer = self.call("DeleteUser", self.iam.delete_user().user_name(name).send()).await;
        absent(answer).map(|deleted| deleted.is_some())
    }

    /// Asks STS once whether it accepts a key. Needs no permission, works under an explicit deny.
    /// Never ask with a key that is on its way out: the question counts as a use of it.
    pub async fn verify_key(&self, key: &KeyMaterial) -> Result<Acceptance, AwsError> {
        let credentials = Credentials::new(key.id.clone(), key.secret.expose_secret(), None, None, "staged access key");
        let with_key =
            aws_sdk_sts::config::Builder::new().credentials_provider(credentials).retry_config(RetryConfig::disabled());
        let request = self.sts.get_caller_identity().customize().config_override(with_key);
        // Not our credentials: whatever AWS says of them, ours are as good as before.
        match Box::pin(self.line.call(GET_CALLER_IDENTITY, request.send())).await {
            Ok(answer) => Ok(Acceptance::Accepted(answer.arn().unwrap_or_default().to_owned())),
            Err(error) if matches!(error.kind, AwsErrorKind::Credentials | AwsErrorKind::AccessDenied) => {
                Ok(Acceptance::NotYet)
            }
            Err(error) => Err(error),
        }
    }

    /// A call with the credentials of the account.
    pub(super) fn call<'a, T, E>(
        &'a self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + 'a,
    ) -> impl Future<Output = Result<T, AwsError>> + 'a
    where
        T: 'a,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        // Futures of the SDK take kilobytes, and each layer that they pass through as they are doubles that on the stack.
        let call = Box::pin(self.line.call(operation, request));
        async move {
            self.identity().await?;
            let key_id = self.session.as_ref().and_then(|session| session.key_id());
            self.watch(key_id.as_deref(), call.await)
        }
    }

    /// Credentials that AWS did not take are not taken for granted any more: neither the session nor whose they are.
    fn watch<T>(&self, key_id: Option<&str>, answer: Result<T, AwsError>) -> Result<T, AwsError> {
        if answer.as_ref().is_err_and(|error| error.kind == AwsErrorKind::Credentials) {
            self.identity.forget(|_| true);
            if let (Some(session), Some(key_id)) = (&self.session, key_id) {
                session.refused(key_id);
            }
        }
        answer
    }
}

/// `NoSuchEntity` as `None`; every other error stays an error.
pub(super) fn absent<T>(answer: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == AwsErrorKind::NoSuchEntity => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the next page starts. A page may be shorter than asked for, even empty, and still not be the last.
pub(super) fn next(truncated: bool, marker: Option<&str>) -> Option<String> {
    marker.filter(|marker| truncated && !marker.is_empty()).map(str::to_owned)
}

fn user_facts(user: &User) -> IamUser {
    IamUser {
        name: user.user_name().to_owned(),
        arn: user.arn().to_owned(),
        id: user.user_id().to_owned(),
        tags: to_map(user.tags()),
        keys: Vec::new(),
        boundary: boundary_arn(user.permissions_boundary()),
        grants: None,
        leftovers: None,
        login: None,
    }
}

/// Tags as a map.
pub(super) fn to_map(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

/// The ARN of a permissions boundary.
pub(super) fn boundary_arn(boundary: Option<&AttachedPermissionsBoundary>) -> Option<String> {
    boundary.and_then(AttachedPermissionsBoundary::permissions_boundary_arn).map(str::to_owned)
}

fn to_tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    // Key and value are always given, so building a tag cannot fail.
    tags.iter().filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok()).collect()
}

fn timestamp(date: &DateTime) -> Timestamp {
    Timestamp::from_second(date.secs()).unwrap_or_default()
}
