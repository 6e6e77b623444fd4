//! The auditor: checks every write against the invariants.

use super::{super::operator, *};

impl Cloud {
    /// S1, S3 and S5, when we are about to set a key Inactive or to delete it.
    pub(super) fn audit_end(&mut self, id: &str, why: RetireReason) {
        let record = self.keys[id].clone();
        let forced = why == RetireReason::Cleanup && self.resource.spec.deletion_policy == DeletionPolicy::Force;
        if !record.ours && !forced {
            self.report_violation(format!("S5: foreign key {id} is touched ({why:?})"));
        }
        if !record.active || matches!(why, RetireReason::CredentialsRevoked | RetireReason::Cleanup) {
            return;
        }
        let revokes = why == RetireReason::Quarantined && self.on_quarantine == OnQuarantine::Revoke;
        if !revokes
            && self.published().is_some_and(|(_, facts)| facts.key_id == id && facts.integrity == Integrity::Verified)
        {
            self.report_violation(format!("S1: {id} is deactivated ({why:?}) while it is published"));
        }
        let overlap = self.desired().key.map_or(SignedDuration::ZERO, |key| key.overlap);
        let over = record.superseded_at.is_some_and(|since| self.now >= since + overlap);
        let retires =
            matches!(why, RetireReason::OverlapEnded | RetireReason::HoldExpired | RetireReason::HandoverExpired);
        if retires && !over && !record.manual {
            self.report_violation(format!("S3: {id} is retired before its overlap is over"));
        }
        let verified = self.published().filter(|(_, facts)| facts.integrity == Integrity::Verified);
        if let (Some(key), Some((_, facts))) = (self.desired().key, verified) {
            let waiting = key.unconfirmed(&facts.key_id).count();
            if (why == RetireReason::HandoverExpired) != (waiting > 0) && retires && !record.manual {
                self.report_violation(format!("handover: {id} is retired ({why:?}) and {waiting} consumers wait"));
            }
        }
        let hold = self.desired().key.and_then(|key| key.hold_while_used);
        let in_hold =
            hold.is_some_and(|hold| record.superseded_at.is_none_or(|since| self.now < since + overlap + hold));
        let used = record.used_at.is_some_and(|at| self.now < at + operator::settings().last_used_window);
        if (why == RetireReason::OverlapEnded && in_hold && used || why == RetireReason::HoldExpired && in_hold)
            && !record.manual
        {
            self.report_violation(format!("hold: {id} is retired ({why:?}) while it is used"));
        }
        if why == RetireReason::Quarantined && self.user.as_ref().is_none_or(|user| user.quarantined_at.is_none()) {
            self.report_violation(format!("{id} is deactivated for a quarantine that is over"));
        }
    }

    /// A rotation that only the schedule requires begins in the declared window.
    pub(super) fn audit_window(&mut self) {
        let Some(key) = self.desired().key.filter(|key| !key.windows.0.is_empty()) else { return };
        let Some((_, facts)) = self.published() else { return };
        let requested = key.rotate_request.is_some() && key.rotate_request != facts.rotate_honoured;
        let quarantined = self.user.as_ref().is_some_and(|user| user.quarantined_at.is_some());
        let appeared_at = (self.now - secs(2)).to_zoned(jiff::tz::TimeZone::UTC);
        let scheduled =
            facts.integrity == Integrity::Verified && self.works(&facts.key_id) && !requested && !quarantined;
        if scheduled && !NIGHT.contains(&appeared_at.hour()) {
            self.report_violation(format!("windows: a scheduled rotation begins at {appeared_at}"));
        }
    }

    /// S1, S2 and S7, when a Secret of ours is written.
    pub(super) fn audit_secret(&mut self, stored: &StoredSecret) {
        use secrecy::ExposeSecret;
        if stored.name == self.target().journal_name || stored.owner.is_none() {
            return;
        }
        let facts = secret::read_facts(&stored.content, stored.immutable, None, sealer());
        let before = self
            .secrets
            .get(&stored.name)
            .map(|before| secret::read_facts(&before.content, before.immutable, None, sealer()));
        if before.is_some_and(|before| before.key_id == facts.key_id && before.integrity == facts.integrity) {
            return;
        }
        let id = facts.key_id.clone();
        let Some(key) = secret::read_key(&stored.content, sealer()) else {
            return self.report_violation(format!(
                "S2: Secret {} is written with parts that do not belong together",
                stored.name
            ));
        };
        if self.keys.get(&id).is_none_or(|record| record.secret != key.secret.expose_secret()) {
            self.report_violation(format!("S2: Secret {} holds another secret than {id} has", stored.name));
        }
        if !self.works(&id) && !self.keys[&id].manual {
            self.report_violation(format!("S1: {id} is published and does not work"));
        }
        self.publications += 1;
        self.audit_rate(&id);
        let now = self.now;
        for (other, record) in &mut self.keys {
            if *other == id {
                record.published = true;
            } else if record.published {
                record.superseded_at.get_or_insert(now);
            }
        }
    }

    /// The first publication of a key: the one before was created at least the repair interval earlier, whatever was edited. A
    /// rotation that is scheduled is rarer still.
    fn audit_rate(&mut self, id: &str) {
        let record = &self.keys[id];
        if record.published {
            return;
        }
        // A key that was created before the clock was set back may be dated in the future; then only elapsed time is known.
        // One that a person deleted is known from the status only, which can be lost.
        let is_known = |other: &KeyRecord| other.user == record.user && !(other.manual && other.deleted_at.is_some());
        let is_earlier =
            |other: &KeyRecord| other.published && is_known(other) && other.created_at <= record.created_at;
        let others = self.keys.iter().filter(|(other, known)| *other != id && is_earlier(known));
        let pause = operator::settings().repair_interval;
        let earlier = others.map(|(_, other)| other.appeared_at).max();
        // IAM's dates are rounded down.
        if earlier.is_some_and(|earlier| record.appeared_at + secs(1) < earlier + pause) {
            self.report_violation(format!("rate: {id} follows another key within {pause}"));
        }
    }

    /// S6, at any time.
    pub(in crate::domain::plan::tests::simulation) fn audit_moment(&mut self) {
        let ours = self.existing().filter(|(_, record)| record.ours).count();
        if ours > 2 {
            self.report_violation(format!("S6: {ours} keys by our doing"));
        }
    }
}
