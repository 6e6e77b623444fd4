//! IAM, Kubernetes and the controllers, as small as the protocol allows.

use std::hash::{Hash, Hasher};

/// How long ago something happened, in classes that the protocol distinguishes.
pub type Age = u8;

/// A moment ago.
pub const NOW: Age = 0;
/// Longer than the recovery delay, the lag of IAM's lists and the interval between two keys.
pub const RECOVERY: Age = 1;
/// Longer than the verification timeout and the deletion delay.
pub const LIMIT: Age = 2;
/// Longer than the overlap.
pub const OVERLAP: Age = 3;
/// Longer than the overlap with its extension for consumers of a handover, and than the rotation interval.
pub const HANDOVER: Age = 4;

/// A set of key ids.
pub type Ids = u16;

/// Exclusive.
pub const MAX_IDS: u8 = 16;

#[must_use]
pub fn only(id: u8) -> Ids {
    1 << id
}

#[must_use]
pub fn has(ids: Ids, id: u8) -> bool {
    ids & only(id) != 0
}

/// The ids of a set, ascending.
pub fn each(ids: Ids) -> impl Iterator<Item = u8> {
    (1..MAX_IDS).filter(move |id| has(ids, *id))
}

/// An access key, its tag, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Key {
    /// 0 is no key.
    pub id: u8,
    /// Whether IAM has it; otherwise only its tag is left.
    pub exists: bool,
    pub active: bool,
    /// When it was set Inactive; [`NOW`] while it is Active.
    pub deactivated: Age,
    /// The last attempt that had started when it was created: orders keys of the same age.
    pub since: u8,
    pub created: Age,
    /// When our ownership tag was written.
    pub tagged: Option<Age>,
    /// Not observable by a controller.
    pub truth: Truth,
}

/// Hashed as one word, because a check spends most of its time on hashing keys.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Truth { foreign, refused, was_published, late } = self.truth;
        let flags = [self.exists, self.active, foreign, refused, was_published, late];
        let flags = flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        let tagged = self.tagged.map_or(Age::MAX, |age| age);
        state.write_u64(u64::from_le_bytes([self.id, flags, self.deactivated, self.since, self.created, tagged, 0, 0]));
    }
}

/// Facts about a key that are recorded nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Truth {
    /// Created by a person.
    pub foreign: bool,
    /// AWS never accepts it.
    pub refused: bool,
    /// It was in the published Secret.
    pub was_published: bool,
    /// Created by a writer that had been paused for longer than the recovery delay: if it crashes before it deletes this key
    /// again, the key is left over and reported as foreign. A known limit.
    pub late: bool,
}

/// The keys of the user by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keys(pub [Key; 6]);

impl Hash for Keys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|key| key.hash(state));
        // Separates the keys from what is hashed next.
        state.write_u8(0);
    }
}

impl Keys {
    /// Keys that exist or whose tag does.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(|key| key.id != 0)
    }

    pub fn existing(&self) -> impl Iterator<Item = &Key> {
        self.iter().filter(|key| key.exists)
    }

    /// The entry of this id, possibly only a tag.
    #[must_use]
    pub fn entry(&self, id: u8) -> Option<&Key> {
        self.iter().find(|key| key.id == id)
    }

    /// The key with this id, if it exists.
    #[must_use]
    pub fn get(&self, id: u8) -> Option<&Key> {
        self.entry(id).filter(|key| key.exists)
    }

    /// Whether the key exists and is Active.
    #[must_use]
    pub fn works(&self, id: u8) -> bool {
        self.get(id).is_some_and(|key| key.active)
    }

    /// Changes the entry of a key, which may be new; an entry that is neither key nor tag is removed.
    ///
    /// # Panics
    /// If there are more keys and tags than the model can hold.
    pub fn change(&mut self, id: u8, change: impl FnOnce(&mut Key)) {
        let mut key = self.entry(id).copied().unwrap_or(Key { id, ..Key::default() });
        change(&mut key);
        if !key.exists {
            // Of a deleted key only the tag matters.
            key = Key { id, tagged: key.tagged, ..Key::default() };
        }
        if key.active {
            key.deactivated = NOW;
        }
        let keep = key.exists || key.tagged.is_some();
        let mut keys = [Key::default(); 6];
        let others = self.iter().filter(|other| other.id != id).copied();
        let mut count = 0;
        for other in others.chain(keep.then_some(key)) {
            keys[count] = other;
            count += 1;
        }
        keys[..count].sort_unstable_by_key(|key| key.id);
        self.0 = keys;
    }

    fn age(&mut self, least: Age) {
        self.age_keys(least);
        let tags = self.0.iter_mut().filter_map(|key| key.tagged.as_mut());
        tags.for_each(|age| *age = (*age).max(least));
    }

    fn age_keys(&mut self, least: Age) {
        for key in self.0.iter_mut().filter(|key| key.id != 0) {
            if key.exists {
                key.created = key.created.max(least);
                key.deactivated = if key.active { NOW } else { key.deactivated.max(least) };
            }
        }
    }
}

/// The published Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Secret {
    /// The id in it.
    pub key: u8,
    /// The key whose value is in it.
    pub value: u8,
    /// When that was published.
    pub age: Age,
    /// The rotate request that it honours.
    pub honours: u8,
    /// The attempt that it fences off.
    pub fence: u8,
}

/// The journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Journal {
    /// UID of the journal Secret.
    pub attempt: u8,
    /// The rotate request that the attempt honours.
    pub honours: u8,
    /// When the attempt began.
    pub age: Age,
    pub phase: AttemptPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttemptPhase {
    /// A key is about to be created.
    Intent {
        /// Keys that existed before.
        known: Ids,
    },
    /// The key is staged in the journal.
    Keyed {
        /// Its id; its value is with it.
        key: u8,
        /// Since when.
        age: Age,
    },
    Abandoned {
        /// Keys to delete.
        orphans: Ids,
    },
}

impl Journal {
    #[must_use]
    pub fn staged(&self) -> Option<u8> {
        if let AttemptPhase::Keyed { key, .. } = self.phase { Some(key) } else { None }
    }

    /// Whether no result of `CreateAccessKey` is recorded.
    #[must_use]
    pub fn is_intent(&self) -> bool {
        matches!(self.phase, AttemptPhase::Intent { .. })
    }

    fn age(&mut self, least: Age) {
        self.age = self.age.max(least);
        if let AttemptPhase::Keyed { age, .. } = &mut self.phase {
            *age = (*age).max(least);
        }
    }
}

/// What a reconcile has read. Each object comes with what a conditional write needs, whether it is unchanged since: this stands
/// for the resourceVersion without counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// When IAM was read in this reconcile; `None` if its state is cached.
    pub read: Option<Age>,
    pub keys: Keys,
    /// The Secret, and whether it is unchanged since.
    pub secret: Option<(Secret, bool)>,
    /// The journal, and whether it is unchanged since.
    pub journal: Option<(Journal, bool)>,
    /// Keys that this reconcile has deleted.
    pub deleted: Ids,
    /// Keys that this reconcile has tagged since it has read IAM.
    pub tagged: Ids,
    /// The most recently used key, if that was read.
    pub last_used: Option<u8>,
}

/// The position of a controller in its reconcile, between two calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum At {
    /// Between two reconciles.
    #[default]
    Idle,
    /// About to read IAM again, because the next effect needs live state.
    ReadIam,
    /// Has read the user with its tags, about to list its keys.
    ReadKeys,
    /// About to read the Secret.
    ReadSecret,
    /// About to read the journal.
    ReadJournal,
    /// Has observed all: executes the planned effect.
    Ready,
    /// The journal is written, `CreateAccessKey` comes next.
    Create {
        attempt: u8,
        /// The call was made before.
        again: bool,
    },
    /// AWS has refused to create a key; the journal of this attempt is closed next.
    CloseRefused(u8),
    /// Has created the key and writes it into the journal.
    Stage {
        attempt: u8,
        key: u8,
        /// An earlier write had no response: it may have had its effect.
        unsure: bool,
    },
    /// The journal refused the key; reads why.
    Refused {
        attempt: u8,
        key: u8,
        /// An earlier write had no response: it may have had its effect.
        unsure: bool,
    },
    /// The attempt is over and may have used the key: reads whether it is tagged.
    ReadTag(u8),
    /// The created key belongs to no attempt; it is deleted again.
    Undo(u8),
    /// The second write of the Secret. Only in a broken variant.
    SecondWrite(u8),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Controller {
    pub at: At,
    /// The rotate request in the resource when the reconcile started.
    pub request: u8,
    /// The confirmed key in it.
    pub confirmed: u8,
    pub view: View,
    /// IAM as of its last reconcile.
    pub cache: Option<Keys>,
    pub sts: StsAnswers,
}

/// What a controller knows of the answers of STS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StsAnswers {
    /// The key that it has accepted.
    pub accepted: u8,
    /// The key that it has refused a moment ago.
    pub refused: u8,
}

impl Controller {
    fn age(&mut self, least: Age) {
        // The answers are too old to decide on.
        self.view.last_used = None;
        self.sts.refused = 0;
        // Tags that were read in this reconcile keep the age they had then: which of them were old when the list was read
        // must not get lost, however slow the reconcile is.
        match &mut self.view.read {
            Some(read) => {
                *read = (*read).max(least);
                self.view.keys.age_keys(least);
            }
            None => self.view.keys.age(least),
        }
        self.cache.iter_mut().for_each(|keys| keys.age(least));
        if let Some((secret, _)) = &mut self.view.secret {
            secret.age = secret.age.max(least);
        }
        if let Some((journal, _)) = &mut self.view.journal {
            journal.age(least);
        }
    }
}

/// A violated invariant, detected in the step that violates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Violation {
    #[default]
    None,
    /// A controller has changed a foreign key.
    ForeignTouched,
    /// An attempt has called `CreateAccessKey` a second time.
    SecondCall,
    /// A key was deactivated while it was published, or before its overlap was over.
    EndedEarly,
    /// A key was deactivated before its consumer had confirmed the new one, and before its time was over.
    HandoverCut,
    /// A controller had nothing to do, although the next rotation was due or the time of the handover was over, and a superseded
    /// key was Active.
    HandoverExceeded,
}

/// How often an event may still happen.
pub type Times = u8;

/// Without limit. Not counted, so that it creates no states of its own.
pub const ANY: Times = Times::MAX;

/// How many events of each kind a run may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budget {
    /// Requested rotations.
    pub requests: Times,
    /// Times that time leaps.
    pub leaps: Times,
    /// Crashes, lost responses and lists that lag, together.
    pub faults: Times,
    /// Keys that AWS never accepts.
    pub refused: Times,
    /// Keys that a person creates.
    pub foreign: Times,
    /// Times that a person deletes the Secret.
    pub deletions: Times,
    /// Times that a consumer confirms a key.
    pub confirmations: Times,
}

pub fn spend(times: &mut Times) {
    if *times != ANY {
        *times -= 1;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub keys: Keys,
    pub secret: Option<Secret>,
    pub journal: Option<Journal>,
    /// Controllers that do not exist stay idle.
    pub controllers: [Controller; 2],
    /// The rotate request of the resource.
    pub request: u8,
    /// There is a consumer outside the cluster.
    pub has_consumer: bool,
    /// The key that the consumer has confirmed last, by the annotation of the resource.
    pub confirmed: u8,
    /// The consumer has confirmed the published key since its publication. Not observable by a controller.
    pub handed_over: bool,
    pub budget: Budget,
    pub violation: Violation,
}

impl State {
    /// Lets time pass.
    pub fn leap(&mut self, least: Age) {
        self.keys.age(least);
        self.secret.iter_mut().for_each(|secret| secret.age = secret.age.max(least));
        self.journal.iter_mut().for_each(|journal| journal.age(least));
        self.controllers.iter_mut().for_each(|controller| controller.age(least));
    }

    /// A write changes the Secret's resourceVersion: conditional writes of other controllers fail from now on.
    pub fn write_secret(&mut self, by: Option<usize>, secret: Option<Secret>) {
        let is_new = secret.map(|secret| secret.key) != self.secret.map(|secret| secret.key);
        self.handed_over &= !is_new;
        self.secret = secret;
        if let Some(secret) = secret {
            self.keys.change_if_exists(secret.key, |key| key.truth.was_published = true);
        }
        for (index, controller) in self.controllers.iter_mut().enumerate() {
            if Some(index) == by {
                controller.view.secret = secret.map(|secret| (secret, true));
            } else if let Some((_, current)) = &mut controller.view.secret {
                *current = false;
            }
        }
    }

    /// As [`Self::write_secret`] for the journal.
    pub fn write_journal(&mut self, by: usize, journal: Option<Journal>) {
        self.journal = journal;
        for (index, controller) in self.controllers.iter_mut().enumerate() {
            if index == by {
                controller.view.journal = journal.map(|journal| (journal, true));
            } else if let Some((_, current)) = &mut controller.view.journal {
                *current = false;
            }
        }
    }
}

impl Keys {
    /// Changes a key unless it is deleted.
    pub fn change_if_exists(&mut self, id: u8, change: impl FnOnce(&mut Key)) {
        if self.get(id).is_some() {
            self.change(id, change);
        }
    }
}
