//! The world and the controllers, as small as the protocol allows.

use std::hash::{Hash, Hasher};

/// How long ago something happened, as far as the protocol can tell.
pub type Age = u8;

/// A moment ago.
pub const NOW: Age = 0;
/// Longer than the dwell of an intent, the lag of IAM's lists and the pause between two keys.
pub const DWELL: Age = 1;
/// Longer than the time limit of a verification and the dwell of an Inactive key.
pub const LIMIT: Age = 2;
/// Longer than the overlap.
pub const OVERLAP: Age = 3;

/// A set of key ids.
pub type Ids = u16;

/// Ids are smaller than this.
pub const MOST_IDS: u8 = 16;

/// The set of one id.
#[must_use]
pub fn only(id: u8) -> Ids {
    1 << id
}

/// Whether the id is in the set.
#[must_use]
pub fn has(ids: Ids, id: u8) -> bool {
    ids & only(id) != 0
}

/// The ids of a set, ascending.
pub fn each(ids: Ids) -> impl Iterator<Item = u8> {
    (1..MOST_IDS).filter(move |id| has(ids, *id))
}

/// An access key, its tag, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Key {
    /// Its id; 0 is no key.
    pub id: u8,
    /// It is in IAM. False: only its tag is left.
    pub there: bool,
    /// Active.
    pub active: bool,
    /// When it was set Inactive; nothing while it is Active.
    pub turned: Age,
    /// The last attempt that had begun when it was made: orders things of one age.
    pub since: u8,
    /// When it was made.
    pub made: Age,
    /// When our ownership tag was written, if there is one.
    pub tagged: Option<Age>,
    /// What no controller can see.
    pub truth: Truth,
}

/// In one piece: most of the time of a check is spent on hashing keys.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Truth { foreign, refused, handed_out, late } = self.truth;
        let flags = [self.there, self.active, foreign, refused, handed_out, late];
        let flags = flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        let tagged = self.tagged.map_or(Age::MAX, |age| age);
        state.write_u64(u64::from_le_bytes([self.id, flags, self.turned, self.since, self.made, tagged, 0, 0]));
    }
}

/// What is true of a key and written nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Truth {
    /// Made by a person.
    pub foreign: bool,
    /// AWS never accepts it.
    pub refused: bool,
    /// It was in the published Secret.
    pub handed_out: bool,
    /// Made by a writer that had been paused for longer than the protocol can follow: if it dies
    /// before it undoes this key, the key is left over and reported as foreign. A known limit.
    pub late: bool,
}

/// The keys of the user by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keys(pub [Key; 6]);

impl Hash for Keys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|key| key.hash(state));
        // Where the keys end.
        state.write_u8(0);
    }
}

impl Keys {
    /// Those that are there or whose tag is.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(|key| key.id != 0)
    }

    /// Those that are there.
    pub fn living(&self) -> impl Iterator<Item = &Key> {
        self.iter().filter(|key| key.there)
    }

    /// The entry of this id, be it a key or no more than a tag.
    #[must_use]
    pub fn entry(&self, id: u8) -> Option<&Key> {
        self.iter().find(|key| key.id == id)
    }

    /// The key with this id, if it is there.
    #[must_use]
    pub fn get(&self, id: u8) -> Option<&Key> {
        self.entry(id).filter(|key| key.there)
    }

    /// Whether the key is there and Active.
    #[must_use]
    pub fn works(&self, id: u8) -> bool {
        self.get(id).is_some_and(|key| key.active)
    }

    /// Changes the entry of a key, which may be new; one that is neither key nor tag vanishes.
    ///
    /// # Panics
    /// If there are more keys and tags than the model has room for.
    pub fn change(&mut self, id: u8, change: impl FnOnce(&mut Key)) {
        let mut key = self.entry(id).copied().unwrap_or(Key { id, ..Key::default() });
        change(&mut key);
        if !key.there {
            // Of a key that is gone nothing matters but its tag.
            key = Key { id, tagged: key.tagged, ..Key::default() };
        }
        if key.active {
            key.turned = NOW;
        }
        let keep = key.there || key.tagged.is_some();
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
            if key.there {
                key.made = key.made.max(least);
                key.turned = if key.active { NOW } else { key.turned.max(least) };
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
    /// The attempt whose late publication it has fenced off.
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
    /// How far it has come.
    pub phase: AttemptPhase,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttemptPhase {
    /// A key is about to be made.
    Intent {
        /// Keys that were there before.
        known: Ids,
    },
    /// The key is in the journal.
    Keyed {
        /// Its id; its value is with it.
        key: u8,
        /// Since when.
        age: Age,
    },
    /// Given up.
    Abandoned {
        /// Keys to delete.
        orphans: Ids,
    },
}

impl Journal {
    /// The staged key, if there is one.
    #[must_use]
    pub fn staged(&self) -> Option<u8> {
        if let AttemptPhase::Keyed { key, .. } = self.phase { Some(key) } else { None }
    }

    /// Whether no answer of `CreateAccessKey` has been written down.
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

/// What a pass has read. Objects come with the fact that a conditional write needs: whether they
/// are still as they were read. That stands for the resourceVersion, without counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// When IAM was read in this pass; none if it is remembered from an earlier one.
    pub read: Option<Age>,
    /// IAM.
    pub keys: Keys,
    /// The Secret, and whether it is still as it was read.
    pub secret: Option<(Secret, bool)>,
    /// The journal, and whether it is still as it was read.
    pub journal: Option<(Journal, bool)>,
    /// Keys that this pass has deleted.
    pub gone: Ids,
    /// Keys that this pass has tagged since it has read IAM.
    pub tagged: Ids,
    /// The key that was used most recently, if that was asked for.
    pub last_used: Option<u8>,
}

/// Where in its pass a controller is. Each place is between two calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum At {
    /// No pass is under way.
    #[default]
    Idle,
    /// About to read IAM in the middle of a pass, because something cannot be undone.
    ReadIam,
    /// Has read the user with its tags, about to list its keys.
    ReadKeys,
    /// About to read the Secret.
    ReadSecret,
    /// About to read the journal.
    ReadJournal,
    /// Has seen everything: does what the plan says.
    Ready,
    /// The journal is written, `CreateAccessKey` comes next.
    Create {
        /// The attempt.
        attempt: u8,
        /// The call was made before.
        again: bool,
    },
    /// AWS has refused to make a key; the journal of this attempt is closed next.
    CloseRefused(u8),
    /// Has the key in hand and writes it into the journal.
    Stage {
        /// The attempt.
        attempt: u8,
        /// The key.
        key: u8,
        /// An earlier write had no answer: it may have had its effect.
        unsure: bool,
    },
    /// The journal refused the key; reads why.
    Refused {
        /// The attempt.
        attempt: u8,
        /// The key.
        key: u8,
        /// An earlier write had no answer: it may have had its effect.
        unsure: bool,
    },
    /// The attempt is over and may have used the key: asks IAM whether it is tagged.
    AskTag(u8),
    /// The key in hand is nobody's; it is deleted again.
    Undo(u8),
    /// A Secret is written in two writes, and this is the second one. Only in a broken variant.
    SecondWrite(u8),
}

/// One controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Controller {
    /// Where it is.
    pub at: At,
    /// The rotate request in the resource when the pass began.
    pub asked: u8,
    /// What it has seen.
    pub view: View,
    /// IAM as it remembers it from its last pass.
    pub memory: Option<Keys>,
    /// The key that STS has accepted.
    pub verified: u8,
}

impl Controller {
    fn age(&mut self, least: Age) {
        // Too old an answer to decide on.
        self.view.last_used = None;
        // Tags that were read in this pass are as old as they were then: which of them were old when the
        // list was made must not get lost, however slow the pass is.
        match &mut self.view.read {
            Some(read) => {
                *read = (*read).max(least);
                self.view.keys.age_keys(least);
            }
            None => self.view.keys.age(least),
        }
        self.memory.iter_mut().for_each(|keys| keys.age(least));
        if let Some((secret, _)) = &mut self.view.secret {
            secret.age = secret.age.max(least);
        }
        if let Some((journal, _)) = &mut self.view.journal {
            journal.age(least);
        }
    }
}

/// Something that must never happen, noticed in the very step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// Nothing.
    #[default]
    Nothing,
    /// One of us has changed a key that is not ours.
    ForeignTouched,
    /// An attempt has called `CreateAccessKey` a second time.
    SecondCall,
    /// A key was taken out of use while it was published, or before its overlap was over.
    EndedEarly,
}

/// How often something may still happen.
pub type Times = u8;

/// As often as it likes. Not counted, so that it makes no states of its own.
pub const ANY: Times = Times::MAX;

/// How much of each kind of trouble a run may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budget {
    /// Rotations that are asked for.
    pub requests: Times,
    /// Times that time leaps.
    pub leaps: Times,
    /// Crashes, lost answers and lists that lag, together.
    pub faults: Times,
    /// Keys that AWS never accepts.
    pub refused: Times,
    /// Keys that a person makes.
    pub foreign: Times,
    /// Times that a person deletes the Secret.
    pub deletions: Times,
}

/// Takes one off.
pub fn spend(times: &mut Times) {
    if *times != ANY {
        *times -= 1;
    }
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// IAM.
    pub keys: Keys,
    /// The published Secret.
    pub secret: Option<Secret>,
    /// The journal.
    pub journal: Option<Journal>,
    /// The controllers; those that do not exist stay idle.
    pub controllers: [Controller; 2],
    /// The rotation that the resource asks for.
    pub request: u8,
    /// Trouble that may still come.
    pub budget: Budget,
    /// What has gone wrong.
    pub wrong: Wrong,
}

impl State {
    /// Lets time pass.
    pub fn leap(&mut self, least: Age) {
        self.keys.age(least);
        self.secret.iter_mut().for_each(|secret| secret.age = secret.age.max(least));
        self.journal.iter_mut().for_each(|journal| journal.age(least));
        self.controllers.iter_mut().for_each(|controller| controller.age(least));
    }

    /// A write moves the Secret's resourceVersion: whoever has read it before cannot write it any more.
    pub fn write_secret(&mut self, by: Option<usize>, secret: Option<Secret>) {
        self.secret = secret;
        if let Some(secret) = secret {
            self.keys.change_if_there(secret.key, |key| key.truth.handed_out = true);
        }
        for (index, controller) in self.controllers.iter_mut().enumerate() {
            if Some(index) == by {
                controller.view.secret = secret.map(|secret| (secret, true));
            } else if let Some((_, current)) = &mut controller.view.secret {
                *current = false;
            }
        }
    }

    /// The same for the journal.
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
    /// Changes a key unless it is gone.
    pub fn change_if_there(&mut self, id: u8, change: impl FnOnce(&mut Key)) {
        if self.get(id).is_some() {
            self.change(id, change);
        }
    }
}
