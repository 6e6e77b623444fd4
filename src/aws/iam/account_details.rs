//! All of the operator's users of an account in one read, which replaces the calls that compare each user by itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_iam::types::{EntityType, ManagedPolicyDetail, UserDetail};
use tokio::time::timeout;

use super::{
    IamClient,
    convert::{boundary_arn, next_marker, tags_to_map},
    policy_document::decode_document,
};
use crate::{
    aws::{AwsError, AwsErrorKind},
    domain::{
        current_state::{Grants, IamUser},
        managed_policy::{self, CurrentPolicy, DocumentDigest, PolicyOwner, version_number},
        owner::Owner,
    },
};

const OPERATION: &str = "GetAccountAuthorizationDetails";
/// Upper bound; AWS may return smaller pages.
const PAGE_SIZE: i32 = 1000;
/// Calls that the details of one user replace: `GetUser`, and three lists of its grants.
const CALLS_REPLACED_PER_USER: usize = 4;
/// Limit of all pages together. Callers hold a permit; bound the read.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause after the pages cost more calls than they replaced: the account has many users of other owners.
const INEFFICIENT_PAUSE: Duration = Duration::from_hours(1);
/// Pause after AWS rejected the operation: a policy has to change first.
const REJECTED_PAUSE: Duration = Duration::from_hours(1);
/// Pause after a server error, a time-out, or repeated failures to reach the operation.
const FAILING_PAUSE: Duration = Duration::from_mins(5);
/// Pause after AWS throttled the operation.
const THROTTLED_PAUSE: Duration = Duration::from_mins(1);
/// Consecutive unreachable calls after which the operation itself counts as failing, and not the network.
const MAX_UNREACHABLE: u32 = 3;

/// The operator's users as `GetAccountAuthorizationDetails` returns them: without access keys and console passwords.
#[derive(Debug)]
pub struct AccountDetails {
    read_at: Instant,
    /// By lower-case name: IAM's names are unique ignoring case.
    users: HashMap<String, IamUser>,
    /// Policies of documents, by ARN. `None` if they were not asked for. Their tags are not part of the response.
    policies: Option<HashMap<String, CurrentPolicy>>,
}

impl AccountDetails {
    /// When the read began.
    #[must_use]
    pub fn read_at(&self) -> Instant {
        self.read_at
    }

    /// The user with the ownership tags of this resource, whatever its name.
    #[must_use]
    pub fn user_of(&self, owner: &Owner) -> Option<&IamUser> {
        self.users.values().find(|user| owner.owns(&user.tags))
    }

    /// The policies of documents at this path. `None` if policies were not read.
    #[must_use]
    pub fn policies_at<'a>(&'a self, path: &'a str) -> Option<impl Iterator<Item = &'a CurrentPolicy>> {
        let policies = self.policies.as_ref()?;
        Some(policies.values().filter(move |policy| managed_policy::path_of(&policy.arn) == Some(path)))
    }

    /// The user of this name, if it is one of the operator's.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&IamUser> {
        self.users.get(&name.to_ascii_lowercase())
    }
}

/// Whether the details of an account can be read.
#[derive(Clone)]
pub enum AccountRead {
    Read(Arc<AccountDetails>),
    /// Each user has to be read by itself: AWS rejects the operation or does not offer it, or reading the users of other owners
    /// costs more calls than it replaces.
    Unavailable,
    /// AWS throttled the operation, which is not called again before `until`.
    Throttled {
        until: Instant,
        error: AwsError,
    },
}

#[derive(Clone)]
pub(super) enum CachedDetails {
    Read(Arc<AccountDetails>),
    UnavailableUntil(Instant),
    Throttled { until: Instant, error: AwsError },
}

impl CachedDetails {
    /// Whether the details were read after `since`, or are known to be unavailable.
    fn is_valid(&self, since: Instant) -> bool {
        match self {
            Self::Read(details) => details.read_at > since,
            Self::UnavailableUntil(until) | Self::Throttled { until, .. } => Instant::now() < *until,
        }
    }

    fn unavailable_for(pause: Duration) -> Self {
        Self::UnavailableUntil(Instant::now() + pause)
    }
}

impl IamClient {
    /// Reads the operator's users of the account, not older than `since`; concurrent callers share one read. `has_policies`:
    /// some resource has managed policies, so that they are read too.
    ///
    /// # Errors
    /// When AWS is unreachable or rejects the credentials: reading each user by itself would fail as well.
    pub async fn get_account_details(
        &self,
        since: Instant,
        is_ours: impl Fn(&BTreeMap<String, String>) -> bool,
        has_policies: impl Fn() -> bool,
    ) -> Result<AccountRead, AwsError> {
        let read = async || {
            timeout(READ_TIMEOUT, self.read_account_details(is_ours, has_policies())).await.unwrap_or_else(|_| {
                tracing::warn!(
                    limit = ?READ_TIMEOUT, pause = ?FAILING_PAUSE,
                    "reading account details timed out, comparing users one by one"
                );
                Ok(CachedDetails::unavailable_for(FAILING_PAUSE))
            })
        };
        Ok(match self.details.get(|cached| cached.is_valid(since), read).await? {
            CachedDetails::Read(details) => AccountRead::Read(details),
            CachedDetails::UnavailableUntil(_) => AccountRead::Unavailable,
            CachedDetails::Throttled { until, error } => AccountRead::Throttled { until, error },
        })
    }

    async fn read_account_details(
        &self,
        is_ours: impl Fn(&BTreeMap<String, String>) -> bool,
        with_policies: bool,
    ) -> Result<CachedDetails, AwsError> {
        let read_at = Instant::now();
        let (mut users, mut pages, mut marker) = (HashMap::new(), 0, None);
        let mut policies = with_policies.then(HashMap::new);
        loop {
            let kinds = [EntityType::User].into_iter().chain(with_policies.then_some(EntityType::LocalManagedPolicy));
            let request = self.iam.get_account_authorization_details().set_filter(Some(kinds.collect()));
            let request = request.max_items(PAGE_SIZE);
            let page = match self.call(OPERATION, request.set_marker(marker).send()).await {
                Ok(page) => {
                    self.details_unreachable.store(0, Ordering::Relaxed);
                    page
                }
                Err(error) => return unavailable_or_error(error, &self.details_unreachable),
            };
            pages += 1;
            for detail in page.user_detail_list() {
                let tags = tags_to_map(detail.tags());
                if is_ours(&tags) {
                    let user = iam_user(detail, tags);
                    users.insert(user.name.to_ascii_lowercase(), user);
                }
            }
            if let Some(policies) = &mut policies {
                let of_documents = page.policies().iter().filter_map(current_policy);
                policies.extend(of_documents.map(|policy| (policy.arn.clone(), policy)));
            }
            marker = match next_marker(OPERATION, page.is_truncated(), page.marker()) {
                Ok(marker) => marker,
                Err(error) => return unavailable_or_error(error, &self.details_unreachable),
            };
            if marker.is_none() {
                break;
            }
        }
        if pages > CALLS_REPLACED_PER_USER * users.len() {
            tracing::info!(
                pages, users = users.len(), pause = ?INEFFICIENT_PAUSE,
                "account details cost more calls than they replace, comparing users one by one"
            );
            return Ok(CachedDetails::unavailable_for(INEFFICIENT_PAUSE));
        }
        tracing::debug!(pages, users = users.len(), took = ?read_at.elapsed(), "read account details");
        Ok(CachedDetails::Read(Arc::new(AccountDetails { read_at, users, policies })))
    }
}

/// Whether a failure concerns this operation alone, which other reads can replace, or every call. `unreachable` counts
/// consecutive calls without a response.
fn unavailable_or_error(error: AwsError, unreachable: &AtomicU32) -> Result<CachedDetails, AwsError> {
    match error.kind {
        // The response of this operation is the largest: it may be the only one that times out.
        AwsErrorKind::Unreachable
            if (unreachable.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(MAX_UNREACHABLE) =>
        {
            Ok(failing(&error))
        }
        AwsErrorKind::Throttled => {
            tracing::warn!(%error, pause = ?THROTTLED_PAUSE, "AWS throttles reading account details, using earlier reads");
            Ok(CachedDetails::Throttled { until: Instant::now() + THROTTLED_PAUSE, error })
        }
        AwsErrorKind::Unreachable | AwsErrorKind::Credentials | AwsErrorKind::ClockSkew => Err(error),
        AwsErrorKind::Service => Ok(failing(&error)),
        _ => {
            tracing::warn!(
                %error, pause = ?REJECTED_PAUSE,
                "AWS rejects reading account details, comparing users one by one at five calls each; allow iam:{OPERATION} in the operator's policy as `iam-policy` prints it, or set --account-details=false"
            );
            Ok(CachedDetails::unavailable_for(REJECTED_PAUSE))
        }
    }
}

fn failing(error: &AwsError) -> CachedDetails {
    tracing::warn!(
        %error, pause = ?FAILING_PAUSE,
        "failed to read account details, comparing users one by one at five calls each"
    );
    CachedDetails::unavailable_for(FAILING_PAUSE)
}

/// A policy of a document. `None` for one of another form. Whose it is only its tags say.
fn current_policy(detail: &ManagedPolicyDetail) -> Option<CurrentPolicy> {
    let arn = detail.arn().filter(|arn| managed_policy::is_of_a_document(arn))?;
    let versions = detail.policy_version_list();
    let document = |version: &aws_sdk_iam::types::PolicyVersion| {
        let digest = DocumentDigest::of(&decode_document(version.document()?));
        Some((version.version_id()?.to_owned(), digest))
    };
    let mut ids: Vec<String> = versions.iter().filter_map(|version| version.version_id().map(str::to_owned)).collect();
    ids.sort_by_key(|version| version_number(version));
    Some(CurrentPolicy {
        arn: arn.to_owned(),
        id: detail.policy_id()?.to_owned(),
        owner: PolicyOwner::Other(String::new()),
        default_version: detail.default_version_id()?.to_owned(),
        documents: versions.iter().filter_map(document).collect(),
        content: None,
        attachments: detail.attachment_count().unwrap_or_default(),
        versions: Some(ids),
        holders: None,
    })
}

fn iam_user(detail: &UserDetail, tags: BTreeMap<String, String>) -> IamUser {
    let inline = detail.user_policy_list().iter().filter_map(|policy| {
        Some((policy.policy_name()?.to_owned(), decode_document(policy.policy_document().unwrap_or_default())))
    });
    IamUser {
        name: detail.user_name().unwrap_or_default().to_owned(),
        arn: detail.arn().unwrap_or_default().to_owned(),
        id: detail.user_id().unwrap_or_default().to_owned(),
        tags,
        keys: Vec::new(),
        boundary: boundary_arn(detail.permissions_boundary()),
        grants: Some(Grants {
            attached: detail
                .attached_managed_policies()
                .iter()
                .filter_map(|policy| policy.policy_arn().map(str::to_owned))
                .collect(),
            inline: inline.collect(),
            groups: detail.group_list().iter().cloned().collect(),
        }),
        deletion_blockers: None,
        login_profile: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: AwsErrorKind) -> AwsError {
        AwsError { operation: OPERATION, kind, message: String::new(), request_id: None }
    }

    #[test]
    fn details_are_valid_unless_something_changed_since() {
        let read_at = Instant::now();
        let cached = CachedDetails::Read(Arc::new(AccountDetails { read_at, users: HashMap::new(), policies: None }));
        assert!(cached.is_valid(read_at.checked_sub(Duration::from_millis(1)).unwrap()));
        assert!(!cached.is_valid(read_at), "a change of the same moment may be missing");
        assert!(!cached.is_valid(read_at + Duration::from_millis(1)));
    }

    #[test]
    fn only_errors_that_concern_every_call_are_returned() {
        use AwsErrorKind::*;
        for kind in [Unreachable, Credentials, ClockSkew] {
            assert_eq!(unavailable_or_error(error(kind), &AtomicU32::new(0)).err(), Some(error(kind)));
        }
        for kind in [AccessDenied, InvalidInput, Service, NoSuchEntity] {
            let cached = unavailable_or_error(error(kind), &AtomicU32::new(0)).unwrap();
            assert!(matches!(cached, CachedDetails::UnavailableUntil(until) if until > Instant::now()), "{kind:?}");
            assert!(cached.is_valid(Instant::now()), "{kind:?}: the pause is kept");
        }
        let throttled = unavailable_or_error(error(Throttled), &AtomicU32::new(0)).unwrap();
        assert!(matches!(throttled, CachedDetails::Throttled { .. }) && throttled.is_valid(Instant::now()));
    }

    #[test]
    fn third_unreachable_call_in_a_row_pauses_the_operation() {
        let unreachable = AtomicU32::new(0);
        let is_paused = || unavailable_or_error(error(AwsErrorKind::Unreachable), &unreachable).is_ok();
        assert_eq!([is_paused(), is_paused(), is_paused(), is_paused()], [false, false, true, false]);
    }
}
