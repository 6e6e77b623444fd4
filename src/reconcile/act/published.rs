//! Effects on the published Secret.

use super::{Executor, floor};
use crate::{
    api::{Reason, well_known},
    domain::{
        desired::Desired,
        plan,
        secret::{self, KeyMaterial, Publication, SecretContent},
    },
    reconcile::error::ReconcileError,
};

impl Executor<'_> {
    /// Writes the key, conditional on the Secret as this reconcile read it. May leave a published key without its tag and with
    /// its journal: the next reconcile tags it and deletes the journal.
    pub(super) async fn publish(
        &mut self,
        key_id: &str,
        left_behind: Option<&(String, String)>,
    ) -> Result<(), ReconcileError> {
        let Some(desired) = self.desired else { return Ok(()) };
        let Some(key) = self.observed.journal.as_ref().and_then(|attempt| attempt.staged_key(key_id)) else {
            return self.abandon(&[key_id.to_owned()]).await;
        };
        let before =
            self.observed.published.as_ref().map(|held| secret::read_publication(&held.content())).unwrap_or_default();
        let journal = self.observed.current.journal().cloned();
        let mut publication = Publication { fence: before.fence, previous: before.previous, ..Publication::default() };
        let noted = journal.as_ref().and_then(|journal| journal.previous_secret.as_ref());
        for left_behind in noted.into_iter().chain(left_behind) {
            let left = self.secrets().get(&left_behind.0).await?;
            let left = left.filter(|left| left.ownership_conflict(&self.target.owner.uid).is_none());
            publication.record_previous_secret(left_behind, left.map(|left| secret::read_publication(&left.content())));
        }
        publication.previous.remove(&self.target.secret_name);
        publication.rotate_honoured = journal.and_then(|journal| journal.rotate_request);
        publication.restarts = plan::required_restarts(desired, &self.observed.current);
        // Rounded up, so that an overlap is never shorter than declared.
        publication.published_at = floor(self.iam.clock().now()) + jiff::SignedDuration::from_secs(1);
        self.write_secret(desired, &key, &publication).await?;
        let Some(until) = desired.key.as_ref().map(|key| key.overlap) else { return Ok(()) };
        let old = self
            .observed
            .current
            .user()
            .map_or(0, |user| user.keys.iter().filter(|other| other.active && other.id != key_id).count());
        let overlap = if old > 0 {
            format!("; the previous key stays valid for {}", crate::api::duration::humanize(until))
        } else {
            String::new()
        };
        self.context.observer.rotated();
        self.record_event(
            Reason::Published,
            format!("access key {key_id} was published in Secret {}{overlap}", self.target.secret_name),
        );
        Ok(())
    }

    pub(super) async fn write_secret(
        &mut self,
        desired: &Desired,
        key: &KeyMaterial,
        publication: &Publication,
    ) -> Result<(), ReconcileError> {
        let secrets = self.secrets();
        let written = if let Some(held) = &self.observed.published {
            secrets.replace(held, &secret::render(&desired.secret, key, publication, &held.content())).await?
        } else {
            let content = secret::render(&desired.secret, key, publication, &SecretContent::default());
            secrets.create(&self.target.secret_name, Some(self.owner_reference()), &content).await?
        };
        self.set_published(Some(written));
        Ok(())
    }

    pub(super) async fn rewrite(&mut self) -> Result<(), ReconcileError> {
        let (Some(desired), Some(held)) = (self.desired, &self.observed.published) else { return Ok(()) };
        let content = held.content();
        let Some(key) = secret::read_key(&content) else { return Ok(()) };
        self.write_secret(desired, &key, &secret::read_publication(&content)).await?;
        self.record_event(
            Reason::SecretRepaired,
            format!("Secret {} was rewritten as declared with the same access key", self.target.secret_name),
        );
        Ok(())
    }

    /// Changes the resourceVersion of the Secret, so that a paused publisher fails, and records the abandoned attempt.
    pub(super) async fn touch(&mut self) -> Result<(), ReconcileError> {
        let (Some(held), Some(attempt)) = (&self.observed.published, &self.observed.journal) else { return Ok(()) };
        let mut content = held.content();
        content.annotations.insert(crate::api::well_known::ANNOTATION_FENCE.to_owned(), attempt.id().to_owned());
        let written = self.secrets().replace(held, &content).await?;
        self.set_published(Some(written));
        Ok(())
    }

    pub(super) async fn delete_previous(&mut self, name: &str) -> Result<(), ReconcileError> {
        let secrets = self.secrets();
        let recorded = self.observed.current.published().and_then(|facts| facts.previous.get(name));
        if let Some(old) = secrets.get(name).await?
            && old.ownership_conflict(&self.target.owner.uid).is_none()
            // The name may be in use again, for another key or for a password.
            && old.content().annotations.get(well_known::ANNOTATION_KEY_ID) == recorded
        {
            secrets.delete(&old).await?;
        }
        let Some(held) = &self.observed.published else { return Ok(()) };
        let (Some(desired), content) = (self.desired, held.content()) else { return Ok(()) };
        let Some(key) = secret::read_key(&content) else { return Ok(()) };
        let mut publication = secret::read_publication(&content);
        publication.previous.remove(name);
        self.write_secret(desired, &key, &publication).await
    }

    pub(super) async fn release_secret(&mut self) -> Result<(), ReconcileError> {
        if let Some(held) = &self.observed.published {
            self.secrets().release(held, &self.target.owner.uid).await?;
        }
        self.set_published(None);
        Ok(())
    }

    pub(super) async fn delete_secret(&mut self) -> Result<(), ReconcileError> {
        if let Some(held) = &self.observed.published {
            self.secrets().delete(held).await?;
        }
        self.set_published(None);
        Ok(())
    }
}
