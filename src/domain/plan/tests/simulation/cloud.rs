//! IAM and Kubernetes in memory, as strict as the real ones where the protocol leans on it, and
//! an auditor who looks at every write.

use super::*;
use crate::domain::{
    owner::Ownership,
    secret::{self, KeyMaterial, SecretContent},
};

/// Name of the IAM user.
pub(super) const USER: &str = "deploy-cycle";
/// UID of the resource.
pub(super) const OWNER: &str = "u1";

/// The hours in which scheduled rotations may begin, where that is declared. UTC.
pub(super) const NIGHT: std::ops::Range<i8> = 2..6;

/// What goes wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// The operator dies before the call.
    CrashBefore,
    /// The operator dies after the call had its effect.
    CrashAfter,
    /// The call has its effect and the answer is lost.
    LostAnswer,
    /// The other side refuses for now; nothing happened.
    Refused,
}

/// Why a call did not succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fail {
    Crash,
    /// It may have had its effect.
    Lost,
    AlreadyExists,
    Conflict,
    NotFound,
    Invalid,
    NoSuchEntity,
    Limit,
    Throttled,
    DeleteConflict,
    NotAccepted,
    Undone,
}

/// A Secret with what makes writes conditional.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) owner: Option<String>,
    pub(super) content: SecretContent,
    pub(super) immutable: bool,
}

/// The life of an access key, as the auditor knows it.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact that the invariants ask for")]
pub(super) struct Life {
    pub(super) user: String,
    pub(super) ours: bool,
    pub(super) active: bool,
    pub(super) created_at: Timestamp,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) used_at: Option<Timestamp>,
    /// When it came, in the time that passes rather than on a clock.
    begun: Timestamp,
    secret: String,
    attempt: String,
    published: bool,
    superseded_at: Option<Timestamp>,
    /// A person took part in what became of it.
    pub(super) excused: bool,
}

#[derive(Clone)]
pub(super) struct CloudUser {
    pub(super) id: String,
    made_at: Timestamp,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) grants: Grants,
    pub(super) quarantined_at: Option<Timestamp>,
}

#[derive(Clone)]
pub(super) struct Cloud {
    pub(super) now: Timestamp,
    pub(super) user: Option<CloudUser>,
    pub(super) keys: BTreeMap<String, Life>,
    pub(super) secrets: BTreeMap<String, Held>,
    pub(super) resource: AwsDeployUser,
    /// How long IAM's list of keys is behind.
    pub(super) lag: SignedDuration,
    /// How long after its creation STS accepts a key.
    pub(super) accepts_after: SignedDuration,
    /// What the class wants when AWS quarantines the user.
    pub(super) on_quarantine: OnQuarantine,
    /// The next writes but this many succeed, then one does not.
    pub(super) fault: Option<(u8, Fault)>,
    pub(super) writes: usize,
    pub(super) creates: usize,
    pub(super) publications: usize,
    pub(super) log: Vec<String>,
    pub(super) wrong: Vec<String>,
    serial: u64,
}

impl Cloud {
    pub(super) fn new(resource: AwsDeployUser) -> Self {
        Self {
            now: now(),
            user: None,
            keys: BTreeMap::new(),
            secrets: BTreeMap::new(),
            resource,
            lag: SignedDuration::ZERO,
            accepts_after: SignedDuration::ZERO,
            on_quarantine: OnQuarantine::Alert,
            fault: None,
            writes: 0,
            creates: 0,
            publications: 0,
            log: Vec::new(),
            wrong: Vec::new(),
            serial: 0,
        }
    }

    pub(super) fn note(&mut self, line: impl std::fmt::Display) {
        self.log.push(format!("{}  {line}", self.now));
    }

    pub(super) fn violated(&mut self, what: impl std::fmt::Display) {
        let line = format!("{}  VIOLATED {what}", self.now);
        self.log.push(line.clone());
        self.wrong.push(line);
    }

    /// The clock is set back. Nothing that has happened is undone: keys that were shown are shown, overlaps go on. What
    /// AWS has noted, when keys were made and used, stays noted in the old time.
    pub(super) fn set_back(&mut self, by: SignedDuration) {
        self.now -= by;
        self.user.iter_mut().for_each(|user| user.made_at -= by);
        for life in self.keys.values_mut() {
            life.begun -= by;
            life.deleted_at = life.deleted_at.map(|at| at - by);
            life.superseded_at = life.superseded_at.map(|at| at - by);
        }
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// One write, with the fault that is armed.
    fn write<T>(&mut self, commit: impl FnOnce(&mut Self) -> Result<T, Fail>) -> Result<T, Fail> {
        self.writes += 1;
        self.now += SignedDuration::from_millis(150);
        let fault = match &mut self.fault {
            Some((0, fault)) => Some(*fault),
            Some((countdown, _)) => {
                *countdown -= 1;
                None
            }
            None => None,
        };
        let Some(fault) = fault else { return commit(self) };
        self.fault = None;
        self.note(format!("fault: {fault:?}"));
        match fault {
            Fault::CrashBefore => Err(Fail::Crash),
            Fault::Refused => Err(Fail::Throttled),
            Fault::CrashAfter => commit(self).and(Err(Fail::Crash)),
            Fault::LostAnswer => commit(self).and(Err(Fail::Lost)),
        }
    }

    // --- names ---------------------------------------------------------------------------------

    pub(super) fn target(&self) -> Target {
        Target::from_resource(&self.resource, "cluster").unwrap()
    }

    pub(super) fn desired(&self) -> Desired {
        let grant = Grant { on_quarantine: self.on_quarantine, ..Grant::minimal() };
        let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: true };
        validate(&self.resource, &self.target(), &grant, &account, &Settings::default()).unwrap()
    }

    pub(super) fn is_our_user(&self) -> bool {
        self.user.as_ref().is_some_and(|user| self.target().owner.classify(&user.tags) == Ownership::Ours)
    }

    /// Our target Secret and the id of the key in it.
    pub(super) fn published(&self) -> Option<(&Held, PublishedFacts)> {
        let held = self.secrets.get(&self.target().secret_name).filter(|held| held.owner.as_deref() == Some(OWNER))?;
        Some((held, secret::read_facts(&held.content, held.immutable, None)))
    }

    pub(super) fn living(&self) -> impl Iterator<Item = (&String, &Life)> {
        let user = self.user.as_ref().map(|user| user.id.clone());
        self.keys.iter().filter(move |(_, life)| life.deleted_at.is_none() && Some(&life.user) == user.as_ref())
    }

    pub(super) fn works(&self, id: &str) -> bool {
        self.living().any(|(key, life)| key == id && life.active)
    }

    // --- IAM -----------------------------------------------------------------------------------

    pub(super) fn read_iam(&self) -> CurrentUser {
        let Some(user) = self.user.as_ref().filter(|user| self.now >= user.made_at + self.lag) else {
            return CurrentUser::Absent;
        };
        CurrentUser::Found(self.shown(user))
    }

    fn shown(&self, user: &CloudUser) -> IamUser {
        let shown = |life: &&Life| {
            let appeared = self.now >= life.begun + self.lag;
            life.user == user.id && appeared && life.deleted_at.is_none_or(|at| self.now < at + self.lag)
        };
        let keys = self.keys.iter().filter(|(_, life)| shown(life));
        IamUser {
            name: USER.into(),
            arn: format!("arn:aws:iam::123456789012:user/awsdeploy/{USER}"),
            id: user.id.clone(),
            tags: user.tags.clone(),
            keys: keys
                .map(|(id, life)| AccessKey { id: id.clone(), active: life.active, created_at: floor(life.created_at) })
                .collect(),
            grants: Some(user.grants.clone()),
            boundary: None,
            deletion_blockers: None,
            login_profile: None,
        }
    }

    pub(super) fn create_user(&mut self, tags: &BTreeMap<String, String>) -> Result<IamUser, Fail> {
        self.write(|cloud| {
            if cloud.user.is_some() {
                return Err(Fail::AlreadyExists);
            }
            let id = format!("AIDA{}", cloud.next());
            cloud.user = Some(CloudUser {
                id,
                made_at: cloud.now,
                tags: tags.clone(),
                grants: Grants::default(),
                quarantined_at: None,
            });
            let made = cloud.user.as_ref().map(|user| cloud.shown(user));
            made.ok_or(Fail::NoSuchEntity)
        })
    }

    /// A write on the user. S4: never on one that is not ours.
    pub(super) fn change_user(&mut self, change: impl FnOnce(&mut CloudUser)) -> Result<(), Fail> {
        self.write(|cloud| {
            if cloud.user.is_some() && !cloud.is_our_user() {
                cloud.violated("S4: a user of somebody else is written");
            }
            cloud.user.as_mut().map(change).ok_or(Fail::NoSuchEntity)
        })
    }

    pub(super) fn create_access_key(&mut self, attempt: &str) -> Result<(KeyMaterial, Timestamp), Fail> {
        self.write(|cloud| {
            if cloud.user.is_none() {
                return Err(Fail::NoSuchEntity);
            }
            if cloud.living().count() >= 2 {
                return Err(Fail::Limit);
            }
            if cloud.keys.values().any(|life| life.attempt == attempt) {
                cloud.violated(format!("S6: attempt {attempt} makes a second key"));
            }
            cloud.audit_window();
            cloud.creates += 1;
            let id = cloud.add_key(true, attempt);
            let life = &cloud.keys[&id];
            Ok((KeyMaterial { id: id.clone(), secret: life.secret.clone().into() }, floor(life.created_at)))
        })
    }

    pub(super) fn add_key(&mut self, ours: bool, attempt: &str) -> String {
        let serial = self.next();
        let id = if ours { format!("AKIA{serial}") } else { format!("FOREIGN{serial}") };
        let life = Life {
            user: self.user.as_ref().map(|user| user.id.clone()).unwrap_or_default(),
            ours,
            active: true,
            created_at: self.now,
            deleted_at: None,
            used_at: None,
            begun: self.now,
            secret: format!("SECRET-{serial}"),
            attempt: attempt.to_owned(),
            published: false,
            superseded_at: None,
            excused: false,
        };
        self.keys.insert(id.clone(), life);
        id
    }

    pub(super) fn deactivate(&mut self, id: &str, why: RetireReason) -> Result<bool, Fail> {
        self.write(|cloud| {
            let there = cloud.living().any(|(key, _)| key == id);
            if there {
                cloud.audit_end(id, why);
                cloud.keys.get_mut(id).unwrap().active = false;
            }
            Ok(there)
        })
    }

    pub(super) fn delete_key(&mut self, id: &str, why: RetireReason) -> Result<(), Fail> {
        self.write(|cloud| {
            if cloud.living().any(|(key, _)| key == id) {
                cloud.audit_end(id, why);
                let now = cloud.now;
                cloud.keys.get_mut(id).unwrap().deleted_at = Some(now);
            }
            Ok(())
        })
    }

    pub(super) fn delete_user(&mut self) -> Result<(), Fail> {
        self.write(|cloud| {
            let Some(user) = &cloud.user else { return Ok(()) };
            if !cloud.is_our_user() {
                cloud.violated("S4: a user of somebody else is deleted");
                return Err(Fail::DeleteConflict);
            }
            if cloud.living().count() > 0 || user.grants != Grants::default() {
                return Err(Fail::DeleteConflict);
            }
            cloud.user = None;
            Ok(())
        })
    }

    pub(super) fn accepts(&self, key: &KeyMaterial) -> bool {
        use secrecy::ExposeSecret;
        self.works(&key.id)
            && self.keys[&key.id].secret == key.secret.expose_secret()
            && self.now >= self.keys[&key.id].begun + self.accepts_after
    }

    // --- Kubernetes ----------------------------------------------------------------------------

    pub(super) fn create_secret(&mut self, name: &str, content: &SecretContent) -> Result<Held, Fail> {
        self.write(|cloud| {
            if cloud.secrets.contains_key(name) {
                return Err(Fail::AlreadyExists);
            }
            let version = cloud.next();
            let held = Held {
                name: name.into(),
                uid: format!("uid{version}"),
                version,
                owner: Some(OWNER.into()),
                content: content.clone(),
                immutable: false,
            };
            cloud.put(held.clone());
            Ok(held)
        })
    }

    pub(super) fn replace_secret(
        &mut self,
        held: &Held,
        owner: Option<&str>,
        content: &SecretContent,
    ) -> Result<Held, Fail> {
        self.write(|cloud| {
            let found = cloud.secrets.get(&held.name).ok_or(Fail::NotFound)?.clone();
            if (&found.uid, found.version) != (&held.uid, held.version) {
                return Err(Fail::Conflict);
            }
            if found.owner.as_deref() != Some(OWNER) {
                cloud.violated(format!("S4: Secret {} of somebody else is written", held.name));
            }
            if found.immutable && found.content.data != content.data {
                return Err(Fail::Invalid);
            }
            let version = cloud.next();
            let owner = owner.map(str::to_owned);
            let written = Held { version, owner, content: content.clone(), ..found };
            cloud.put(written.clone());
            Ok(written)
        })
    }

    pub(super) fn delete_secret(&mut self, held: &Held) -> Result<(), Fail> {
        self.write(|cloud| {
            let Some(found) = cloud.secrets.get(&held.name) else { return Ok(()) };
            if (&found.uid, found.version) != (&held.uid, held.version) {
                return Err(Fail::Conflict);
            }
            if found.owner.as_deref() != Some(OWNER) {
                cloud.violated(format!("S4: Secret {} of somebody else is deleted", held.name));
            }
            cloud.secrets.remove(&held.name);
            Ok(())
        })
    }

    pub(super) fn set_finalizer(&mut self, present: bool) -> Result<(), Fail> {
        self.write(|cloud| {
            if !present && cloud.is_our_user() {
                cloud.violated("S8: the finalizer goes while the user is there and ours");
            }
            let finalizers = present.then(|| vec![crate::api::well_known::FINALIZER.to_owned()]);
            cloud.resource.metadata.finalizers = finalizers;
            Ok(())
        })
    }

    fn put(&mut self, held: Held) {
        self.audit_secret(&held);
        self.secrets.insert(held.name.clone(), held);
    }

    // --- the auditor ---------------------------------------------------------------------------

    /// S1, S3 and S5, when we are about to set a key Inactive or to delete it.
    fn audit_end(&mut self, id: &str, why: RetireReason) {
        let life = self.keys[id].clone();
        let forced = why == RetireReason::Cleanup && self.resource.spec.deletion_policy == DeletionPolicy::Force;
        if !life.ours && !forced {
            self.violated(format!("S5: foreign key {id} is touched ({why:?})"));
        }
        if !life.active || matches!(why, RetireReason::Suspended | RetireReason::Cleanup) {
            return;
        }
        let suspends = why == RetireReason::Quarantined && self.on_quarantine == OnQuarantine::Suspend;
        if !suspends && self.published().is_some_and(|(_, facts)| facts.key_id == id && facts.intact) {
            self.violated(format!("S1: {id} is ended ({why:?}) while it is published"));
        }
        let overlap = self.desired().key.map_or(SignedDuration::ZERO, |key| key.overlap);
        let over = life.superseded_at.is_some_and(|since| self.now >= since + overlap);
        if matches!(why, RetireReason::OverlapEnded | RetireReason::HoldExpired) && !over && !life.excused {
            self.violated(format!("S3: {id} is retired before its overlap is over"));
        }
        let held = self.desired().key.and_then(|key| key.hold_while_used);
        let held = held.is_some_and(|hold| life.superseded_at.is_none_or(|since| self.now < since + overlap + hold));
        let used = life.used_at.is_some_and(|at| self.now < at + super::operator::settings().last_used_window);
        if (why == RetireReason::OverlapEnded && held && used || why == RetireReason::HoldExpired && held)
            && !life.excused
        {
            self.violated(format!("hold: {id} is retired ({why:?}) while it is used"));
        }
        if why == RetireReason::Quarantined && self.user.as_ref().is_none_or(|user| user.quarantined_at.is_none()) {
            self.violated(format!("{id} is ended for a quarantine that is over"));
        }
    }

    /// A key that nothing but the schedule asks for is begun at night, where that is declared.
    fn audit_window(&mut self) {
        let Some(key) = self.desired().key.filter(|key| !key.windows.0.is_empty()) else { return };
        let Some((_, facts)) = self.published() else { return };
        let asked = key.rotate_request.is_some() && key.rotate_request != facts.rotate_honoured;
        let quarantined = self.user.as_ref().is_some_and(|user| user.quarantined_at.is_some());
        let begun = (self.now - secs(2)).to_zoned(jiff::tz::TimeZone::UTC);
        let scheduled = facts.intact && self.works(&facts.key_id) && !asked && !quarantined;
        if scheduled && !NIGHT.contains(&begun.hour()) {
            self.violated(format!("windows: a scheduled rotation begins at {begun}"));
        }
    }

    /// S1, S2 and S7, when a Secret of ours is written.
    fn audit_secret(&mut self, held: &Held) {
        use secrecy::ExposeSecret;
        if held.name == self.target().journal_name || held.owner.is_none() {
            return;
        }
        let facts = secret::read_facts(&held.content, held.immutable, None);
        let before =
            self.secrets.get(&held.name).map(|before| secret::read_facts(&before.content, before.immutable, None));
        if before.is_some_and(|before| before.key_id == facts.key_id && before.intact == facts.intact) {
            return;
        }
        let id = facts.key_id.clone();
        let Some(key) = secret::read_key(&held.content) else {
            return self
                .violated(format!("S2: Secret {} is written with parts that do not belong together", held.name));
        };
        if self.keys.get(&id).is_none_or(|life| life.secret != key.secret.expose_secret()) {
            self.violated(format!("S2: Secret {} holds another secret than {id} has", held.name));
        }
        if !self.works(&id) && !self.keys[&id].excused {
            self.violated(format!("S1: {id} is published and does not work"));
        }
        self.publications += 1;
        let now = self.now;
        for (other, life) in &mut self.keys {
            if *other == id {
                life.published = true;
            } else if life.published {
                life.superseded_at.get_or_insert(now);
            }
        }
    }

    /// S5 and S6: what must hold at every moment.
    pub(super) fn audit_moment(&mut self) {
        let ours = self.living().filter(|(_, life)| life.ours).count();
        if ours > 2 {
            self.violated(format!("S6: {ours} keys by our doing"));
        }
    }
}

pub(super) fn floor(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap()
}
