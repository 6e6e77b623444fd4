//! Effects on the IAM user, beside the writes of one line.

use std::collections::{BTreeMap, BTreeSet};

use super::Executor;
use crate::{
    api::Reason,
    aws::{AwsError, AwsErrorKind},
    cluster::PendingEvent,
    domain::{
        current_state::{CurrentUser, DeletionBlocker, IamUser, UserAbsence},
        owner::key_tag,
        plan::{self, Claim, Effect},
    },
    reconcile::error::ReconcileError,
};

impl Executor<'_> {
    /// May leave a user that carries our marks: the next pass knows it as ours.
    pub(super) async fn create_user(&mut self) -> Result<(), ReconcileError> {
        let Some(desired) = self.desired else { return Ok(()) };
        self.check_secret_access().await?;
        let iam = &self.iam;
        let user = match iam
            .create_user(&self.target.user_name, &desired.path, desired.boundary.as_deref(), &desired.tags)
            .await
        {
            Ok(user) => user,
            Err(error) if error.kind == AwsErrorKind::EntityAlreadyExists => return Err(self.taken(error).await),
            Err(error) => return Err(ReconcileError::Aws { error, effect: Some(Effect::CreateUser) }),
        };
        let again = self.observed.current.hints.user_id.as_ref().is_some_and(|id| *id != user.id);
        if again {
            // A reason of its own: Events of one reason are counted, and only the first one's words are kept.
            let note = format!(
                "the IAM user {} had been deleted in AWS; it was created again (new id {})",
                user.name, user.id
            );
            self.events.push(PendingEvent { reason: Reason::UserRecreated, note, warning: true });
        } else {
            self.record_event(Reason::UserCreated, format!("the IAM user {} was created", user.arn));
        }
        self.observed.current.iam = CurrentUser::Found(user);
        Ok(())
    }

    /// All marks in one call: a user is ours or it is not. The consent is taken off afterwards, with the other tags.
    pub(super) async fn adopt(&mut self, losses: &[String]) -> Result<(), ReconcileError> {
        let Some(user) = self.observed.current.user().cloned() else { return Ok(()) };
        self.check_secret_access().await?;
        let keys = user.keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(", ");
        let (losses, warning) = (losses.join("; "), !losses.is_empty());
        let note = format!(
            "the IAM user {} is about to be adopted. It loses what is not declared: {}. Access keys that stay and are left alone: {}",
            user.arn,
            if warning { &losses } else { "nothing" },
            if keys.is_empty() { "none" } else { &keys },
        );
        // Events end at a kilobyte.
        tracing::info!(user = user.arn, losses, keys, "about to be adopted");
        // Before the first write, not with the report of the pass: whoever watches can still know what there was.
        self.context.events.publish(&self.user, &PendingEvent { reason: Reason::UserAdoptable, note, warning }).await;
        let marks = self.target.owner.tags();
        self.iam
            .tag_user(&user.name, &marks)
            .await
            .map_err(|error| ReconcileError::Aws { error, effect: Some(Effect::AdoptUser(Vec::new())) })?;
        self.apply_change(String::new(), |user| set_tags(user, &marks));
        self.record_event(Reason::UserAdopted, format!("the IAM user {} was adopted", user.arn));
        Ok(())
    }

    /// IAM has a user of this name although it did not show us one: a name that differs in case, or
    /// one made a moment ago, by ourselves perhaps with the answer lost.
    async fn taken(&self, error: AwsError) -> ReconcileError {
        let standing = match (self.iam.find_user_ignoring_case(&self.target.user_name).await, self.desired) {
            (Ok(Some(user)), Some(desired)) => {
                Some(plan::evaluate_claim(self.target, desired.adoption, &desired.path, &user))
            }
            _ => None,
        };
        match standing {
            Some(Claim::NotOwned(note)) => ReconcileError::NotOwned(note.message),
            // The next pass sees it.
            Some(Claim::Owned | Claim::Adoptable) | None => {
                ReconcileError::Aws { error, effect: Some(Effect::CreateUser) }
            }
        }
    }

    pub(super) async fn untag_user(&mut self, keys: &BTreeSet<String>) -> Result<(), AwsError> {
        let (iam, name) = (&self.iam, &self.target.user_name);
        iam.untag_user(name, keys).await?;
        let of_keys = keys.iter().any(|key| key.starts_with(&key_tag("")));
        let changed = if of_keys { String::new() } else { format!("tags removed: {}", list(keys)) };
        self.apply_change(changed, |user| user.tags.retain(|key, _| !keys.contains(key)));
        if self.desired.is_none() {
            // Without our marks it is nobody's user: retained.
            self.record_event(Reason::UserRetained, format!("the IAM user {name} was left in AWS without our marks"));
            self.left_behind();
        }
        Ok(())
    }

    pub(super) async fn read_grants(&mut self) -> Result<(), AwsError> {
        let (iam, name) = (&self.iam, &self.target.user_name);
        let (keys, grants, deletion_blockers) = tokio::try_join!(
            iam.list_access_keys(name),
            iam.get_grants(name),
            Box::pin(iam.list_deletion_blockers(name))
        )?;
        self.apply_change(String::new(), |user| {
            user.keys = keys;
            user.grants = Some(grants);
            user.deletion_blockers = Some(deletion_blockers);
        });
        Ok(())
    }

    pub(super) async fn remove_deletion_blocker(&mut self, leftover: &DeletionBlocker) -> Result<(), AwsError> {
        let (iam, name) = (&self.iam, &self.target.user_name);
        iam.remove_deletion_blocker(name, leftover).await?;
        tracing::info!(user = name, %leftover, "removed");
        self.apply_change(String::new(), |user| {
            user.deletion_blockers.iter_mut().for_each(|all| all.retain(|other| other != leftover));
        });
        Ok(())
    }

    /// There is no user of ours any more, by our own doing.
    fn left_behind(&mut self) {
        self.observed.current.iam = CurrentUser::Absent;
        self.observed.current.user_absence = Some(UserAbsence::Removed);
    }

    pub(super) async fn delete_user(&mut self) -> Result<(), ReconcileError> {
        let iam = &self.iam;
        let name = &self.target.user_name;
        match iam.delete_user(name).await {
            Ok(true) => {
                self.record_event(
                    Reason::UserDeleted,
                    format!("the IAM user {name} was deleted with its keys and policies"),
                );
                self.left_behind();
                Ok(())
            }
            // It was seen a moment ago. One of the two answers is old.
            Ok(false) => {
                self.observed.current.iam = CurrentUser::Absent;
                Ok(())
            }
            // More hangs on the user than is declared: look for it, once, and go on with what is found.
            Err(error)
                if error.kind == AwsErrorKind::DeleteConflict
                    && self.observed.current.user().is_some_and(|user| user.deletion_blockers.is_none()) =>
            {
                self.apply_change(String::new(), |user| user.grants = None);
                Ok(())
            }
            Err(error) => Err(ReconcileError::Aws { error, effect: Some(Effect::DeleteUser) }),
        }
    }
}

pub(super) fn set_tags(user: &mut IamUser, tags: &BTreeMap<String, String>) {
    for (key, value) in tags {
        user.tags.retain(|other, _| !other.eq_ignore_ascii_case(key));
        user.tags.insert(key.clone(), value.clone());
    }
}

pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
