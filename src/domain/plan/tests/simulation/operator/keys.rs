//! Effects on keys, their journal and the published Secret.

use super::*;

pub(super) fn staged(attempt: Option<&StoredSecret>, key_id: &str) -> Option<KeyMaterial> {
    let secret = String::from_utf8(attempt?.content.data.get("secretAccessKey")?.clone()).ok()?;
    Some(KeyMaterial { id: key_id.to_owned(), secret: secret.into() })
}

fn journal_content(journal: &Journal, key: Option<&KeyMaterial>) -> SecretContent {
    use secrecy::ExposeSecret;
    let mut content = SecretContent::default();
    content.data.insert("journal".into(), journal.encode());
    if let Some(key) = key {
        content.data.insert("secretAccessKey".into(), key.secret.expose_secret().as_bytes().to_vec());
    }
    content
}

impl Reconciliation<'_> {
    pub(super) fn create_key(&mut self, known: &[String], repairs: Option<u32>) -> Result<(), CallError> {
        let mut journal = Journal {
            started_at: floor(self.cloud.now),
            rotate_request: self.desired.as_ref().and_then(|desired| desired.key.as_ref()?.rotate_request.clone()),
            phase: AttemptPhase::Intent { known: known.to_vec() },
        };
        let attempt = self.cloud.create_secret(&self.target.journal_name, &journal_content(&journal, None))?;
        let (key, created_at) = match self.cloud.create_access_key(&attempt.uid) {
            Ok(made) => made,
            Err(fail) => {
                if !matches!(fail, CallError::Lost | CallError::Crash)
                    && self.cloud.delete_secret(&attempt) == Err(CallError::Crash)
                {
                    return Err(CallError::Crash);
                }
                return Err(fail);
            }
        };
        if let Some(count) = repairs {
            let count = i32::try_from(count).unwrap();
            self.seen.current.hints.repairs = Some(KeyRepairs { count, last_time: created_at });
        }
        journal.phase = AttemptPhase::Keyed { key_id: key.id.clone(), keyed_at: self.cloud.now };
        let attempt = self.stage(&attempt, &journal, &key)?;
        self.seen.current.journal = seen(&attempt);
        self.seen.attempt = Some(attempt);
        self.changed(|user| user.keys.push(AccessKey { id: key.id, active: true, created_at }));
        Ok(())
    }

    fn stage(
        &mut self,
        attempt: &StoredSecret,
        journal: &Journal,
        key: &KeyMaterial,
    ) -> Result<StoredSecret, CallError> {
        for tries in 1..=5 {
            match self.cloud.replace_secret(attempt, Some(OWNER), &journal_content(journal, Some(key))) {
                Ok(staged) => return Ok(staged),
                Err(CallError::Crash) => return Err(CallError::Crash),
                // Kubernetes at its limit is not an answer to the write.
                Err(CallError::Lost | CallError::Throttled) => {}
                Err(fail) => {
                    let now = self.cloud.secrets.get(&attempt.name).filter(|now| now.uid == attempt.uid);
                    let decoded = now.and_then(|now| Journal::decode(&now.content.data["journal"]).ok());
                    let tagged = self.cloud.user.as_ref().is_some_and(|user| user.tags.contains_key(&key_tag(&key.id)));
                    match decoded.filter(|seen| tries > 1 && seen.references_key(&key.id)) {
                        Some(Journal { phase: AttemptPhase::Keyed { .. }, .. }) => {
                            return now.cloned().ok_or(CallError::NotFound);
                        }
                        Some(_) => return Err(fail),
                        None if tries > 1 && tagged => return Err(fail),
                        None => {}
                    }
                    self.cloud.delete_key(&key.id, RetireReason::Orphan)?;
                    return Err(CallError::Undone);
                }
            }
        }
        Err(CallError::Lost)
    }

    pub(super) fn publish(&mut self, key_id: &str) -> Result<(), CallError> {
        let Some(key) = staged(self.seen.attempt.as_ref(), key_id) else { return self.abandon(&[key_id.to_owned()]) };
        let fence = self.seen.current.published().and_then(|facts| facts.fence.clone());
        let journal = self.seen.current.journal().cloned();
        let publication = Publication {
            published_at: floor(self.cloud.now) + secs(1),
            rotate_honoured: journal.as_ref().and_then(|journal| journal.rotate_request.clone()),
            fence,
            restarts: BTreeMap::new(),
        };
        self.write_secret(&key, &publication)
    }

    pub(super) fn write_secret(&mut self, key: &KeyMaterial, publication: &Publication) -> Result<(), CallError> {
        let Some(desired) = self.desired.clone() else { return Ok(()) };
        let written = if let Some(stored) = self.seen.stored.clone() {
            let content = secret::render(&desired.secret, key, publication, &stored.content, sealer());
            self.cloud.replace_secret(&stored, Some(OWNER), &content)?
        } else {
            let content = secret::render(&desired.secret, key, publication, &SecretContent::default(), sealer());
            self.cloud.create_secret(&self.target.secret_name, &content)?
        };
        self.hold(Some(written));
        Ok(())
    }

    pub(super) fn abandon(&mut self, orphans: &[String]) -> Result<(), CallError> {
        let (Some(attempt), Some(journal)) = (&self.seen.attempt, self.seen.current.journal()) else { return Ok(()) };
        let journal = Journal { phase: AttemptPhase::Abandoned { orphans: orphans.to_vec() }, ..journal.clone() };
        let attempt = self.cloud.replace_secret(attempt, Some(OWNER), &journal_content(&journal, None))?;
        self.seen.current.journal = seen(&attempt);
        self.seen.attempt = Some(attempt);
        Ok(())
    }
}
