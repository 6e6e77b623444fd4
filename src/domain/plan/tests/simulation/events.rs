//! Edits, manual changes and faults.

use proptest::prelude::*;

use super::{
    cloud::{self, Fault},
    *,
};
use crate::api::user::{
    AwsDeployUserSpec, Credentials, DeclaredDocument, DocumentPlacement, HandoverConsumer, RotationSpec, RotationWindow,
};
use crate::api::well_known;
use crate::domain::handover;

/// What AWS attaches to the user of a key that it found in public.
pub(super) const QUARANTINE: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";

#[derive(Clone, Debug)]
pub(in crate::domain::plan::tests) enum Event {
    Nothing,
    /// After this many writes one fails.
    Fault(u8, Fault),
    /// The operator is not running for this many minutes.
    Down(u16),
    LoseStatus,
    /// The record of the user is lost too: the resource is restored without its status.
    LoseRecord,
    /// A person writes made-up times into the status.
    ForgeStatus,
    Rotate,
    Every(u8),
    Overlap(u8),
    Policies(bool),
    Tag(bool),
    Region(bool),
    SetCredentials(Credentials),
    DeleteSecret,
    EditSecret,
    DropFile,
    /// Labels of the Secret are declared.
    Labels(bool),
    /// A person changes a declared label.
    EditLabels,
    /// A person adds an entry of each kind to the Secret. It is kept.
    AddEntries,
    /// The Secret loses its owner reference, as by a restore or an edit.
    DisownSecret,
    /// A person keeps a copy of the Secret.
    BackUpSecret,
    /// The Secret gets the content of the copy.
    RestoreSecret,
    /// The MAC is removed or invalid, as after the loss of the MAC key.
    DropMac,
    /// The Secret names another key, and requests and dates are made up.
    ForgeAnnotations,
    MakeImmutable,
    AddKey,
    RemoveForeignKeys,
    DeletePublishedKey,
    DeactivatePublishedKey,
    ReactivateKeys,
    DeleteUser,
    AttachPolicy,
    DetachPolicy,
    /// A document is declared: its meaning, and what it is to be.
    Document(u8, DocumentPlacement),
    RemoveDocument,
    /// A person makes a version of the policy of the document the default.
    SwitchVersion,
    /// A person makes a new version of it.
    MakeVersion,
    /// A person attaches it to a role, or detaches it there.
    HoldPolicy(bool),
    DropKeyTag,
    /// A person adds a tag to the user. It is kept.
    AddTag,
    /// A person changes a declared tag.
    EditTag,
    /// For half an hour AWS accepts no new key.
    AcceptNothing,
    /// Rotations begin at night only, or at any time.
    Windows(bool),
    /// Hours for which used keys are held; none for 0.
    Hold(u8),
    /// Hours for which the previous key waits for a consumer; none for 0.
    Handover(u8),
    /// The consumer confirms the published key.
    Confirm,
    /// Every key that works is used.
    UseKeys,
    /// AWS finds a key of the user in public.
    Quarantine,
    LiftQuarantine,
    /// AWS's clock is set back by this many minutes.
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

    fn secret(&mut self, change: impl FnOnce(&mut cloud::StoredSecret)) {
        let name = self.cloud.target().secret_name;
        if let Some(stored) = self.cloud.secrets.get_mut(&name).filter(|stored| !stored.immutable) {
            stored.version += 1_000_000;
            change(stored);
        }
    }

    fn key(&mut self, id: Option<String>, change: impl FnOnce(&mut cloud::KeyRecord, Timestamp)) {
        let now = self.cloud.now;
        if let Some(record) = id.and_then(|id| self.cloud.keys.get_mut(&id)) {
            record.manual = true;
            change(record, now);
        }
    }

    #[allow(clippy::too_many_lines, reason = "one line or two per event")]
    pub(super) fn apply(&mut self, event: &Event) {
        self.cloud.note(format!("--- {event:?}"));
        let now = self.cloud.now;
        match event {
            Event::Nothing => {}
            Event::Fault(after, fault) => self.cloud.fault = Some((*after, *fault)),
            Event::Down(minutes) => {
                self.operator.restart();
                self.cloud.now += mins((*minutes).into());
            }
            Event::LoseStatus => self.status = Status::default(),
            Event::LoseRecord => {
                // A tag that was declared earlier and is not removed yet is that of another owner from now on.
                let tag_is_current = self.cloud.user.as_ref().is_none_or(|user| {
                    user.tags.contains_key(cloud::DECLARED_TAG)
                        == self.cloud.resource.spec.tags.contains_key(cloud::DECLARED_TAG)
                });
                if tag_is_current {
                    (self.status, self.cloud.resource.status) = (Status::default(), None);
                }
            }
            Event::ForgeStatus => {
                let ids: Vec<String> = self.cloud.existing().map(|(id, _)| id.clone()).collect();
                self.status.forge(&ids, now);
            }
            Event::Rotate => {
                let value = now.to_string();
                let annotations = self.cloud.resource.metadata.annotations.get_or_insert_default();
                annotations.insert(crate::api::well_known::ANNOTATION_ROTATE.to_owned(), value);
            }
            Event::Every(amount) => {
                self.rotation(|rotation| rotation.every = Some(format!("{}d", 2 + amount % 60)));
            }
            Event::Overlap(amount) => {
                self.rotation(|rotation| rotation.overlap = Some(format!("{}h", 1 + amount % 40).as_str().into()));
            }
            Event::Policies(more) => {
                let managed = if *more { vec!["P".to_owned(), "Q".to_owned()] } else { vec!["P".to_owned()] };
                self.spec(|spec| spec.policies.managed = managed);
            }
            Event::Tag(present) => {
                let tags =
                    present.then(|| (cloud::DECLARED_TAG.to_owned(), "payments".to_owned())).into_iter().collect();
                self.spec(|spec| spec.tags = tags);
            }
            Event::Region(present) => self
                .spec(|spec| spec.access_key.get_or_insert_default().region = present.then(|| "eu-west-1".to_owned())),
            Event::SetCredentials(credentials) => self.spec(|spec| spec.credentials = *credentials),
            Event::DeleteSecret => _ = self.cloud.secrets.remove(&self.cloud.target().secret_name),
            Event::EditSecret => self.secret(|stored| {
                for name in ["AWS_SECRET_ACCESS_KEY", "credentials"] {
                    stored.content.data.insert(name.into(), b"edited".to_vec());
                }
            }),
            Event::DropFile => self.secret(|stored| _ = stored.content.data.remove("credentials")),
            Event::Labels(present) => {
                let labels = present.then(|| ("team".to_owned(), "payments".to_owned())).into_iter().collect();
                self.spec(|spec| spec.access_key.get_or_insert_default().secret.labels = labels);
            }
            Event::EditLabels => self.secret(|stored| {
                stored.content.labels.values_mut().for_each(|value| "edited".clone_into(value));
            }),
            Event::AddEntries => self.secret(|stored| {
                let (name, content) = (cloud::FOREIGN_ENTRY.to_owned(), &mut stored.content);
                content.labels.insert(name.clone(), "x".to_owned());
                content.annotations.insert(name.clone(), "x".to_owned());
                content.data.insert(name, b"x".to_vec());
            }),
            Event::DisownSecret => self.secret(|stored| stored.owner = None),
            Event::BackUpSecret => self.cloud.backup = self.cloud.published().map(|(stored, _)| stored.content.clone()),
            Event::RestoreSecret => {
                if let Some(content) = self.cloud.backup.clone() {
                    self.secret(|stored| stored.content = content);
                    // A key that was replaced is published again.
                    self.cloud.keys.values_mut().for_each(|record| record.manual = true);
                }
            }
            Event::DropMac => self.secret(|stored| _ = stored.content.annotations.remove(well_known::ANNOTATION_MAC)),
            Event::ForgeAnnotations => {
                let other = self.cloud.existing().map(|(id, _)| id.clone()).last();
                self.secret(|stored| {
                    let annotations = &mut stored.content.annotations;
                    annotations.extend(other.map(|id| (well_known::ANNOTATION_KEY_ID.to_owned(), id)));
                    annotations.insert(well_known::ANNOTATION_PUBLISHED_AT.to_owned(), Timestamp::MIN.to_string());
                    annotations.insert(well_known::ANNOTATION_ROTATE_HONOURED.to_owned(), "forged".to_owned());
                });
            }
            Event::MakeImmutable => self.secret(|stored| stored.immutable = true),
            Event::AddKey => {
                // While an attempt has no response yet, a key that a person creates in these seconds cannot be
                // distinguished from its orphan. That limit of the protocol has a test of its own in `tests/model`.
                let journal = self.cloud.secrets.get(&self.cloud.target().journal_name);
                let journal = journal.and_then(|stored| Journal::decode(&stored.content.data["journal"]).ok());
                let ambiguous = journal.is_some_and(|journal| {
                    matches!(journal.phase, AttemptPhase::Intent { .. }) && now < journal.started_at + mins(6)
                });
                if self.cloud.user.is_some() && self.cloud.existing().count() < 2 && !ambiguous {
                    // Not in the very second in which the next attempt begins either.
                    self.cloud.add_key(false, "");
                    self.cloud.now += secs(2);
                }
            }
            Event::RemoveForeignKeys => {
                self.cloud.keys.values_mut().filter(|record| !record.ours).for_each(|record| {
                    record.deleted_at.get_or_insert(now);
                });
            }
            Event::DeletePublishedKey => {
                let id = self.published_key();
                self.key(id, |record, now| _ = record.deleted_at.get_or_insert(now));
            }
            Event::DeactivatePublishedKey => {
                let id = self.published_key();
                self.key(id, |record, _| record.active = false);
            }
            Event::ReactivateKeys => self.cloud.keys.values_mut().for_each(|record| {
                record.active = true;
                record.manual = true;
            }),
            Event::DeleteUser => {
                self.cloud.user = None;
                for record in self.cloud.keys.values_mut() {
                    record.manual = true;
                    record.deleted_at.get_or_insert(now);
                }
            }
            Event::AcceptNothing => {
                let before = std::mem::replace(&mut self.cloud.accepts_after, days(1));
                self.run(mins(30));
                self.cloud.accepts_after = before;
            }
            Event::AttachPolicy => {
                if let Some(user) = &mut self.cloud.user {
                    user.grants.attached.insert("arn:aws:iam::aws:policy/ByHand".to_owned());
                }
            }
            Event::DetachPolicy => {
                if let Some(user) = &mut self.cloud.user {
                    user.grants.attached.remove("P");
                }
            }
            Event::Document(meaning, placement) => {
                let statement = json!({"Effect": "Allow", "Action": format!("s3:{}", meaning % 4), "Resource": "*"});
                let document = DeclaredDocument {
                    name: cloud::DOCUMENT.to_owned(),
                    document: Some(json!({"Version": "2012-10-17", "Statement": [statement]})),
                    placement: *placement,
                    ..DeclaredDocument::default()
                };
                self.spec(|spec| spec.policies.documents = vec![document]);
            }
            Event::RemoveDocument => self.spec(|spec| spec.policies.documents.clear()),
            Event::SwitchVersion => {
                for policy in self.cloud.policies.values_mut() {
                    policy.default = policy.versions.keys().next().copied().unwrap_or(policy.default);
                }
            }
            Event::MakeVersion => {
                for policy in self.cloud.policies.values_mut().filter(|policy| policy.versions.len() < 5) {
                    policy.add(&json!({"by": "hand"}), false);
                }
            }
            Event::HoldPolicy(is_held) => {
                self.cloud.policies.values_mut().for_each(|policy| policy.is_held = *is_held);
            }
            Event::AddTag => {
                if let Some(user) = &mut self.cloud.user {
                    user.tags.insert(cloud::FOREIGN_TAG.to_owned(), "x".to_owned());
                }
            }
            Event::EditTag => {
                let tag = self.cloud.user.as_mut().and_then(|user| user.tags.get_mut(cloud::DECLARED_TAG));
                if let Some(value) = tag {
                    "edited".clone_into(value);
                }
            }
            Event::DropKeyTag => {
                // Tag and Secret are the two proofs that a key is ours. Without both it is
                // foreign; so not while another key is about to take its place, and a resync comes first.
                let attempt = self.cloud.secrets.contains_key(&self.cloud.target().journal_name);
                let proof = self
                    .cloud
                    .published()
                    .filter(|(_, facts)| facts.integrity == Integrity::Verified)
                    .map(|(_, facts)| facts.key_id);
                if let (Some(id), Some(user), false) = (proof, &mut self.cloud.user, attempt) {
                    user.tags.remove(&key_tag(&id));
                    self.operator.restart();
                    self.reconcile();
                }
            }
            Event::Windows(night) => {
                let window = || RotationWindow {
                    schedule: format!("0 {} * * *", cloud::NIGHT.start),
                    duration: format!("{}h", cloud::NIGHT.end - cloud::NIGHT.start).as_str().into(),
                    time_zone: None,
                };
                let windows: Vec<_> = night.then(window).into_iter().collect();
                self.rotation(|rotation| rotation.windows = windows);
            }
            Event::Hold(amount) => {
                let hold = (amount % 8 > 0).then(|| format!("{}h", amount % 8).as_str().into());
                self.rotation(|rotation| rotation.hold_while_used = hold);
            }
            Event::Handover(amount) => {
                let consumer =
                    || HandoverConsumer { name: "hub".to_owned(), within: format!("{}h", amount % 8).as_str().into() };
                let handover = (amount % 8 > 0).then(consumer).into_iter().collect();
                self.spec(|spec| spec.access_key.get_or_insert_default().handover = handover);
            }
            Event::Confirm => {
                let annotations = self.published_key().map(|id| (handover::annotation("hub"), id));
                self.cloud.resource.metadata.annotations.get_or_insert_default().extend(annotations);
            }
            Event::UseKeys => self.cloud.keys.values_mut().filter(|record| record.active).for_each(|record| {
                record.used_at = record.deleted_at.is_none().then_some(now).or(record.used_at);
            }),
            Event::Quarantine => {
                if let Some(user) = &mut self.cloud.user {
                    user.grants.attached.insert(QUARANTINE.to_owned());
                    user.quarantined_at.get_or_insert(now);
                    // From now on other rules hold for them.
                    self.cloud.keys.values_mut().for_each(|record| record.manual = true);
                }
            }
            Event::LiftQuarantine => {
                if let Some(user) = &mut self.cloud.user {
                    user.grants.attached.remove(QUARANTINE);
                    user.quarantined_at = None;
                }
            }
            Event::ClockBack(minutes) => {
                self.cloud.set_back(mins((*minutes).into()));
                self.operator.set_back(mins((*minutes).into()));
                self.requeue_at -= mins((*minutes).into());
            }
        }
    }
}

pub(super) fn events() -> impl Strategy<Value = Event> {
    let fault =
        prop_oneof![Just(Fault::CrashBefore), Just(Fault::CrashAfter), Just(Fault::LostResponse), Just(Fault::Refused)];
    let placement = prop_oneof![1 => Just(DocumentPlacement::Inline), 2 => Just(DocumentPlacement::Managed)];
    prop_oneof![
        2 => Just(Event::Nothing),
        8 => (0_u8..12, fault).prop_map(|(after, fault)| Event::Fault(after, fault)),
        1 => (1_u16..3_000).prop_map(Event::Down),
        1 => Just(Event::LoseStatus),
        1 => Just(Event::LoseRecord),
        1 => Just(Event::ForgeStatus),
        8 => Just(Event::Rotate),
        2 => any::<u8>().prop_map(Event::Every),
        2 => any::<u8>().prop_map(Event::Overlap),
        1 => any::<bool>().prop_map(Event::Policies),
        1 => any::<bool>().prop_map(Event::Tag),
        1 => any::<bool>().prop_map(Event::Region),
        2 => any::<bool>().prop_map(|revoked| {
            Event::SetCredentials(if revoked { Credentials::Revoked } else { Credentials::Active })
        }),
        4 => Just(Event::DeleteSecret),
        2 => Just(Event::EditSecret),
        1 => Just(Event::DropFile),
        1 => any::<bool>().prop_map(Event::Labels),
        1 => Just(Event::EditLabels),
        1 => Just(Event::AddEntries),
        1 => Just(Event::DisownSecret),
        2 => Just(Event::BackUpSecret),
        2 => Just(Event::RestoreSecret),
        2 => Just(Event::DropMac),
        2 => Just(Event::ForgeAnnotations),
        1 => Just(Event::MakeImmutable),
        2 => Just(Event::AddKey),
        2 => Just(Event::RemoveForeignKeys),
        2 => Just(Event::DeletePublishedKey),
        2 => Just(Event::DeactivatePublishedKey),
        1 => Just(Event::ReactivateKeys),
        1 => Just(Event::DeleteUser),
        1 => Just(Event::AttachPolicy),
        1 => Just(Event::DetachPolicy),
        3 => (any::<u8>(), placement).prop_map(|(meaning, placement)| Event::Document(meaning, placement)),
        1 => Just(Event::RemoveDocument),
        1 => Just(Event::SwitchVersion),
        1 => Just(Event::MakeVersion),
        1 => any::<bool>().prop_map(Event::HoldPolicy),
        1 => Just(Event::AddTag),
        1 => Just(Event::EditTag),
        1 => Just(Event::DropKeyTag),
        1 => Just(Event::AcceptNothing),
        1 => any::<bool>().prop_map(Event::Windows),
        1 => any::<u8>().prop_map(Event::Hold),
        2 => any::<u8>().prop_map(Event::Handover),
        2 => Just(Event::Confirm),
        3 => Just(Event::UseKeys),
        1 => Just(Event::Quarantine),
        1 => Just(Event::LiftQuarantine),
        1 => (1_u8..30).prop_map(Event::ClockBack),
    ]
}
