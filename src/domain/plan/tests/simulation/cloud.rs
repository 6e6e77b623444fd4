//! IAM and Kubernetes in memory, as strict as the real ones where the protocol depends on it.

mod audit;
mod kubernetes;
mod policies;

use std::sync::LazyLock;

pub(super) use policies::{CloudPolicy, DOCUMENT};

use super::*;
use crate::{
    api::user::UserStatus,
    domain::{
        account,
        dates::floor,
        managed_policy::{self, PolicyRecords},
        owner::Ownership,
        secret::{self, KeyMaterial, SecretContent},
    },
};

/// Name of the IAM user.
pub(super) const USER: &str = "deploy_cycle";
/// A tag that some specs declare.
pub(super) const DECLARED_TAG: &str = "team";
/// A tag that a person adds.
pub(super) const FOREIGN_TAG: &str = "cost-center";
/// Name of the label, annotation and file that a person adds to the Secret.
pub(super) const FOREIGN_ENTRY: &str = "added-by-a-person";
/// UID of the resource.
pub(super) const OWNER: &str = "u1";

/// The hours in which scheduled rotations may begin, where that is declared. UTC.
pub(super) const NIGHT: std::ops::Range<i8> = 2..6;

/// How a write fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::domain::plan::tests) enum Fault {
    /// The operator dies before the call.
    CrashBefore,
    /// The operator dies after the call had its effect.
    CrashAfter,
    /// The call has its effect and the response is lost.
    LostResponse,
    /// The other side refuses for now; nothing happened.
    Refused,
}

/// Why a call did not succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum CallError {
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
pub(super) struct StoredSecret {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) owner: Option<String>,
    pub(super) content: SecretContent,
    pub(super) immutable: bool,
}

/// The history of an access key, for the auditor.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact that the invariants need")]
pub(super) struct KeyRecord {
    pub(super) user: String,
    pub(super) ours: bool,
    pub(super) active: bool,
    pub(super) created_at: Timestamp,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) used_at: Option<Timestamp>,
    /// When it appeared, in elapsed time rather than on a clock.
    appeared_at: Timestamp,
    secret: String,
    attempt: String,
    published: bool,
    superseded_at: Option<Timestamp>,
    /// A manual change affected it.
    pub(super) manual: bool,
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
    pub(super) keys: BTreeMap<String, KeyRecord>,
    /// Managed policies by ARN.
    pub(super) policies: BTreeMap<String, CloudPolicy>,
    /// Policies that were deleted last, and when.
    deleted_policies: BTreeMap<String, (Timestamp, CloudPolicy)>,
    pub(super) secrets: BTreeMap<String, StoredSecret>,
    pub(super) resource: AwsDeployUser,
    /// A copy of the Secret that a person keeps.
    pub(super) backup: Option<SecretContent>,
    /// How long IAM's lists of users, keys and policies are behind.
    pub(super) lag: SignedDuration,
    /// How long after its creation STS accepts a key.
    pub(super) accepts_after: SignedDuration,
    /// From the class.
    pub(super) on_quarantine: OnQuarantine,
    /// After this many writes, one fails.
    pub(super) fault: Option<(u8, Fault)>,
    pub(super) writes: usize,
    pub(super) creates: usize,
    pub(super) publications: usize,
    pub(super) log: Vec<String>,
    pub(super) violations: Vec<String>,
    serial: u64,
}

impl Cloud {
    pub(super) fn new(resource: AwsDeployUser) -> Self {
        Self {
            now: now(),
            user: None,
            keys: BTreeMap::new(),
            policies: BTreeMap::new(),
            deleted_policies: BTreeMap::new(),
            secrets: BTreeMap::new(),
            resource,
            backup: None,
            lag: SignedDuration::ZERO,
            accepts_after: SignedDuration::ZERO,
            on_quarantine: OnQuarantine::Alert,
            fault: None,
            writes: 0,
            creates: 0,
            publications: 0,
            log: Vec::new(),
            violations: Vec::new(),
            serial: 0,
        }
    }

    pub(super) fn note(&mut self, line: impl std::fmt::Display) {
        self.log.push(format!("{}  {line}", self.now));
    }

    pub(super) fn report_violation(&mut self, what: impl std::fmt::Display) {
        let line = format!("{}  VIOLATED {what}", self.now);
        self.log.push(line.clone());
        self.violations.push(line);
    }

    /// Sets the clock back. Elapsed time is not undone: listed keys stay listed, overlaps continue. The times that AWS has
    /// recorded, when keys were created and used, are those of the old clock.
    pub(super) fn set_back(&mut self, by: SignedDuration) {
        self.now -= by;
        self.user.iter_mut().for_each(|user| user.made_at -= by);
        self.policies.values_mut().for_each(|policy| policy.made_at -= by);
        self.deleted_policies.values_mut().for_each(|(at, _)| *at -= by);
        for record in self.keys.values_mut() {
            record.appeared_at -= by;
            record.deleted_at = record.deleted_at.map(|at| at - by);
            record.superseded_at = record.superseded_at.map(|at| at - by);
        }
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// One write, with the armed fault.
    fn write<T>(&mut self, commit: impl FnOnce(&mut Self) -> Result<T, CallError>) -> Result<T, CallError> {
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
        let had_document = self.has_document();
        let commit = |cloud: &mut Self| {
            let result = commit(cloud);
            cloud.audit_document(had_document);
            result
        };
        let Some(fault) = fault else { return commit(self) };
        self.fault = None;
        self.note(format!("fault: {fault:?}"));
        match fault {
            Fault::CrashBefore => Err(CallError::Crash),
            Fault::Refused => Err(CallError::Throttled),
            Fault::CrashAfter => commit(self).and(Err(CallError::Crash)),
            Fault::LostResponse => commit(self).and(Err(CallError::Lost)),
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
    pub(super) fn published(&self) -> Option<(&StoredSecret, PublishedFacts)> {
        let stored =
            self.secrets.get(&self.target().secret_name).filter(|stored| stored.owner.as_deref() == Some(OWNER))?;
        Some((stored, secret::read_facts(&stored.content, stored.immutable, None, sealer())))
    }

    pub(super) fn existing(&self) -> impl Iterator<Item = (&String, &KeyRecord)> {
        let user = self.user.as_ref().map(|user| user.id.clone());
        self.keys.iter().filter(move |(_, record)| record.deleted_at.is_none() && Some(&record.user) == user.as_ref())
    }

    pub(super) fn works(&self, id: &str) -> bool {
        self.existing().any(|(key, record)| key == id && record.active)
    }

    // --- IAM -----------------------------------------------------------------------------------

    pub(super) fn read_iam(&self) -> CurrentUser {
        let Some(user) = self.user.as_ref().filter(|user| self.now >= user.made_at + self.lag) else {
            return CurrentUser::Absent;
        };
        CurrentUser::Found(self.shown(user))
    }

    fn shown(&self, user: &CloudUser) -> IamUser {
        let shown = |record: &&KeyRecord| {
            let appeared = self.now >= record.appeared_at + self.lag;
            record.user == user.id && appeared && record.deleted_at.is_none_or(|at| self.now < at + self.lag)
        };
        let keys = self.keys.iter().filter(|(_, record)| shown(record));
        IamUser {
            name: USER.into(),
            arn: format!("arn:aws:iam::123456789012:user/awsdeploy/{USER}"),
            id: user.id.clone(),
            tags: user.tags.clone(),
            keys: keys
                .map(|(id, record)| AccessKey {
                    id: id.clone(),
                    active: record.active,
                    created_at: floor(record.created_at),
                })
                .collect(),
            grants: Some(user.grants.clone()),
            boundary: None,
            deletion_blockers: None,
            login_profile: None,
        }
    }

    pub(super) fn create_user(&mut self, tags: &BTreeMap<String, String>) -> Result<IamUser, CallError> {
        self.write(|cloud| {
            if account::recorded_user(&cloud.resource).is_none() {
                cloud.report_violation("S4: a user is created that the status does not record");
            }
            if cloud.user.is_some() {
                return Err(CallError::AlreadyExists);
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
            made.ok_or(CallError::NoSuchEntity)
        })
    }

    /// A write on the user. S4: never on one that is not ours.
    pub(super) fn change_user(&mut self, change: impl FnOnce(&mut CloudUser)) -> Result<(), CallError> {
        self.write(|cloud| {
            if cloud.user.is_some() && !cloud.is_our_user() {
                cloud.report_violation("S4: a user of another owner is written");
            }
            cloud.user.as_mut().map(change).ok_or(CallError::NoSuchEntity)
        })
    }

    pub(super) fn create_access_key(&mut self, attempt: &str) -> Result<(KeyMaterial, Timestamp), CallError> {
        self.write(|cloud| {
            if cloud.user.is_none() {
                return Err(CallError::NoSuchEntity);
            }
            if cloud.existing().count() >= 2 {
                return Err(CallError::Limit);
            }
            if cloud.keys.values().any(|record| record.attempt == attempt) {
                cloud.report_violation(format!("S6: attempt {attempt} makes a second key"));
            }
            if cloud.resource.spec.credentials_revoked() {
                cloud.report_violation("revoked: a key is created");
            }
            cloud.audit_window();
            cloud.creates += 1;
            let id = cloud.add_key(true, attempt);
            let record = &cloud.keys[&id];
            Ok((KeyMaterial { id: id.clone(), secret: record.secret.clone().into() }, floor(record.created_at)))
        })
    }

    pub(super) fn add_key(&mut self, ours: bool, attempt: &str) -> String {
        let serial = self.next();
        let id = if ours { format!("AKIA{serial:016}") } else { format!("FOREIGN{serial:016}") };
        let record = KeyRecord {
            user: self.user.as_ref().map(|user| user.id.clone()).unwrap_or_default(),
            ours,
            active: true,
            created_at: self.now,
            deleted_at: None,
            used_at: None,
            appeared_at: self.now,
            secret: format!("SECRET-{serial}"),
            attempt: attempt.to_owned(),
            published: false,
            superseded_at: None,
            manual: false,
        };
        self.keys.insert(id.clone(), record);
        id
    }

    pub(super) fn deactivate(&mut self, id: &str, why: RetireReason) -> Result<bool, CallError> {
        self.write(|cloud| {
            let there = cloud.existing().any(|(key, _)| key == id);
            if there {
                cloud.audit_end(id, why);
                cloud.keys.get_mut(id).unwrap().active = false;
            }
            Ok(there)
        })
    }

    pub(super) fn delete_key(&mut self, id: &str, why: RetireReason) -> Result<(), CallError> {
        self.write(|cloud| {
            if cloud.existing().any(|(key, _)| key == id) {
                cloud.audit_end(id, why);
                let now = cloud.now;
                cloud.keys.get_mut(id).unwrap().deleted_at = Some(now);
            }
            Ok(())
        })
    }

    pub(super) fn delete_user(&mut self) -> Result<(), CallError> {
        self.write(|cloud| {
            let Some(user) = &cloud.user else { return Ok(()) };
            if !cloud.is_our_user() {
                cloud.report_violation("S4: a user of another owner is deleted");
                return Err(CallError::DeleteConflict);
            }
            if cloud.existing().count() > 0 || user.grants != Grants::default() {
                return Err(CallError::DeleteConflict);
            }
            cloud.user = None;
            Ok(())
        })
    }

    pub(super) fn accepts(&self, key: &KeyMaterial) -> bool {
        use secrecy::ExposeSecret;
        self.works(&key.id)
            && self.keys[&key.id].secret == key.secret.expose_secret()
            && self.now >= self.keys[&key.id].appeared_at + self.accepts_after
    }
}

/// The MAC key of every operator.
pub(super) fn sealer() -> secret::Sealer<'static> {
    secret::Sealer { keys: &MAC_KEYS, uid: OWNER }
}

static MAC_KEYS: LazyLock<secret::MacKeys> = LazyLock::new(|| {
    secret::MacKeys::from_data(&BTreeMap::from([(secret::CURRENT.to_owned(), vec![1; secret::MAC_KEY_BYTES])])).unwrap()
});
