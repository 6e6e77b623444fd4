//! The act step (IO): one effect at a time, and what was learned from it.
//!
//! Every effect is safe to cut off at any await: the next pass goes on from what it finds. What
//! each may leave behind is told beside it.

mod console;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

use super::{
    Context,
    error::PassError,
    memory::Memory,
    observe::{self, Observed},
};
use crate::{
    api::{AwsDeployUser, Reason},
    aws::{Acceptance, AwsError, AwsErrorKind},
    cluster::{Attempt, ClusterError, ClusterErrorKind, Journals, News, Secrets, Users},
    domain::{
        desired::{Desired, Target},
        journal::{Journal, Mode},
        owner::key_tag,
        plan::{self, Effect, Why},
        secret::{self, Content, KeyMaterial, Publication},
        world::{AccessKey, Grants, Iam, IamUser, JournalSeen, Published, Verification},
    },
};

/// With a key in hand a write to Kubernetes is tried this often before the pass gives up.
const JOURNAL_WRITES: u32 = 5;
/// Pause before the second try; doubles.
const JOURNAL_PAUSE: Duration = Duration::from_millis(500);

/// Who acts, on what.
pub(super) struct Actor<'a> {
    pub(super) context: &'a Context,
    pub(super) target: &'a Target,
    /// Absent during deletion, which needs no more than the names.
    pub(super) desired: Option<&'a Desired>,
    pub(super) user: AwsDeployUser,
    pub(super) observed: Observed,
    pub(super) news: Vec<News>,
    /// The resource is gone from Kubernetes: there is nothing left to report on.
    pub(super) left: bool,
}

impl Actor<'_> {
    /// Does one effect and learns its result.
    pub(super) async fn act(&mut self, effect: &Effect, memory: &mut Memory) -> Result<(), PassError> {
        let result = Box::pin(self.perform(effect, memory)).await;
        match (&result, memory.iam.as_mut(), &self.observed.world.iam) {
            // Our own writes are known; they need not be read back.
            (Ok(()), Some(remembered), iam) => remembered.iam = iam.clone(),
            // Whatever failed may have had its effect: the next pass looks for itself.
            (Err(_), ..) => memory.iam = None,
            (Ok(()), None, _) => {}
        }
        result
    }

    #[allow(clippy::too_many_lines, reason = "a table: one arm an effect, read from top to bottom")]
    async fn perform(&mut self, effect: &Effect, memory: &mut Memory) -> Result<(), PassError> {
        let iam = &self.context.iam;
        let name = &self.target.user_name.clone();
        let aws = |error| PassError::Aws { error, effect: Some(effect.clone()) };
        match effect {
            Effect::AddFinalizer => self.add_finalizer().await?,
            Effect::CreateUser => self.create_user().await?,
            Effect::TagUser(tags) => {
                iam.tag_user(name, tags).await.map_err(aws)?;
                let changed = format!("tags set: {}", list(tags.keys()));
                self.changed(changed, |user| set_tags(user, tags));
            }
            Effect::UntagUser(keys) => {
                iam.untag_user(name, keys).await.map_err(aws)?;
                let of_keys = keys.iter().any(|key| key.starts_with(&key_tag("")));
                let changed = if of_keys { String::new() } else { format!("tags removed: {}", list(keys)) };
                self.changed(changed, |user| user.tags.retain(|key, _| !keys.contains(key)));
                if self.desired.is_none() {
                    // Without our marks it is nobody's user: retained.
                    self.tell(Reason::UserRetained, format!("the IAM user {name} was left in AWS without our marks"));
                    self.observed.world.iam = Iam::Absent;
                }
            }
            Effect::AttachPolicy(arn) => {
                iam.attach_policy(name, arn).await.map_err(aws)?;
                self.changed_grants(format!("attached {arn}"), |grants| _ = grants.attached.insert(arn.clone()));
            }
            Effect::DetachPolicy(arn) => {
                iam.detach_policy(name, arn).await.map_err(aws)?;
                self.changed_grants(format!("detached {arn}"), |grants| _ = grants.attached.remove(arn));
            }
            Effect::PutInlinePolicy(policy, document) => {
                iam.put_inline_policy(name, policy, document).await.map_err(aws)?;
                let insert = |grants: &mut Grants| _ = grants.inline.insert(policy.clone(), document.clone());
                self.changed_grants(format!("wrote inline policy {policy}"), insert);
            }
            Effect::DeleteInlinePolicy(policy) => {
                iam.delete_inline_policy(name, policy).await.map_err(aws)?;
                self.changed_grants(format!("removed inline policy {policy}"), |grants| {
                    _ = grants.inline.remove(policy);
                });
            }
            Effect::AddToGroup(group) => {
                iam.add_to_group(name, group).await.map_err(aws)?;
                self.changed_grants(format!("put into group {group}"), |grants| {
                    _ = grants.groups.insert(group.clone());
                });
            }
            Effect::RemoveFromGroup(group) => {
                iam.remove_from_group(name, group).await.map_err(aws)?;
                self.changed_grants(format!("taken out of group {group}"), |grants| _ = grants.groups.remove(group));
            }
            Effect::PutBoundary(arn) => {
                iam.put_boundary(name, arn).await.map_err(aws)?;
                self.changed(format!("set permissions boundary {arn}"), |user| user.boundary = Some(arn.clone()));
            }
            Effect::WritePassword => self.write_password().await?,
            Effect::ApplyPassword => self.apply_password().await?,
            Effect::RemovePassword => self.remove_password().await?,
            Effect::DeleteConsoleSecret => self.delete_console_secret().await?,
            Effect::ReleaseConsoleSecret => self.release_console_secret().await?,
            Effect::MintKey { known, previous_secret } => {
                self.mint(known, previous_secret.as_ref()).await?;
                memory.verification = None;
            }
            Effect::VerifyKey(id) => self.verify(id, memory).await?,
            Effect::Publish(id) => {
                self.publish(id).await?;
                memory.verification = None;
            }
            Effect::TagKey(id) => {
                let mut tags =
                    BTreeMap::from([(key_tag(id), self.context.iam.clock().now().strftime("%FT%TZ").to_string())]);
                if let Some(description) = self.desired.and_then(|desired| desired.key.description.clone()) {
                    tags.insert(id.clone(), description);
                }
                iam.tag_user(name, &tags).await.map_err(aws)?;
                self.changed(String::new(), |user| set_tags(user, &tags));
            }
            Effect::AbandonAttempt { orphans, failed } => {
                self.abandon(orphans).await?;
                memory.verification = None;
                if *failed {
                    return Err(PassError::KeyNotAccepted(orphans.join(", ")));
                }
            }
            Effect::TouchPublished => self.touch().await?,
            Effect::CloseJournal => self.close_journal().await?,
            Effect::DeactivateKey(id, why) => {
                let there = iam.deactivate_access_key(name, id).await.map_err(aws)?;
                self.changed(String::new(), |user| {
                    if there {
                        user.keys.iter_mut().filter(|key| key.id == *id).for_each(|key| key.active = false);
                    } else {
                        user.keys.retain(|key| key.id != *id);
                    }
                });
                if *why != Why::Cleanup {
                    self.tell(Reason::KeyDeactivated, format!("access key {id} was set Inactive ({})", because(*why)));
                }
            }
            Effect::DeleteKey(id, why) => {
                iam.delete_access_key(name, id).await.map_err(aws)?;
                self.observed.world.gone.insert(id.clone());
                self.changed(String::new(), |user| user.keys.retain(|key| key.id != *id));
                let reason = if *why == Why::Orphan { Reason::OrphanDeleted } else { Reason::KeyDeleted };
                self.tell(reason, format!("access key {id} was deleted ({})", because(*why)));
            }
            Effect::RewriteSecret => self.rewrite().await?,
            Effect::DeletePreviousSecret(secret) => self.delete_previous(secret).await?,
            Effect::ReadLastUsed => self.read_last_used().await?,
            Effect::ReadGrants => {
                let (keys, grants, leftovers) =
                    tokio::try_join!(iam.access_keys(name), iam.grants(name), Box::pin(iam.leftovers(name)))?;
                self.changed(String::new(), |user| {
                    user.keys = keys;
                    user.grants = Some(grants);
                    user.leftovers = Some(leftovers);
                });
            }
            Effect::RemoveLeftover(leftover) => {
                iam.remove_leftover(name, leftover).await.map_err(aws)?;
                tracing::info!(user = name, %leftover, "removed");
                self.changed(String::new(), |user| {
                    user.leftovers.iter_mut().for_each(|all| all.retain(|other| other != leftover));
                });
            }
            Effect::DeleteUser => self.delete_user().await?,
            Effect::ReleaseSecret => {
                if let Some(held) = &self.observed.held {
                    self.secrets().release(held, &self.target.owner.uid).await?;
                }
                self.hold(None);
            }
            Effect::DeleteSecret => {
                if let Some(held) = &self.observed.held {
                    self.secrets().delete(held).await?;
                }
                self.hold(None);
            }
            Effect::RemoveFinalizer => {
                self.users().remove_finalizer(&self.user).await.or_else(gone)?;
                self.observed.world.finalizer = false;
                self.left = true;
            }
        }
        Ok(())
    }

    async fn add_finalizer(&mut self) -> Result<(), PassError> {
        self.user = self.users().add_finalizer(&self.user, &self.target.user_name).await?;
        self.observed.world.finalizer = true;
        Ok(())
    }

    /// May leave a user that carries our marks: the next pass knows it as ours.
    async fn create_user(&mut self) -> Result<(), PassError> {
        let Some(desired) = self.desired else { return Ok(()) };
        self.check_secret_access().await?;
        let iam = &self.context.iam;
        let user = match iam
            .create_user(&self.target.user_name, &desired.path, desired.boundary.as_deref(), &desired.tags)
            .await
        {
            Ok(user) => user,
            Err(error) if error.kind == AwsErrorKind::EntityAlreadyExists => return Err(self.taken(error).await),
            Err(error) => return Err(PassError::Aws { error, effect: Some(Effect::CreateUser) }),
        };
        let again = self.observed.world.reported.user_id.as_ref().is_some_and(|id| *id != user.id);
        if again {
            // A reason of its own: Events of one reason are counted, and only the first one's words are kept.
            let note = format!(
                "the IAM user {} had been deleted in AWS; it was created again (new id {})",
                user.name, user.id
            );
            self.news.push(News { reason: Reason::UserRecreated, note, warning: true });
        } else {
            self.tell(Reason::UserCreated, format!("the IAM user {} was created", user.arn));
        }
        self.observed.world.iam = Iam::Found(user);
        Ok(())
    }

    /// IAM has a user of this name although it did not show us one: a name that differs in case, or
    /// one made a moment ago, by ourselves perhaps with the answer lost.
    async fn taken(&self, error: AwsError) -> PassError {
        match self.context.iam.user_ignoring_case(&self.target.user_name).await {
            Ok(Some(user)) => match plan::stranger(self.target, &user) {
                Some(note) => PassError::NotOwned(note.message),
                None => PassError::Aws { error, effect: Some(Effect::CreateUser) },
            },
            _ => PassError::Aws { error, effect: Some(Effect::CreateUser) },
        }
    }

    /// The one dangerous call. May leave an `Intent` journal, with or without a key in IAM that
    /// nobody holds: after the dwell the fence goes up and the orphan goes.
    async fn mint(&mut self, known: &[String], previous_secret: Option<&(String, String)>) -> Result<(), PassError> {
        self.check_secret_access().await?;
        let iam = &self.context.iam;
        let journals = Journals::new(self.context.client.clone(), self.target);
        let mut journal = Journal {
            // CreateDate has whole seconds.
            started_at: floor(iam.clock().now()),
            rotate_request: self.desired.and_then(|desired| desired.key.rotate_request.clone()),
            previous_secret: previous_secret.cloned(),
            mode: Mode::Intent { known: known.to_vec() },
        };
        let attempt = journals.begin(&journal, self.owner_reference()).await?;
        let (key, created_at) = match iam.create_access_key(&self.target.user_name).await {
            Ok(made) => made,
            Err(error) => {
                if error.kind.is_definite() {
                    // AWS said no, so there is no orphan to wait for. If this fails, the dwell takes over.
                    if let Err(error) = journals.close(&attempt).await {
                        tracing::warn!(%error, "the journal of a refused attempt stays until the dwell is over");
                    }
                }
                let effect = Effect::MintKey { known: known.to_vec(), previous_secret: previous_secret.cloned() };
                return Err(PassError::Aws { error, effect: Some(effect) });
            }
        };
        journal.mode = Mode::Keyed { key_id: key.id.clone(), keyed_at: iam.clock().now() };
        let attempt = self.stage(&journals, &attempt, &journal, &key).await?;
        tracing::info!(key_id = key.id, "access key made");
        self.observed.world.journal = observe::seen(&attempt, self.target);
        self.observed.attempt = Some(attempt);
        let made = AccessKey { id: key.id, active: true, created_at };
        self.changed(String::new(), |user| user.keys.push(made));
        Ok(())
    }

    /// Writes the key into the journal. If the journal is not the one we began any more, the fence
    /// is up: the key just made is deleted again. If the answer is lost, the key is left to the journal.
    async fn stage(
        &self,
        journals: &Journals<'_>,
        attempt: &Attempt,
        journal: &Journal,
        key: &KeyMaterial,
    ) -> Result<Attempt, PassError> {
        let mut pause = JOURNAL_PAUSE;
        for tries in 1.. {
            let error = match journals.replace(attempt, journal, Some(key)).await {
                Ok(staged) => return Ok(staged),
                Err(error) => error,
            };
            if error.kind.is_definite() {
                // A write whose answer was lost may be the very one that refuses this one.
                if let Ok(Some(now)) = journals.get().await
                    && now.id() == attempt.id()
                    && now
                        .journal
                        .as_ref()
                        .is_ok_and(|seen| seen.names(&key.id) && matches!(seen.mode, Mode::Keyed { .. }))
                {
                    return Ok(now);
                }
                tracing::warn!(%error, key_id = key.id, "the journal refuses the new key; it is deleted again");
                self.undo(&key.id).await?;
                return Err(PassError::Undone(key.id.clone()));
            }
            if tries >= JOURNAL_WRITES {
                return Err(error.into());
            }
            tracing::warn!(%error, tries, "the new key could not be written down; trying again");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    async fn undo(&self, key_id: &str) -> Result<(), PassError> {
        let mut pause = JOURNAL_PAUSE;
        for tries in 1.. {
            match self.context.iam.delete_access_key(&self.target.user_name, key_id).await {
                Ok(()) => return Ok(()),
                Err(error) if tries >= JOURNAL_WRITES => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, tries, key_id, "the undone key could not be deleted; trying again");
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    async fn verify(&mut self, key_id: &str, memory: &mut Memory) -> Result<(), PassError> {
        let Some(key) = self.observed.attempt.as_ref().and_then(|attempt| attempt.staged(key_id)) else {
            // A journal without the key it names: nothing can become of it.
            return self.abandon(&[key_id.to_owned()]).await;
        };
        let iam = &self.context.iam;
        let answer = iam.verify_key(&key).await?;
        let arn = self.observed.world.user().map(|user| user.arn.clone()).unwrap_or_default();
        let accepted = matches!(&answer, Acceptance::Accepted(bearer) if *bearer == arn);
        if let Acceptance::Accepted(bearer) = &answer
            && !accepted
        {
            tracing::warn!(key_id, bearer, arn, "STS takes the bearer of the new key for somebody else");
        }
        let before = memory.verification.take().filter(|seen| seen.key_id == key_id).map_or(0, |seen| seen.successes);
        let successes = if accepted { before + 1 } else { 0 };
        memory.verification = Some(Verification { key_id: key_id.to_owned(), successes, last_at: iam.clock().now() });
        self.observed.world.verification.clone_from(&memory.verification);
        Ok(())
    }

    /// Conditional on the Secret as this pass has read it. May leave a published key without its
    /// tag and with its journal: the next pass tags it and closes the journal.
    async fn publish(&mut self, key_id: &str) -> Result<(), PassError> {
        let Some(desired) = self.desired else { return Ok(()) };
        let Some(key) = self.observed.attempt.as_ref().and_then(|attempt| attempt.staged(key_id)) else {
            return self.abandon(&[key_id.to_owned()]).await;
        };
        let before = self.observed.held.as_ref().map(|held| secret::publication(&held.content())).unwrap_or_default();
        let journal = self.observed.world.journal().cloned();
        let mut previous = before.previous;
        previous.extend(journal.as_ref().and_then(|journal| journal.previous_secret.clone()));
        previous.remove(&self.target.secret_name);
        let now = self.context.iam.clock().now();
        let publication = Publication {
            // Rounded up: an overlap is never shorter than declared.
            published_at: floor(now) + jiff::SignedDuration::from_secs(1),
            rotate_honoured: journal.and_then(|journal| journal.rotate_request),
            fence: before.fence,
            previous,
        };
        self.write_secret(desired, &key, &publication).await?;
        let until = desired.key.overlap;
        let old = self
            .observed
            .world
            .user()
            .map_or(0, |user| user.keys.iter().filter(|other| other.active && other.id != key_id).count());
        let overlap = if old > 0 {
            format!("; the key before stays valid for {}", crate::api::duration::humanize(until))
        } else {
            String::new()
        };
        self.context.observer.rotated();
        self.tell(
            Reason::Published,
            format!("access key {key_id} was published in Secret {}{overlap}", self.target.secret_name),
        );
        Ok(())
    }

    async fn write_secret(
        &mut self,
        desired: &Desired,
        key: &KeyMaterial,
        publication: &Publication,
    ) -> Result<(), PassError> {
        let secrets = self.secrets();
        let written = if let Some(held) = &self.observed.held {
            secrets.replace(held, &secret::render(&desired.secret, key, publication, &held.content())).await?
        } else {
            let content = secret::render(&desired.secret, key, publication, &Content::default());
            secrets.create(&self.target.secret_name, self.owner_reference(), &content).await?
        };
        self.hold(Some(written));
        Ok(())
    }

    async fn rewrite(&mut self) -> Result<(), PassError> {
        let (Some(desired), Some(held)) = (self.desired, &self.observed.held) else { return Ok(()) };
        let content = held.content();
        let Some(key) = secret::material(&content) else { return Ok(()) };
        self.write_secret(desired, &key, &secret::publication(&content)).await?;
        self.tell(
            Reason::SecretRepaired,
            format!("Secret {} was written again as declared; its access key is the same", self.target.secret_name),
        );
        Ok(())
    }

    /// Moves the Secret's resourceVersion and writes down why.
    async fn touch(&mut self) -> Result<(), PassError> {
        let (Some(held), Some(attempt)) = (&self.observed.held, &self.observed.attempt) else { return Ok(()) };
        let mut content = held.content();
        content.annotations.insert(crate::api::mark::ANNOTATION_FENCE.to_owned(), attempt.id().to_owned());
        let written = self.secrets().replace(held, &content).await?;
        self.hold(Some(written));
        Ok(())
    }

    async fn abandon(&mut self, orphans: &[String]) -> Result<(), PassError> {
        let (Some(attempt), Some(journal)) = (&self.observed.attempt, self.observed.world.journal()) else {
            return Ok(());
        };
        let journals = Journals::new(self.context.client.clone(), self.target);
        let journal = Journal { mode: Mode::Abandoned { orphans: orphans.to_vec() }, ..journal.clone() };
        let attempt = journals.replace(attempt, &journal, None).await?;
        self.observed.world.journal = observe::seen(&attempt, self.target);
        self.observed.attempt = Some(attempt);
        Ok(())
    }

    async fn close_journal(&mut self) -> Result<(), PassError> {
        if let Some(attempt) = &self.observed.attempt {
            Journals::new(self.context.client.clone(), self.target).close(attempt).await?;
        }
        self.observed.attempt = None;
        self.observed.world.journal = JournalSeen::None;
        Ok(())
    }

    async fn delete_previous(&mut self, name: &str) -> Result<(), PassError> {
        let secrets = self.secrets();
        if let Some(old) = secrets.get(name).await?
            && old.foreign_to(&self.target.owner.uid).is_none()
        {
            secrets.delete(&old).await?;
        }
        let Some(held) = &self.observed.held else { return Ok(()) };
        let (Some(desired), content) = (self.desired, held.content()) else { return Ok(()) };
        let Some(key) = secret::material(&content) else { return Ok(()) };
        let mut publication = secret::publication(&content);
        publication.previous.remove(name);
        self.write_secret(desired, &key, &publication).await
    }

    async fn read_last_used(&mut self) -> Result<(), PassError> {
        let ids: Vec<String> =
            self.observed.world.user().iter().flat_map(|user| user.keys.iter().map(|key| key.id.clone())).collect();
        let mut last_used = BTreeMap::new();
        for id in ids {
            let used = self.context.iam.last_used(&id).await?;
            last_used.insert(id, used);
        }
        self.observed.world.last_used = Some(last_used);
        Ok(())
    }

    async fn delete_user(&mut self) -> Result<(), PassError> {
        let iam = &self.context.iam;
        let name = &self.target.user_name;
        match iam.delete_user(name).await {
            Ok(()) => {
                self.tell(Reason::UserDeleted, format!("the IAM user {name} was deleted with its keys and policies"));
                self.observed.world.iam = Iam::Absent;
                Ok(())
            }
            // More hangs on the user than is declared: look for it, once, and go on with what is found.
            Err(error)
                if error.kind == AwsErrorKind::DeleteConflict
                    && self.observed.world.user().is_some_and(|user| user.leftovers.is_none()) =>
            {
                self.changed(String::new(), |user| user.grants = None);
                Ok(())
            }
            Err(error) => Err(PassError::Aws { error, effect: Some(Effect::DeleteUser) }),
        }
    }

    async fn check_secret_access(&self) -> Result<(), PassError> {
        let namespace = &self.target.owner.namespace;
        self.context.access.check(namespace).await.map_err(|error| match error.kind {
            ClusterErrorKind::Forbidden => PassError::SecretAccess(error),
            _ => PassError::Cluster(error),
        })
    }

    // --- what was learned ---------------------------------------------------------------------

    fn changed(&mut self, what: String, learn: impl FnOnce(&mut IamUser)) {
        if let Iam::Found(user) = &mut self.observed.world.iam {
            learn(user);
        }
        if !what.is_empty() && self.desired.is_some() {
            self.tell(Reason::UserChanged, what);
        }
    }

    fn changed_grants(&mut self, what: String, learn: impl FnOnce(&mut Grants)) {
        self.changed(what, |user| learn(user.grants.get_or_insert_with(Grants::default)));
    }

    fn hold(&mut self, held: Option<crate::cluster::Held>) {
        let secret = self.desired.map(|desired| &desired.secret);
        self.observed.world.published = held.as_ref().map_or(Published::Missing, |held| {
            Published::Ours(secret::facts(&held.content(), held.immutable(), secret))
        });
        self.observed.held = held;
    }

    fn tell(&mut self, reason: Reason, note: String) {
        self.news.push(News { reason, note, warning: false });
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(self.context.client.clone(), &self.target.owner.namespace)
    }

    fn users(&self) -> Users {
        Users::new(self.context.client.clone(), &self.target.owner.namespace)
    }

    fn owner_reference(&self) -> OwnerReference {
        // Name and UID are there: `Target::of` has asked for them.
        self.user.controller_owner_ref(&()).unwrap_or_default()
    }
}

fn gone<T: Default>(error: ClusterError) -> Result<T, ClusterError> {
    if error.kind == ClusterErrorKind::NotFound { Ok(T::default()) } else { Err(error) }
}

fn set_tags(user: &mut IamUser, tags: &BTreeMap<String, String>) {
    for (key, value) in tags {
        user.tags.retain(|other, _| !other.eq_ignore_ascii_case(key));
        user.tags.insert(key.clone(), value.clone());
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn floor(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn because(why: Why) -> &'static str {
    match why {
        Why::Retired => "its overlap is over",
        Why::MakesRoom => "its value is lost and its slot is needed",
        Why::Suspended => "spec.suspend",
        Why::Orphan => "it belonged to an attempt that was cut off; nobody held its secret",
        Why::Cleanup => "the resource is being deleted",
        Why::Revoked => "no class allows it any more",
    }
}
