//! What a pass knows of IAM: what it remembers, what the account's details say, or what it reads now.

use std::time::{Duration, Instant};

use crate::{
    api::{AwsDeployUser, well_known},
    aws::{self, AwsErrorKind},
    domain::{
        current_state::{AccessKey, CurrentUser, IamUser},
        desired::Desired,
        owner::Ownership,
        plan::{self, Claim, Freshness},
        schedule::spread_permille,
        target::Target,
    },
    reconcile::{Context, ReconcileError, ReconcileSettings, cache::CachedIam, status},
};

/// The part of the resync by which the ends of remembered facts are spread, and for which details serve everybody.
const SPREAD: f64 = 0.25;

/// The question about the IAM user of a resource.
pub(super) struct Question<'a> {
    pub(super) context: &'a Context,
    /// The account.
    pub(super) iam: &'a aws::IamClient,
    pub(super) user: &'a AwsDeployUser,
    pub(super) target: &'a Target,
    /// Absent during deletion, and for what is not allowed.
    pub(super) desired: Option<&'a Desired>,
}

impl Question<'_> {
    /// The answer, and how fresh it is. `before` is what is remembered, of whatever age; `looked` tells whether this process
    /// has looked at the resource at all.
    pub(super) async fn answer(
        &self,
        before: Option<CachedIam>,
        looked: bool,
        wanted: Freshness,
    ) -> Result<(CachedIam, Freshness), ReconcileError> {
        let generation = self.user.metadata.generation;
        let before = before.filter(|seen| seen.generation == generation);
        let settings = &self.context.settings;
        let kept = match (wanted, before) {
            (Freshness::LiveKeys, Some(seen))
                if settings.is_fresh(&seen, &self.target.owner.uid) && !seen.from_listing =>
            {
                return match self.read_keys(seen).await? {
                    Some(seen) => Ok((seen, wanted)),
                    None => self.read().await,
                };
            }
            (Freshness::Cached, Some(seen)) if settings.is_fresh(&seen, &self.target.owner.uid) => Some(seen),
            (Freshness::Cached, Some(seen)) => self.in_details(Before::of(seen)).await?,
            (Freshness::Cached, None) if !looked => self.in_details(self.of_status()).await?,
            _ => None,
        };
        if let Some(kept) = kept
            && let Some(kept) = self.with_keys_in_time(kept).await?
        {
            return Ok((kept, Freshness::Cached));
        }
        self.read().await
    }

    /// Everything, read now.
    async fn read(&self) -> Result<(CachedIam, Freshness), ReconcileError> {
        let now = Instant::now();
        let iam = Box::pin(self.read_iam()).await?;
        let remembered = CachedIam {
            iam,
            read_at: now,
            keys_read_at: now,
            changed_at: None,
            from_listing: false,
            generation: self.user.metadata.generation,
        };
        Ok((remembered, Freshness::Live))
    }

    /// The user as the account's details have it, if it is the one that was known before.
    async fn in_details(&self, before: Option<Before>) -> Result<Option<CachedIam>, ReconcileError> {
        let Some(before) = before.filter(|_| self.context.settings.account_details) else { return Ok(None) };
        let since = before.since.max(self.context.settings.details_since());
        let is_ours = |tags: &_| self.target.owner.is_in_same_cluster(tags);
        let Some(details) = self.iam.get_account_details(since, is_ours).await? else { return Ok(None) };
        let ours =
            |found: &&IamUser| found.id == before.id && self.target.owner.classify(&found.tags) == Ownership::Ours;
        let Some(found) = details.user(&self.target.user_name).filter(ours) else { return Ok(None) };
        let mut found = found.clone();
        // The details know no passwords.
        if (self.user.spec.console.is_some() || console_tag(&found).is_some()) && before.login_profile.is_none() {
            return Ok(None);
        }
        (found.keys, found.login_profile) = (before.keys, before.login_profile);
        Ok(Some(CachedIam {
            iam: CurrentUser::Found(found),
            read_at: details.read_at(),
            keys_read_at: before.keys_read_at,
            changed_at: None,
            from_listing: true,
            generation: self.user.metadata.generation,
        }))
    }

    /// What the status says of a resource that was Ready when it was written.
    fn of_status(&self) -> Option<Before> {
        let status = self.user.status.as_ref().filter(|_| status::was_ready(self.user))?;
        let keys = status.access_keys.iter().map(|key| {
            Some(AccessKey { id: key.id.clone(), active: key.inactive_since.is_none(), created_at: key.created_at? })
        });
        let now = Instant::now();
        // Not all at once, and not in the same order after each start: else some would never be looked at where starts are many.
        let checked = self.context.settings.key_check.mul_f64(self.context.chance_of(&self.target.owner.uid));
        Some(Before {
            id: status.user.as_ref()?.id.clone(),
            keys: keys.collect::<Option<_>>()?,
            keys_read_at: now.checked_sub(checked).unwrap_or(now),
            login_profile: None,
            since: now.checked_sub(Duration::from_hours(1)).unwrap_or(now),
        })
    }

    /// Lists the keys if that was too long ago. `None` when the user is gone.
    async fn with_keys_in_time(&self, mut seen: CachedIam) -> Result<Option<CachedIam>, ReconcileError> {
        let CurrentUser::Found(found) = &mut seen.iam else { return Ok(Some(seen)) };
        let ours = self.target.owner.classify(&found.tags) == Ownership::Ours;
        if !ours || seen.keys_read_at.elapsed() < self.context.settings.key_check {
            return Ok(Some(seen));
        }
        let now = Instant::now();
        match self.iam.list_access_keys(&found.name).await {
            Ok(keys) => (found.keys, seen.keys_read_at) = (keys, now),
            Err(error) if error.kind == AwsErrorKind::NoSuchEntity => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if found.login_profile.is_some() {
            found.login_profile = Some(self.iam.has_login_profile(&found.name).await?);
        }
        Ok(Some(seen))
    }

    /// Reads the user and what belongs to it. Nothing of another owner's user is read beyond its tags.
    async fn read_iam(&self) -> Result<CurrentUser, ReconcileError> {
        let Self { iam, user, target, desired, .. } = *self;
        let Some(mut found) = iam.get_user(&target.user_name).await? else { return Ok(CurrentUser::Absent) };
        // One that is about to be adopted is read whole: what it loses is told before.
        let stranger = match desired {
            Some(desired) => {
                matches!(plan::evaluate_claim(target, desired.adoption, &desired.path, &found), Claim::NotOwned(_))
            }
            None => target.owner.classify(&found.tags) != Ownership::Ours,
        };
        if stranger {
            return Ok(CurrentUser::Found(found));
        }
        if user.metadata.deletion_timestamp.is_some() {
            // A deletion starts with what is declared; `DeleteUser` tells if more hangs on the user.
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

    /// Reads user, tags and keys anew and takes policies, groups and password from what is remembered. `None` when that
    /// does not go together: another user has the name now, or none of ours.
    async fn read_keys(&self, seen: CachedIam) -> Result<Option<CachedIam>, ReconcileError> {
        let Self { iam, target, .. } = *self;
        let now = Instant::now();
        let CurrentUser::Found(before) = &seen.iam else { return Ok(None) };
        let Some(mut found) = iam.get_user(&target.user_name).await? else { return Ok(None) };
        if found.id != before.id || target.owner.classify(&found.tags) != Ownership::Ours {
            return Ok(None);
        }
        found.keys = iam.list_access_keys(&found.name).await?;
        found.grants.clone_from(&before.grants);
        found.deletion_blockers.clone_from(&before.deletion_blockers);
        found.login_profile = before.login_profile;
        Ok(Some(CachedIam { iam: CurrentUser::Found(found), keys_read_at: now, ..seen }))
    }
}

/// What is known of the user that the account's details are compared with.
struct Before {
    id: String,
    keys: Vec<AccessKey>,
    keys_read_at: Instant,
    login_profile: Option<bool>,
    /// Older details are of before this was known, or of before we changed it.
    since: Instant,
}

impl Before {
    fn of(seen: CachedIam) -> Option<Self> {
        let CurrentUser::Found(found) = seen.iam else { return None };
        let since = seen.changed_at.map_or(seen.read_at, |changed| changed.max(seen.read_at));
        Some(Self {
            id: found.id,
            keys: found.keys,
            keys_read_at: seen.keys_read_at,
            login_profile: found.login_profile,
            since,
        })
    }
}

impl ReconcileSettings {
    /// Whether what is remembered is young enough. Facts that were read at the same moment do not all end at the same moment.
    pub(in crate::reconcile) fn is_fresh(&self, seen: &CachedIam, uid: &str) -> bool {
        !self.expires_in(seen, uid).is_zero()
    }

    /// How long what is remembered of policies and tags is believed still.
    pub(in crate::reconcile) fn expires_in(&self, seen: &CachedIam, uid: &str) -> Duration {
        let spread = f64::from(spread_permille(uid)) / 1000.0;
        self.resync.mul_f64(1.0 - SPREAD * spread).saturating_sub(seen.read_at.elapsed())
    }

    /// Older details are not worth anything any more: who takes them would have to read new ones soon.
    fn details_since(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.resync.mul_f64(SPREAD)).unwrap_or(now)
    }
}

/// The tag that tells of console access, with the name of its Secret.
pub(super) fn console_tag(user: &IamUser) -> Option<&String> {
    user.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(well_known::TAG_CONSOLE)).map(|(_, value)| value)
}
