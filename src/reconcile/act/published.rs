//! Effects on the published Secret.

use super::Executor;
use crate::{
    api::Reason,
    aws::KeyVerification,
    cluster::{ClusterError, SecretSnapshot},
    domain::{
        current_state::SecretRefusals,
        dates::{floor, saturating_add},
        desired::Desired,
        plan::{self, Effect},
        secret::{self, HonouredRequest, KeyMaterial, Publication, SecretContent},
    },
    reconcile::{cache::ReconcileCache, error::ReconcileError},
};

/// Stands for the access key that a Secret will hold.
const PLACEHOLDER: &str = "AKIAPLACEHOLDER00000";

impl Executor<'_> {
    /// Writes the key, conditional on the Secret as this reconcile read it. May leave a published key without its tag and with
    /// its journal: the next reconcile tags it and deletes the journal.
    pub(super) async fn publish(&mut self, key_id: &str) -> Result<(), ReconcileError> {
        let Some(desired) = self.desired else { return Ok(()) };
        let Some(key) = self.observed.journal.as_ref().and_then(|attempt| attempt.staged_key(key_id)) else {
            return self.abandon(&[key_id.to_owned()]).await;
        };
        let fence = self.observed.current.published().and_then(|facts| facts.fence.clone());
        let journal = self.observed.current.journal().cloned();
        let mut publication = Publication { fence, ..Publication::default() };
        publication.rotate_honoured = journal.and_then(|journal| journal.rotate_request);
        publication.restarts = plan::required_restarts(desired, &self.observed.current);
        // Rounded up, so that an overlap is never shorter than declared.
        publication.published_at = floor(self.iam.clock().now()) + jiff::SignedDuration::from_secs(1);
        // What is stored otherwise is rewritten once the key is in use, and reported then.
        self.put_secret(desired, &key, &publication).await?;
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

    /// Asks whether the API server accepts the Secret, before there is a key: one that cannot be published is lost, and so is each
    /// one after it.
    pub(super) async fn check_publishable(&self) -> Result<(), ReconcileError> {
        let Some(desired) = self.desired else { return Ok(()) };
        let key = KeyMaterial { id: PLACEHOLDER.to_owned(), secret: PLACEHOLDER.to_owned().into() };
        let held = self.observed.published.as_ref();
        let existing = held.map(SecretSnapshot::content).unwrap_or_default();
        let content = secret::render(&desired.secret, &key, &Publication::default(), &existing, self.sealer());
        let (name, owner) = (&self.target.secret_name, self.owner_reference());
        self.secrets().check_admission(name, held, owner, &content).await.map_err(|error| {
            let message = format!(
                "{}. No access key is created until it is accepted: declare what is asked for in spec.accessKey.secret, or have a cluster admin exempt the Secret",
                error.message
            );
            ClusterError { message, ..error }.into()
        })
    }

    /// Writes the Secret; fails if the API server stores it otherwise, as the write would be repeated without end.
    pub(super) async fn write_secret(
        &mut self,
        desired: &Desired,
        key: &KeyMaterial,
        publication: &Publication,
    ) -> Result<(), ReconcileError> {
        let written = self.put_secret(desired, key, publication).await?;
        self.check_kept(&written)
    }

    /// Writes the Secret and returns what was written.
    async fn put_secret(
        &mut self,
        desired: &Desired,
        key: &KeyMaterial,
        publication: &Publication,
    ) -> Result<SecretContent, ReconcileError> {
        let secrets = self.secrets();
        let before = self.observed.published.as_ref().map(SecretSnapshot::content).unwrap_or_default();
        let content = secret::render(&desired.secret, key, publication, &before, self.sealer());
        let stored = match &self.observed.published {
            Some(held) => secrets.replace(held, &content).await?,
            None => secrets.create(&self.target.secret_name, self.owner_reference(), &content).await?,
        };
        self.set_published(Some(stored));
        Ok(content)
    }

    /// Whether the API server has stored the published Secret as it was written a moment ago.
    fn check_kept(&self, written: &SecretContent) -> Result<(), ReconcileError> {
        let Some(stored) = &self.observed.published else { return Ok(()) };
        let Some(difference) = secret::first_difference(written, &stored.content()) else { return Ok(()) };
        let manager = stored.other_manager(&difference.path);
        Err(ReconcileError::NotKept {
            secret: format!("{}/{}", self.target.owner.namespace, self.target.secret_name),
            difference: difference.description,
            manager: manager.map_or("not recorded".to_owned(), |manager| format!("{manager:?}")),
        })
    }

    pub(super) async fn rewrite(&mut self) -> Result<(), ReconcileError> {
        let (Some(desired), Some(held)) = (self.desired, &self.observed.published) else { return Ok(()) };
        let content = held.content();
        let Some(key) = secret::read_key(&content, self.sealer()) else { return Ok(()) };
        self.write_secret(desired, &key, &secret::read_publication(&content)).await?;
        self.record_event(
            Reason::SecretRepaired,
            format!("Secret {} was rewritten as declared with the same access key", self.target.secret_name),
        );
        Ok(())
    }

    /// Asks STS once about the key in a Secret without a valid MAC, and signs the Secret if the key is one of our user. Nothing
    /// else in the Secret is believed: no edit causes a rotation or a restart, or makes the key look younger than its tag.
    pub(super) async fn confirm_secret(
        &mut self,
        key_id: &str,
        cache: &mut ReconcileCache,
    ) -> Result<(), ReconcileError> {
        let (Some(desired), Some(held)) = (self.desired, &self.observed.published) else { return Ok(()) };
        let version = held.version().unwrap_or_default().to_owned();
        let user = self.owned_user(&Effect::ConfirmSecret(key_id.to_owned()))?;
        let key = secret::read_unverified_key(&held.content()).filter(|key| key.id == key_id);
        let accepted = match &key {
            Some(key) => {
                matches!(self.iam.verify_key(key).await?, KeyVerification::Accepted(bearer) if bearer == user.arn())
            }
            None => false,
        };
        let Some(key) = key.filter(|_| accepted) else {
            tracing::warn!(key_id, "AWS refused the access key in a Secret without a valid MAC");
            let refusals = SecretRefusals::with(self.observed.current.secret_refusals, self.iam.clock().now());
            cache.secret_refusals = Some((version, refusals));
            self.observed.current.secret_refusals = Some(refusals);
            return Ok(());
        };
        let facts = self.observed.current.user();
        // Both dates are rounded down, that of a publication is rounded up: an overlap is never shorter than declared.
        let known = facts.and_then(|user| user.tagged_at(key_id).or_else(|| Some(user.key(key_id)?.created_at)));
        // After a restart it is unknown whether the present request was carried out: the loss of the MAC key must not rotate
        // every key.
        let requested = desired.key.as_ref().and_then(|key| key.rotate_request.clone());
        let publication = Publication {
            published_at: saturating_add(known.unwrap_or_default(), jiff::SignedDuration::from_secs(1)),
            rotate_honoured: cache.honoured.clone().map_or(requested, |HonouredRequest(request)| request),
            ..Publication::default()
        };
        self.write_secret(desired, &key, &publication).await?;
        let name = &self.target.secret_name;
        self.record_event(
            Reason::SecretRepaired,
            format!("Secret {name} had no valid signature of this operator; AWS accepts its access key {key_id}, so it was signed"),
        );
        Ok(())
    }

    /// Changes the resourceVersion of the Secret, so that a paused publisher fails, and records the abandoned attempt.
    pub(super) async fn touch(&mut self) -> Result<(), ReconcileError> {
        let (Some(held), Some(attempt)) = (&self.observed.published, &self.observed.journal) else { return Ok(()) };
        let content = secret::with_fence(held.content(), attempt.id(), self.sealer());
        let stored = self.secrets().replace(held, &content).await?;
        self.set_published(Some(stored));
        self.check_kept(&content)
    }

    /// Removes the owner references of a live resource that declares `Retain`.
    pub(super) async fn release_secrets(&mut self) -> Result<(), ReconcileError> {
        let (secrets, uid) = (self.secrets(), &self.target.owner.uid);
        if let Some(held) = self.observed.published.clone().filter(SecretSnapshot::has_owner) {
            let released = secrets.release(&held, uid).await?;
            self.set_published(Some(released));
        }
        if let Some(held) = self.observed.console.clone().filter(SecretSnapshot::has_owner) {
            let released = secrets.release(&held, uid).await?;
            self.set_console(Some(released));
        }
        self.observed.current.secret_has_owner = false;
        Ok(())
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
