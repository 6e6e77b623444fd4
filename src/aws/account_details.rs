//! Our users of an account, read together: whether each is as it was takes no call for each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_iam::types::{EntityType, UserDetail};
use tokio::time::timeout;

use super::{
    AccountDetails, AwsError, AwsErrorKind, IamClient,
    convert::{boundary_arn, next, to_map},
    document::document,
    known::Known,
};
use crate::domain::current_state::{Grants, IamUser};

const OPERATION: &str = "GetAccountAuthorizationDetails";
/// Users on a page at the most. AWS may put fewer on it.
const PAGE: i32 = 1000;
/// Reads of a user that its details stand for: the user, and three lists of what it may do.
const READS: usize = 4;
/// An account with so many users of others that their pages cost more than they save is counted again after this long.
const TOO_DEAR_FOR: Duration = Duration::from_hours(1);
/// AWS has said no: somebody has to change a policy first.
const REFUSED_FOR: Duration = Duration::from_hours(1);
/// All pages may take this long together.
const LIMIT: Duration = Duration::from_mins(1);
/// Times in a row that there was no answer, after which it is taken for the fault of this operation.
const AWAY_MOST: u32 = 3;
/// AWS is out of order, with this operation at least.
const BROKEN_FOR: Duration = Duration::from_mins(5);

impl IamClient {
    /// Our users of the account, as they were read after `since`: by whoever came first, for all who ask. `None` where every
    /// user is to be asked about by itself: AWS refuses the operation or has not got it, or the account has so many users of
    /// others that their pages cost more than they save.
    ///
    /// # Errors
    /// When AWS throttles, does not answer, or does not take the credentials: asking for each user would fare no better.
    pub async fn get_account_details(
        &self,
        since: Instant,
        is_ours: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Result<Option<Arc<AccountDetails>>, AwsError> {
        // Whoever waits for it has a place that others want.
        let read = async || {
            timeout(LIMIT, self.read_details(is_ours)).await.unwrap_or_else(|_| {
                tracing::warn!(limit = ?LIMIT, "the account's details took too long: its users are compared one by one for a while");
                Ok(Known::not_for(BROKEN_FOR))
            })
        };
        let answer = self.details.get(|answer| answer.is_good(since), read).await?;
        Ok(match answer {
            Known::Read(details) => Some(details),
            Known::Not(_) => None,
        })
    }

    async fn read_details(&self, is_ours: impl Fn(&BTreeMap<String, String>) -> bool) -> Result<Known, AwsError> {
        let read_at = Instant::now();
        let (mut users, mut pages, mut marker) = (HashMap::new(), 0, None);
        loop {
            let request = self.iam.get_account_authorization_details().filter(EntityType::User).max_items(PAGE);
            let page = match self.call(OPERATION, request.set_marker(marker).send()).await {
                Ok(page) => {
                    self.details_away.store(0, Ordering::Relaxed);
                    page
                }
                Err(error) => return refused(error, &self.details_away),
            };
            pages += 1;
            for detail in page.user_detail_list() {
                let tags = to_map(detail.tags());
                if is_ours(&tags) {
                    let user = user(detail, tags);
                    users.insert(user.name.to_ascii_lowercase(), user);
                }
            }
            marker = next(page.is_truncated(), page.marker());
            if marker.is_none() {
                break;
            }
        }
        if pages > READS * users.len() {
            tracing::info!(
                pages,
                users = users.len(),
                "the users of this account are compared one by one: that is cheaper"
            );
            return Ok(Known::not_for(TOO_DEAR_FOR));
        }
        tracing::debug!(pages, users = users.len(), took = ?read_at.elapsed(), "the account's details are read");
        Ok(Known::Read(Arc::new(AccountDetails { read_at, users })))
    }
}

fn broken(error: &AwsError) -> Known {
    tracing::warn!(%error, "the users of this account are compared one by one for a while, at five calls each");
    Known::not_for(BROKEN_FOR)
}

/// What a failure means for this way of reading, and what is a failure of all. `away` counts how often there was no answer.
fn refused(error: AwsError, away: &AtomicU32) -> Result<Known, AwsError> {
    match error.kind {
        // Nothing of AWS may answer; or this operation alone, since it has the most to say.
        AwsErrorKind::Unreachable if (away.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(AWAY_MOST) => {
            Ok(broken(&error))
        }
        AwsErrorKind::Throttled | AwsErrorKind::Unreachable | AwsErrorKind::Credentials | AwsErrorKind::ClockSkew => {
            Err(error)
        }
        AwsErrorKind::Service => Ok(broken(&error)),
        _ => {
            tracing::warn!(
                %error,
                "the users of this account are compared one by one, at five calls each. The operator's policy should allow iam:{OPERATION}, as the one that `iam-policy` prints; --account-details=false does without"
            );
            Ok(Known::not_for(REFUSED_FOR))
        }
    }
}

fn user(detail: &UserDetail, tags: BTreeMap<String, String>) -> IamUser {
    let inline = detail.user_policy_list().iter().filter_map(|policy| {
        Some((policy.policy_name()?.to_owned(), document(policy.policy_document().unwrap_or_default())))
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
    fn what_would_befall_every_call_is_a_failure_and_what_befalls_this_one_is_not() {
        use AwsErrorKind::*;
        for kind in [Throttled, Unreachable, Credentials, ClockSkew] {
            assert_eq!(refused(error(kind), &AtomicU32::new(0)).err(), Some(error(kind)));
        }
        for kind in [AccessDenied, InvalidInput, Service, NoSuchEntity] {
            let answer = refused(error(kind), &AtomicU32::new(0)).unwrap();
            assert!(matches!(answer, Known::Not(until) if until > Instant::now()), "{kind:?}");
            assert!(answer.is_good(Instant::now()), "{kind:?}: nobody asks again before");
        }
    }

    #[test]
    fn no_answer_three_times_in_a_row_is_the_fault_of_this_operation() {
        let away = AtomicU32::new(0);
        let ask = || refused(error(AwsErrorKind::Unreachable), &away).is_ok();
        assert_eq!([ask(), ask(), ask(), ask()], [false, false, true, false]);
    }
}
