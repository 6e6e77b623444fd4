//! Where IAM facts come from: the cache, the listing of the whole account, or reads of this user.

use std::time::{Duration, Instant};

use crate::{
    api::{AwsDeployUser, well_known},
    aws::{self, AccountRead, AwsErrorKind},
    domain::{
        account,
        current_state::{AccessKey, CurrentUser, IamUser},
        desired::Desired,
        managed_policy::CurrentPolicies,
        owner::{is_access_key_id, named_owner},
        plan::{self, Claim, Freshness},
        schedule::spread_permille,
        target::Target,
    },
    reconcile::{
        Context, ReconcileError, ReconcileSettings, cache::CachedIam, has_finalizer, requeue::CHECK_SPREAD, status,
    },
};

/// Resyncs after which cached facts are no longer used, although AWS throttles the listing: then users are read one by one.
const MAX_EXTENDED_RESYNCS: u32 = 2;

/// Reads the IAM user of a resource.
pub(super) struct IamReader<'a> {
    pub(super) context: &'a Context,
    /// The account.
    pub(super) iam: &'a aws::IamClient,
    pub(super) user: &'a AwsDeployUser,
    pub(super) target: &'a Target,
    /// `None` during deletion and revocation.
    pub(super) desired: Option<&'a Desired>,
}

impl IamReader<'_> {
    /// The user and how fresh it is, with the policies that are known already. `cached` may be of any age; `observed_before`: this
    /// process has observed the resource.
    pub(super) async fn read(
        &self,
        cached: Option<CachedIam>,
        observed_before: bool,
        freshness: Freshness,
    ) -> Result<(CachedIam, Freshness), ReconcileError> {
        let generation = self.user.metadata.generation;
        // Facts about a user of another name are none of this one.
        let cached =
            cached.filter(|cached| cached.generation == generation && cached.user_name == self.target.user_name);
        // Only IAM says whether the user of a resource that ends is still there.
        let is_ending = |cached: &CachedIam| matches!(&cached.iam, CurrentUser::Found(found) if self.context.is_owner_ending(self.target, &found.tags));
        let cached = cached.filter(|cached| !is_ending(cached));
        let settings = &self.context.settings;
        let usable = match (freshness, cached) {
            (Freshness::LiveKeys, Some(cached))
                if settings.is_fresh(&cached, &self.target.owner.uid) && !cached.from_listing =>
            {
                return match self.read_keys(cached).await? {
                    Some(cached) => Ok((cached, freshness)),
                    None => self.read_all().await,
                };
            }
            (Freshness::Cached, Some(cached)) if settings.is_fresh(&cached, &self.target.owner.uid) => Some(cached),
            (Freshness::Cached, Some(cached)) => match self.listed_user(Known::from_cache(&cached)).await? {
                Listed::Found(listed) => Some(*listed),
                Listed::ThrottledUntil(until) => settings.extended(cached, until, &self.target.owner.uid),
                Listed::No => None,
            },
            (Freshness::Cached, None) if !observed_before => match self.listed_user(self.reported_user()).await? {
                Listed::Found(listed) => Some(*listed),
                Listed::ThrottledUntil(_) | Listed::No => None,
            },
            _ => None,
        };
        if let Some(usable) = usable
            && let Some(usable) = self.with_recent_keys(usable).await?
        {
            return Ok((usable, Freshness::Cached));
        }
        self.read_all().await
    }

    /// Reads everything but the policies.
    async fn read_all(&self) -> Result<(CachedIam, Freshness), ReconcileError> {
        let now = Instant::now();
        let iam = Box::pin(self.read_iam()).await?;
        let policies = if self.has_policies(&iam) { CurrentPolicies::unread() } else { CurrentPolicies::default() };
        let remembered = CachedIam {
            iam,
            policies,
            user_name: self.target.user_name.clone(),
            read_at: now,
            keys_read_at: now,
            changed_at: None,
            from_listing: false,
            extended_until: None,
            generation: self.user.metadata.generation,
        };
        Ok((remembered, Freshness::Live))
    }

    /// The user as the listing of the account has it, if it is the one that was known before.
    async fn listed_user(&self, before: Option<Known>) -> Result<Listed, ReconcileError> {
        let Some(before) = before.filter(|_| self.context.settings.account_details) else { return Ok(Listed::No) };
        let since = before.since.max(self.context.settings.oldest_listing());
        let is_ours = |tags: &_| self.target.owner.is_in_same_cluster(tags);
        let has_policies = || self.context.has_managed_policies();
        let details = match self.iam.get_account_details(since, is_ours, has_policies).await? {
            AccountRead::Read(details) => details,
            AccountRead::Unavailable => return Ok(Listed::No),
            AccountRead::Throttled { until, .. } => return Ok(Listed::ThrottledUntil(until)),
        };
        let is_owned = |found: &&IamUser| found.id == before.id && self.target.owner.owns(&found.tags);
        let Some(found) = details.user(&self.target.user_name).filter(is_owned) else { return Ok(Listed::No) };
        let mut found = found.clone();
        // The listing does not say whether there is a password.
        if (self.user.spec.console.is_some() || console_tag(&found).is_some()) && before.login_profile.is_none() {
            return Ok(Listed::No);
        }
        let Some(policies) = self.listed_policies(&details, &found) else { return Ok(Listed::No) };
        (found.keys, found.login_profile) = (before.keys, before.login_profile);
        Ok(Listed::Found(Box::new(CachedIam {
            iam: CurrentUser::Found(found),
            policies,
            user_name: self.target.user_name.clone(),
            read_at: details.read_at(),
            keys_read_at: before.keys_read_at,
            changed_at: None,
            from_listing: true,
            extended_until: None,
            generation: self.user.metadata.generation,
        })))
    }

    /// What the status reports of a resource that was Ready.
    fn reported_user(&self) -> Option<Known> {
        let status = self.user.status.as_ref().filter(|_| status::was_ready(self.user))?;
        let keys = status.access_keys.iter().map(|key| {
            is_access_key_id(&key.id).then_some(())?;
            Some(AccessKey { id: key.id.clone(), active: key.inactive_since.is_none(), created_at: key.created_at? })
        });
        let now = Instant::now();
        // Spread, and in another order after each start: with many restarts some keys would never be listed otherwise.
        let checked = self.context.settings.key_check.mul_f64(self.context.jitter_of(&self.target.owner.uid));
        Some(Known {
            id: status.user.as_ref()?.id.clone()?,
            keys: keys.collect::<Option<_>>()?,
            keys_read_at: now.checked_sub(checked).unwrap_or(now),
            login_profile: None,
            since: now.checked_sub(Duration::from_hours(1)).unwrap_or(now),
        })
    }

    /// Lists the keys if that is due. `None` when the user does not exist.
    async fn with_recent_keys(&self, mut cached: CachedIam) -> Result<Option<CachedIam>, ReconcileError> {
        let CurrentUser::Found(found) = &mut cached.iam else { return Ok(Some(cached)) };
        let is_owned = self.target.owner.owns(&found.tags);
        if !is_owned || cached.keys_read_at.elapsed() < self.context.settings.key_check {
            return Ok(Some(cached));
        }
        let now = Instant::now();
        match self.iam.list_access_keys(&found.name).await {
            Ok(keys) => (found.keys, cached.keys_read_at) = (keys, now),
            Err(error) if error.kind == AwsErrorKind::NoSuchEntity => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if found.login_profile.is_some() {
            found.login_profile = Some(self.iam.has_login_profile(&found.name).await?);
        }
        Ok(Some(cached))
    }

    /// Reads the user and what belongs to it; of a user with another owner only its tags.
    async fn read_iam(&self) -> Result<CurrentUser, ReconcileError> {
        let Self { iam, user, target, desired, .. } = *self;
        let Some(mut found) = self.find_user().await? else { return Ok(CurrentUser::Absent) };
        // A user about to be adopted is read whole: its losses are reported first.
        let is_not_owned = match desired {
            Some(desired) => {
                matches!(plan::evaluate_claim(target, desired.adoption, &desired.path, &found), Claim::NotOwned(_))
            }
            None => !target.owner.owns(&found.tags),
        };
        if is_not_owned {
            let owner = named_owner(&found.tags);
            tracing::info!(user = found.arn, owner, "IAM user is not owned by this resource");
            return Ok(CurrentUser::Found(found));
        }
        if user.metadata.deletion_timestamp.is_some() {
            // A deletion starts with what is declared; `DeleteUser` fails if more is attached to the user.
            let partition = &iam.caller_identity().await?.account.partition;
            found.keys = iam.list_access_keys(&found.name).await?;
            found.grants = Some(plan::declared_grants(user, partition));
            found.login_profile = console_tag(&found).map(|_| true);
        } else {
            let (keys, grants) = tokio::try_join!(iam.list_access_keys(&found.name), iam.get_grants(&found.name))?;
            found.keys = keys;
            found.grants = Some(grants);
            if user.spec.console.is_some() || console_tag(&found).is_some() {
                found.login_profile = Some(iam.has_login_profile(&found.name).await?);
            }
        }
        Ok(CurrentUser::Found(found))
    }

    /// The user of the target's name. If the status is lost (a restore from a backup, which keeps the finalizer), the user may
    /// have another name than spec and class give it now: then its ownership tags find it.
    async fn find_user(&self) -> Result<Option<IamUser>, ReconcileError> {
        let Self { context, iam, user, target, .. } = *self;
        let is_owned = |found: &IamUser| target.owner.owns(&found.tags);
        let named = iam.get_user(&target.user_name).await?;
        let is_lost = account::recorded_user(user).is_none() && has_finalizer(user);
        if !is_lost || named.as_ref().is_some_and(is_owned) || !context.settings.account_details {
            return Ok(named);
        }
        let is_ours = |tags: &_| target.owner.is_in_same_cluster(tags);
        let has_policies = || context.has_managed_policies();
        let listing = iam.get_account_details(context.settings.oldest_listing(), is_ours, has_policies).await?;
        let listing = match listing {
            AccountRead::Read(listing) => listing,
            AccountRead::Unavailable => return Ok(named),
            // Absence is not certain: another user would be created.
            AccountRead::Throttled { error, .. } => return Err(error.into()),
        };
        let Some(listed) = listing.user_of(&target.owner) else { return Ok(named) };
        // What comes out of a listing only triggers.
        Ok(iam.get_user(&listed.name).await?.filter(is_owned).or(named))
    }

    /// Reads user, tags and keys and keeps policies, groups and password of the cache. `None` when another user has the name
    /// now, or none.
    async fn read_keys(&self, cached: CachedIam) -> Result<Option<CachedIam>, ReconcileError> {
        let Self { iam, target, .. } = *self;
        let now = Instant::now();
        let CurrentUser::Found(before) = &cached.iam else { return Ok(None) };
        let Some(mut found) = iam.get_user(&target.user_name).await? else { return Ok(None) };
        if found.id != before.id || !target.owner.owns(&found.tags) {
            return Ok(None);
        }
        found.keys = iam.list_access_keys(&found.name).await?;
        found.grants.clone_from(&before.grants);
        found.deletion_blockers.clone_from(&before.deletion_blockers);
        found.login_profile = before.login_profile;
        Ok(Some(CachedIam { iam: CurrentUser::Found(found), keys_read_at: now, ..cached }))
    }
}

/// What the listing of the account says about a user.
enum Listed {
    Found(Box<CachedIam>),
    /// AWS throttles the listing until then.
    ThrottledUntil(Instant),
    /// The user has to be read by itself.
    No,
}

/// What the listing of the account lacks or is compared with.
struct Known {
    id: String,
    keys: Vec<AccessKey>,
    keys_read_at: Instant,
    login_profile: Option<bool>,
    /// An older listing does not show what is known here.
    since: Instant,
}

impl Known {
    fn from_cache(cached: &CachedIam) -> Option<Self> {
        let CurrentUser::Found(found) = &cached.iam else { return None };
        let since = cached.changed_at.map_or(cached.read_at, |changed| changed.max(cached.read_at));
        Some(Self {
            id: found.id.clone(),
            keys: found.keys.clone(),
            keys_read_at: cached.keys_read_at,
            login_profile: found.login_profile,
            since,
        })
    }
}

impl ReconcileSettings {
    /// Whether cached facts may be used. Facts that were read together expire at different times.
    pub(in crate::reconcile) fn is_fresh(&self, cached: &CachedIam, uid: &str) -> bool {
        !self.expires_in(cached, uid).is_zero()
    }

    /// How long cached policies and tags may still be used.
    pub(in crate::reconcile) fn expires_in(&self, cached: &CachedIam, uid: &str) -> Duration {
        let extension =
            cached.extended_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        Self::spread(self.resync, spread_permille(uid)).saturating_sub(cached.read_at.elapsed()).max(extension)
    }

    /// Expired facts, to be used until AWS may be asked for the listing again, and for [`MAX_EXTENDED_RESYNCS`] at most: enough to
    /// see that something is to be done.
    fn extended(&self, cached: CachedIam, until: Instant, uid: &str) -> Option<CachedIam> {
        // Spread as well: without the listing, each user costs five calls.
        let longest = Self::spread(self.resync * MAX_EXTENDED_RESYNCS, spread_permille(uid));
        let until = cached.read_at.checked_add(longest).map_or(until, |end| until.min(end));
        (until > Instant::now()).then(|| CachedIam { from_listing: true, extended_until: Some(until), ..cached })
    }

    /// The oldest listing worth using: facts expire over this part of the resync, so that an older one would have to be read
    /// again soon.
    fn oldest_listing(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.resync.mul_f64(CHECK_SPREAD)).unwrap_or(now)
    }
}

/// The tag that records console access; its value is the name of the Secret.
pub(super) fn console_tag(user: &IamUser) -> Option<&String> {
    user.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(well_known::TAG_CONSOLE)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESYNC: Duration = Duration::from_secs(100);

    fn read(ago: Duration) -> CachedIam {
        let read_at = Instant::now().checked_sub(ago).unwrap();
        CachedIam {
            iam: CurrentUser::Absent,
            policies: CurrentPolicies::default(),
            user_name: "u".to_owned(),
            read_at,
            keys_read_at: read_at,
            changed_at: None,
            from_listing: false,
            extended_until: None,
            generation: None,
        }
    }

    #[test]
    fn facts_serve_for_two_resyncs_while_aws_throttles() {
        let (settings, secs) = (ReconcileSettings::every(RESYNC), Duration::from_secs);
        let left = |age, pause| {
            let until = Instant::now() + pause;
            settings.extended(read(age), until, "u1").map(|cached| settings.expires_in(&cached, "u1"))
        };
        let second = ReconcileSettings::spread(RESYNC * 2, spread_permille("u1"));
        assert!(second > secs(150) && second <= secs(200), "{second:?}");
        let is = |left: Option<Duration>, expected: Duration| {
            left.is_some_and(|left| left <= expected && left + secs(5) > expected)
        };
        assert!(is(left(secs(100), secs(30)), secs(30)), "until the listing may be read again");
        assert!(is(left(secs(100), secs(600)), second.checked_sub(secs(100)).unwrap()), "and no longer");
        assert_eq!(left(secs(200), secs(600)), None);
        assert!(settings.extended(read(secs(100)), Instant::now() + secs(30), "u1").unwrap().from_listing);
    }
}
