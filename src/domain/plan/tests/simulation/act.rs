//! What people, AWS and bad luck do to the world.

use proptest::prelude::*;

use super::{
    cloud::{self, Fault},
    *,
};
use crate::api::user::{AwsDeployUserSpec, RotationSpec, RotationWindow};

/// What AWS attaches to the user of a key that it found in public.
pub(super) const QUARANTINE: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";

/// Something that happens to the world.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Nothing,
    /// After this many writes one goes wrong.
    Fault(u8, Fault),
    /// The operator is not running for so many minutes.
    Down(u16),
    LoseStatus,
    Rotate,
    Every(u8),
    Overlap(u8),
    Rename(bool),
    Policies(bool),
    Tag(bool),
    Region(bool),
    Suspend(bool),
    DeleteSecret,
    EditSecret,
    DropFile,
    MakeImmutable,
    AddKey,
    RemoveForeignKeys,
    DeletePublishedKey,
    DeactivatePublishedKey,
    ReactivateKeys,
    DeleteUser,
    AttachPolicy,
    DropKeyTag,
    /// For half an hour AWS accepts no new key.
    AcceptNothing,
    /// Rotations begin at night only, or at any time.
    Windows(bool),
    /// Hours for which old keys in use are held; none for 0.
    Hold(u8),
    /// Somebody uses every key that works.
    UseKeys,
    /// AWS finds a key of the user in public.
    Quarantine,
    LiftQuarantine,
    /// AWS's clock is set back by so many minutes.
    ClockBack(u8),
}

impl Simulation {
    pub(super) fn spec(&mut self, change: impl FnOnce(&mut AwsDeployUserSpec)) {
        let before = self.cloud.resource.spec.clone();
        change(&mut self.cloud.resource.spec);
        if self.cloud.resource.spec != before {
            let generation = self.cloud.resource.metadata.generation.unwrap_or(0);
            self.cloud.resource.metadata.generation = Some(generation + 1);
        }
    }

    pub(super) fn rotation(&mut self, change: impl FnOnce(&mut RotationSpec)) {
        self.spec(|spec| change(&mut spec.access_key.get_or_insert_default().rotation));
    }

    fn secret(&mut self, change: impl FnOnce(&mut cloud::Held)) {
        let name = self.cloud.target().secret_name;
        if let Some(held) = self.cloud.secrets.get_mut(&name).filter(|held| !held.immutable) {
            held.version += 1_000_000;
            change(held);
        }
    }

    fn key(&mut self, id: Option<String>, change: impl FnOnce(&mut cloud::Life, Timestamp)) {
        let now = self.cloud.now;
        if let Some(life) = id.and_then(|id| self.cloud.keys.get_mut(&id)) {
            life.excused = true;
            change(life, now);
        }
    }

    #[allow(clippy::too_many_lines, reason = "one line or two per act")]
    pub(super) fn act(&mut self, act: &Act) {
        self.cloud.note(format!("--- {act:?}"));
        let now = self.cloud.now;
        match act {
            Act::Nothing => {}
            Act::Fault(after, fault) => self.cloud.fault = Some((*after, *fault)),
            Act::Down(minutes) => {
                self.operator.forget();
                self.cloud.now += mins((*minutes).into());
            }
            Act::LoseStatus => self.status = Status::default(),
            Act::Rotate => {
                let value = now.to_string();
                let annotations = self.cloud.resource.metadata.annotations.get_or_insert_default();
                annotations.insert(crate::api::well_known::ANNOTATION_ROTATE.to_owned(), value);
            }
            Act::Every(amount) => {
                self.rotation(|rotation| rotation.every = Some(format!("{}d", 2 + amount % 60)));
            }
            Act::Overlap(amount) => {
                self.rotation(|rotation| rotation.overlap = Some(format!("{}h", 1 + amount % 40).as_str().into()));
            }
            Act::Rename(back) => {
                self.spec(|spec| {
                    spec.access_key.get_or_insert_default().secret.name = (!back).then(|| "renamed".to_owned());
                });
                // Back to a Secret that is still there: with two slots, the key of the Secret in between has its
                // overlap from its own creation, not from this edit.
                if self.cloud.secrets.contains_key(&self.cloud.target().secret_name) {
                    self.cloud.keys.values_mut().for_each(|life| life.excused = true);
                }
            }
            Act::Policies(more) => {
                let managed = if *more { vec!["P".to_owned(), "Q".to_owned()] } else { vec!["P".to_owned()] };
                self.spec(|spec| spec.policies.managed = managed);
            }
            Act::Tag(present) => {
                let tags = present.then(|| ("team".to_owned(), "payments".to_owned())).into_iter().collect();
                self.spec(|spec| spec.tags = tags);
            }
            Act::Region(present) => self
                .spec(|spec| spec.access_key.get_or_insert_default().region = present.then(|| "eu-west-1".to_owned())),
            Act::Suspend(suspend) => self.spec(|spec| spec.suspend = *suspend),
            Act::DeleteSecret => _ = self.cloud.secrets.remove(&self.cloud.target().secret_name),
            Act::EditSecret => self.secret(|held| {
                held.content.data.insert("AWS_SECRET_ACCESS_KEY".into(), b"edited".to_vec());
            }),
            Act::DropFile => self.secret(|held| _ = held.content.data.remove("credentials")),
            Act::MakeImmutable => self.secret(|held| held.immutable = true),
            Act::AddKey => {
                // While an attempt has no answer yet, a key that a person makes in these very seconds cannot be
                // told from its orphan. That limit of the protocol has a test of its own in `tests/model`.
                let journal = self.cloud.secrets.get(&self.cloud.target().journal_name);
                let journal = journal.and_then(|held| Journal::decode(&held.content.data["journal"]).ok());
                let ambiguous = journal.is_some_and(|journal| {
                    matches!(journal.phase, AttemptPhase::Intent { .. }) && now < journal.started_at + mins(6)
                });
                if self.cloud.user.is_some() && self.cloud.living().count() < 2 && !ambiguous {
                    // Not in the very second in which the next attempt begins either.
                    self.cloud.add_key(false, "");
                    self.cloud.now += secs(2);
                }
            }
            Act::RemoveForeignKeys => {
                self.cloud.keys.values_mut().filter(|life| !life.ours).for_each(|life| {
                    life.deleted_at.get_or_insert(now);
                });
            }
            Act::DeletePublishedKey => {
                let id = self.published_key();
                self.key(id, |life, now| _ = life.deleted_at.get_or_insert(now));
            }
            Act::DeactivatePublishedKey => {
                let id = self.published_key();
                self.key(id, |life, _| life.active = false);
            }
            Act::ReactivateKeys => self.cloud.keys.values_mut().for_each(|life| {
                life.active = true;
                life.excused = true;
            }),
            Act::DeleteUser => {
                self.cloud.user = None;
                for life in self.cloud.keys.values_mut() {
                    life.excused = true;
                    life.deleted_at.get_or_insert(now);
                }
            }
            Act::AcceptNothing => {
                let before = std::mem::replace(&mut self.cloud.accepts_after, days(1));
                self.run(mins(30));
                self.cloud.accepts_after = before;
            }
            Act::AttachPolicy => {
                if let Some(user) = &mut self.cloud.user {
                    user.grants.attached.insert("arn:aws:iam::aws:policy/ByHand".to_owned());
                }
            }
            Act::DropKeyTag => {
                // Tag and Secret are the two proofs that a key is ours. Whoever takes both away at once has made it
                // foreign; so not while another key is about to take its place, and a resync comes first.
                let attempt = self.cloud.secrets.contains_key(&self.cloud.target().journal_name);
                let proof = self.cloud.published().filter(|(_, facts)| facts.intact).map(|(_, facts)| facts.key_id);
                if let (Some(id), Some(user), false) = (proof, &mut self.cloud.user, attempt) {
                    user.tags.remove(&key_tag(&id));
                    self.operator.forget();
                    self.pass();
                }
            }
            Act::Windows(night) => {
                let window = || RotationWindow {
                    schedule: format!("0 {} * * *", cloud::NIGHT.start),
                    duration: format!("{}h", cloud::NIGHT.end - cloud::NIGHT.start).as_str().into(),
                    time_zone: None,
                };
                let windows: Vec<_> = night.then(window).into_iter().collect();
                self.rotation(|rotation| rotation.windows = windows);
            }
            Act::Hold(amount) => {
                let hold = (amount % 8 > 0).then(|| format!("{}h", amount % 8).as_str().into());
                self.rotation(|rotation| rotation.hold_while_used = hold);
            }
            Act::UseKeys => self.cloud.keys.values_mut().filter(|life| life.active).for_each(|life| {
                life.used_at = life.deleted_at.is_none().then_some(now).or(life.used_at);
            }),
            Act::Quarantine => {
                if let Some(user) = &mut self.cloud.user {
                    user.grants.attached.insert(QUARANTINE.to_owned());
                    user.quarantined_at.get_or_insert(now);
                    // From now on other rules hold for them.
                    self.cloud.keys.values_mut().for_each(|life| life.excused = true);
                }
            }
            Act::LiftQuarantine => {
                if let Some(user) = &mut self.cloud.user {
                    user.grants.attached.remove(QUARANTINE);
                    user.quarantined_at = None;
                }
            }
            Act::ClockBack(minutes) => {
                self.cloud.set_back(mins((*minutes).into()));
                self.operator.set_back(mins((*minutes).into()));
                self.wake -= mins((*minutes).into());
            }
        }
    }
}

pub(super) fn acts() -> impl Strategy<Value = Act> {
    let fault =
        prop_oneof![Just(Fault::CrashBefore), Just(Fault::CrashAfter), Just(Fault::LostAnswer), Just(Fault::Refused)];
    prop_oneof![
        2 => Just(Act::Nothing),
        8 => (0_u8..12, fault).prop_map(|(after, fault)| Act::Fault(after, fault)),
        1 => (1_u16..3_000).prop_map(Act::Down),
        1 => Just(Act::LoseStatus),
        8 => Just(Act::Rotate),
        2 => any::<u8>().prop_map(Act::Every),
        2 => any::<u8>().prop_map(Act::Overlap),
        2 => any::<bool>().prop_map(Act::Rename),
        1 => any::<bool>().prop_map(Act::Policies),
        1 => any::<bool>().prop_map(Act::Tag),
        1 => any::<bool>().prop_map(Act::Region),
        2 => any::<bool>().prop_map(Act::Suspend),
        4 => Just(Act::DeleteSecret),
        2 => Just(Act::EditSecret),
        1 => Just(Act::DropFile),
        1 => Just(Act::MakeImmutable),
        2 => Just(Act::AddKey),
        2 => Just(Act::RemoveForeignKeys),
        2 => Just(Act::DeletePublishedKey),
        2 => Just(Act::DeactivatePublishedKey),
        1 => Just(Act::ReactivateKeys),
        1 => Just(Act::DeleteUser),
        1 => Just(Act::AttachPolicy),
        1 => Just(Act::DropKeyTag),
        1 => Just(Act::AcceptNothing),
        1 => any::<bool>().prop_map(Act::Windows),
        1 => any::<u8>().prop_map(Act::Hold),
        3 => Just(Act::UseKeys),
        1 => Just(Act::Quarantine),
        1 => Just(Act::LiftQuarantine),
        1 => (1_u8..30).prop_map(Act::ClockBack),
    ]
}
