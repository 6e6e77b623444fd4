//! Effects on the IAM user.

use std::collections::{BTreeMap, BTreeSet};

use super::Executor;
use crate::{
    api::{Reason, well_known},
    aws::{AwsError, AwsErrorKind},
    cluster::PendingEvent,
    domain::{
        current_state::{CurrentUser, DeletionBlocker, IamUser, UserAbsence, UserRef},
        owner::tagged_key_id,
        plan::{self, Claim, Effect, EffectVerb},
    },
    reconcile::{error::ReconcileError, observe},
};

impl Executor<'_> {
    /// May leave a user with the ownership tags: the next reconcile recognises it.
    pub(super) async fn create_user(&mut self) -> Result<(), ReconcileError> {
        let Some(desired) = self.desired else { return Ok(()) };
        self.check_secret_access().await?;
        if !observe::is_recorded(&self.user, self.target, &self.context.namespace) {
            return Err(ReconcileError::UserNotObserved(EffectVerb::CreateUser));
        }
        let iam = &self.iam;
        let user = match iam
            .create_user(&self.target.user_name, &desired.path, desired.boundary.as_deref(), &desired.tags)
            .await
        {
            Ok(user) => user,
            Err(error) if error.kind == AwsErrorKind::EntityAlreadyExists => {
                return Err(self.name_is_taken(error).await);
            }
            Err(error) => return Err(ReconcileError::of_effect(error, Effect::CreateUser)),
        };
        let again = self.observed.current.hints.user_id.as_ref().is_some_and(|id| *id != user.id);
        if again {
            // A reason of its own: the API server counts Events of one reason and keeps the first note only.
            let note =
                format!("the IAM user {} was deleted in AWS and is created again (new id {})", user.name, user.id);
            self.events.push(PendingEvent { reason: Reason::UserRecreated, note, warning: true });
        } else {
            self.record_event(Reason::UserCreated, format!("the IAM user {} was created", user.arn));
        }
        self.observed.current.iam = CurrentUser::Found(user);
        Ok(())
    }

    /// Writes all ownership tags in one call, so that a user is never half owned. The consent tag is removed afterwards.
    pub(super) async fn adopt(&mut self, losses: &[String]) -> Result<(), ReconcileError> {
        let (Some(desired), Some(user)) = (self.desired, self.observed.current.user().cloned()) else {
            return Ok(());
        };
        // Planned on this very state; a user of another owner must not be taken over by a mistake of the plan.
        if plan::evaluate_claim(self.target, desired.adoption, &desired.path, &user) != Claim::Adoptable {
            return Err(ReconcileError::UserNotObserved(EffectVerb::AdoptUser));
        }
        self.check_secret_access().await?;
        let keys = user.keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(", ");
        let (losses, warning) = (losses.join("; "), !losses.is_empty());
        let note = format!(
            "the IAM user {} is about to be adopted. It loses what is not declared: {}. Access keys that are kept and never changed: {}",
            user.arn,
            if warning { &losses } else { "nothing" },
            if keys.is_empty() { "none" } else { &keys },
        );
        // Events hold one kilobyte.
        tracing::info!(user = user.arn, losses, keys, "adopting IAM user");
        // Published before the first write, so that the previous state is on record.
        self.context.events.publish(&self.user, &PendingEvent { reason: Reason::UserAdoptable, note, warning }).await;
        let tags = self.desired.iter().flat_map(|desired| &desired.tags);
        let marks = tags.filter(|(key, _)| key.starts_with(well_known::TAG_PREFIX));
        let marks: BTreeMap<String, String> = marks.map(|(key, value)| (key.clone(), value.clone())).collect();
        self.iam
            .tag_user(&user.reference(), &marks)
            .await
            .map_err(|error| ReconcileError::of_effect(error, Effect::AdoptUser(Vec::new())))?;
        self.apply_change(String::new(), |user| set_tags(user, &marks));
        self.record_event(Reason::UserAdopted, format!("the IAM user {} was adopted", user.arn));
        Ok(())
    }

    /// IAM has a user of this name that `GetUser` did not show: its name differs in case, or it was created a moment ago, possibly
    /// by this operator with the response lost.
    async fn name_is_taken(&self, error: AwsError) -> ReconcileError {
        let name = &self.target.user_name;
        let user = match self.iam.find_user_ignoring_case(name).await {
            Ok(Some(user)) => user,
            // Asking again would end the same way.
            Err(denied) if denied.kind == AwsErrorKind::AccessDenied => {
                return ReconcileError::NotOwned(format!(
                    "the account has an IAM user with the name {name}, probably in another case, which is not changed; the operator may not read which ({denied}). Choose another spec.userName in a new resource, or have an AWS admin allow iam:ListUsers"
                ));
            }
            // Not visible yet, or not readable now.
            Ok(None) | Err(_) => return ReconcileError::of_effect(error, Effect::CreateUser),
        };
        let claim =
            self.desired.map(|desired| plan::evaluate_claim(self.target, desired.adoption, &desired.path, &user));
        match claim {
            Some(Claim::NotOwned(note)) if !self.context.is_owner_ending(self.target, &user.tags) => {
                ReconcileError::NotOwned(note.message)
            }
            // A later reconcile observes it.
            _ => ReconcileError::of_effect(error, Effect::CreateUser),
        }
    }

    pub(super) async fn untag_user(&mut self, target: &UserRef, keys: &BTreeSet<String>) -> Result<(), AwsError> {
        self.iam.untag_user(target, keys).await?;
        let are_key_tags = keys.iter().any(|key| tagged_key_id(key).is_some());
        let changed = if are_key_tags { String::new() } else { format!("removed tags {}", list(keys)) };
        self.apply_change(changed, |user| user.tags.retain(|key, _| !keys.contains(key)));
        if self.desired.is_none() {
            // Without ownership tags the user is retained.
            self.record_event(
                Reason::UserRetained,
                format!("the IAM user {} was retained in AWS without ownership tags", target.name()),
            );
            self.user_removed();
        }
        Ok(())
    }

    pub(super) async fn read_grants(&mut self, target: &UserRef) -> Result<(), AwsError> {
        let (iam, name) = (&self.iam, target.name());
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

    pub(super) async fn remove_deletion_blocker(
        &mut self,
        target: &UserRef,
        blocker: &DeletionBlocker,
    ) -> Result<(), AwsError> {
        self.iam.remove_deletion_blocker(target, blocker).await?;
        tracing::info!(user = target.name(), %blocker, "removed deletion blocker");
        self.apply_change(String::new(), |user| {
            user.deletion_blockers.iter_mut().for_each(|all| all.retain(|other| other != blocker));
        });
        Ok(())
    }

    /// Records that this reconcile removed the user.
    fn user_removed(&mut self) {
        self.observed.current.iam = CurrentUser::Absent;
        self.observed.current.user_absence = Some(UserAbsence::Removed);
    }

    pub(super) async fn delete_user(&mut self) -> Result<(), ReconcileError> {
        let target = self.owned_user(&Effect::DeleteUser)?;
        match self.iam.delete_user(&target).await {
            Ok(true) => {
                self.record_event(
                    Reason::UserDeleted,
                    format!("the IAM user {} was deleted with its keys and policies", target.name()),
                );
                self.user_removed();
                Ok(())
            }
            // It was observed a moment ago: one of the two answers is stale.
            Ok(false) => {
                self.observed.current.iam = CurrentUser::Absent;
                Ok(())
            }
            // More is attached to the user than is declared: read it once, and continue with that.
            Err(error)
                if error.kind == AwsErrorKind::DeleteConflict
                    && self.observed.current.user().is_some_and(|user| user.deletion_blockers.is_none()) =>
            {
                self.apply_change(String::new(), |user| user.grants = None);
                Ok(())
            }
            Err(error) => Err(ReconcileError::of_effect(error, Effect::DeleteUser)),
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
