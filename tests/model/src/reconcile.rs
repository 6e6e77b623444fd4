//! The steps of a controller: what `reconcile` does, call by call.
//!
//! Each broken [`Variant`] differs from the protocol in one of these places only.

use crate::{
    decide::Do,
    protocol::{Action, Protocol, Variant},
    state::{
        At, AttemptPhase, Controller, HANDOVER, Ids, Journal, Key, NOW, OVERLAP, RECOVERY, Secret, State, StsAnswers,
        Truth, View, Violation, each, has, only, spend,
    },
};

/// IAM's quota.
pub const MAX_KEYS: usize = 2;

impl Protocol {
    /// The next call of a controller.
    pub(crate) fn step(&self, state: &mut State, index: usize, action: Action) {
        let lagging = matches!(action, Action::StaleList(_));
        if lagging || matches!(action, Action::LoseAnswer(_) | Action::LoseCall(_)) {
            spend(&mut state.budget.faults);
        }
        let controller = &mut state.controllers[index];
        match controller.at {
            At::Idle if matches!(action, Action::StartCached(_)) => {
                let keys = controller.cache.unwrap_or_default();
                controller.request = state.request;
                controller.confirmed = state.confirmed;
                controller.view = View { keys, ..View::default() };
                controller.at = At::ReadSecret;
            }
            At::Idle => {
                controller.request = state.request;
                controller.confirmed = state.confirmed;
                self.read_iam(state, index, lagging);
            }
            At::ReadIam => self.read_iam(state, index, lagging),
            At::ReadKeys => Self::read_keys(state, index, lagging),
            At::ReadSecret => {
                controller.view.secret = state.secret.map(|secret| (secret, true));
                controller.at = At::ReadJournal;
            }
            At::ReadJournal => {
                controller.view.journal = state.journal.map(|journal| (journal, true));
                controller.at = At::Ready;
            }
            At::Ready => self.act(state, index, action),
            At::Create { attempt, again } => self.create(state, index, attempt, again, action),
            At::CloseRefused(attempt) => {
                // Conditional on the journal that this attempt has written.
                if state.journal.is_some_and(|journal| journal.attempt == attempt && journal.is_intent()) {
                    state.write_journal(index, None);
                }
                fail(state, index);
            }
            At::Stage { attempt, key, unsure } => stage(state, index, (attempt, key, unsure), action),
            At::Refused { attempt, key, unsure } => self.refused(state, index, (attempt, key, unsure)),
            At::ReadTag(key) => {
                // A tagged key was published by another controller: only a key without a tag belongs to no attempt.
                if state.keys.entry(key).is_some_and(|key| key.tagged.is_some()) {
                    fail(state, index);
                } else {
                    controller.at = At::Undo(key);
                }
            }
            At::Undo(key) => {
                delete(state, key);
                fail(state, index);
            }
            At::SecondWrite(key) => {
                if let Some((Secret { .. }, true)) = controller.view.secret {
                    let secret = state.secret.map(|secret| Secret { value: key, ..secret });
                    state.write_secret(Some(index), secret);
                }
                state.controllers[index].at = At::Ready;
            }
        }
        self.end_if_idle(state, index);
    }

    /// Ends the reconcile if there is nothing to do, which is no call.
    fn end_if_idle(&self, state: &mut State, index: usize) {
        let controller = &mut state.controllers[index];
        if controller.at == At::Ready && self.decide(controller).is_none() {
            let keys = controller.view.keys;
            // By the tag as this reconcile has read it: it may be slow, and cannot know how long.
            let secret = controller.view.secret.map_or(0, |(secret, _)| secret.key);
            let is_over = keys.get(secret).and_then(|key| key.tagged).is_some_and(|age| age >= HANDOVER);
            let held = |key: &Key| key.active && key.tagged.is_some() && key.id != secret;
            let exceeds =
                is_over && controller.view.journal.is_none() && keys.works(secret) && keys.existing().any(held);
            if exceeds && state.violation == Violation::None {
                state.violation = Violation::HandoverExceeded;
            }
            end(controller);
            controller.cache = self.cache.then_some(keys);
        }
    }

    fn read_iam(&self, state: &mut State, index: usize, lagging: bool) {
        let keys = state.keys;
        let controller = &mut state.controllers[index];
        controller.view = View { read: Some(NOW), keys, ..View::default() };
        controller.cache = None;
        controller.at = At::ReadKeys;
        if !self.split_reads {
            Self::read_keys(state, index, lagging);
        }
    }

    fn read_keys(state: &mut State, index: usize, lagging: bool) {
        let controller = &mut state.controllers[index];
        // The tags are as they were read a call ago.
        let tagged = controller.view.keys;
        let mut seen = state.keys;
        for key in state.keys.iter() {
            let before = tagged.entry(key.id).and_then(|before| before.tagged);
            let hidden = lagging && can_be_hidden(key);
            seen.change(key.id, |key| {
                key.truth = Truth::default();
                key.tagged = before;
                key.exists &= !hidden;
            });
        }
        controller.view.keys = seen;
        controller.at = At::ReadSecret;
    }

    fn create(&self, state: &mut State, index: usize, attempt: u8, again: bool, action: Action) {
        if again {
            state.violation = Violation::SecondCall;
        }
        if !self.no_quota && state.keys.existing().count() >= MAX_KEYS {
            state.controllers[index].at = At::CloseRefused(attempt);
            return;
        }
        if matches!(action, Action::LoseCall(_)) {
            return self.no_response(state, index, attempt);
        }
        let age = state.journal.filter(|journal| journal.attempt == attempt && journal.is_intent());
        let age = age.map(|journal| journal.age);
        // Only a writer that was paused creates its key this late. The recovery delay covers a list that lags behind the start
        // of an attempt, but not behind a key that is created after the delay.
        let late = age.is_none_or(|age| age >= RECOVERY);
        let refused = matches!(action, Action::MakeRefusedKey(_));
        if refused {
            spend(&mut state.budget.refused);
        }
        let key = make_key(state, |key| {
            key.truth.refused = refused;
            key.truth.late = late;
        });
        if matches!(action, Action::LoseAnswer(_)) {
            self.no_response(state, index, attempt);
        } else {
            state.controllers[index].at = At::Stage { attempt, key, unsure: false };
        }
    }

    /// `CreateAccessKey` had no response.
    fn no_response(&self, state: &mut State, index: usize, attempt: u8) {
        if self.variant == Variant::RetryCreate {
            state.controllers[index].at = At::Create { attempt, again: true };
        } else {
            fail(state, index);
        }
    }

    /// The journal has refused the created key: reads it to find out why.
    fn refused(&self, state: &mut State, index: usize, (attempt, key, unsure): (u8, u8, bool)) {
        let made = state.keys.get(key).copied();
        let controller = &mut state.controllers[index];
        match state.journal.filter(|journal| journal.attempt == attempt) {
            // The write without a response had its effect.
            Some(journal) if unsure && journal.staged() == Some(key) => {
                controller.view.journal = Some((journal, true));
                adopt(controller, made);
            }
            _ if !unsure || self.variant == Variant::UndoUnseen => controller.at = At::Undo(key),
            // The controller that has abandoned the attempt knows the key.
            Some(Journal { phase: AttemptPhase::Abandoned { orphans }, .. }) if has(orphans, key) => fail(state, index),
            Some(_) => controller.at = At::Undo(key),
            None => controller.at = At::ReadTag(key),
        }
    }

    /// Plans and executes one effect in one step: the view does not change in between.
    fn act(&self, state: &mut State, index: usize, action: Action) {
        let controller = &mut state.controllers[index];
        let Some((step, reread)) = self.decide(controller) else { return };
        if reread {
            controller.view = View::default();
            controller.cache = None;
            controller.at = At::ReadIam;
            return;
        }
        match step {
            Do::CreateKey(known) => begin(state, index, known),
            Do::Verify(key) => {
                let accepted = state.keys.get(key).is_some_and(|key| key.active && !key.truth.refused);
                if accepted && !matches!(action, Action::NotAccepted(_)) {
                    state.controllers[index].sts.accepted = key;
                } else {
                    state.controllers[index].sts.refused = key;
                }
            }
            Do::Publish(key) => self.publish(state, index, key),
            Do::Tag(key) => tag(state, index, key),
            Do::Untag(ids) => {
                for id in each(ids) {
                    state.keys.change(id, |key| key.tagged = None);
                    let view = &mut state.controllers[index].view;
                    view.keys.change(id, |key| key.tagged = None);
                    view.tagged &= !only(id);
                }
            }
            Do::Abandon(orphans, failed) => self.abandon(state, index, orphans, failed),
            Do::Touch => self.touch(state, index),
            Do::Close => match controller.view.journal {
                Some((_, false)) if state.journal.is_some() => fail(state, index),
                // A journal that does not exist counts as deleted.
                Some((_, false)) => controller.view.journal = None,
                _ => state.write_journal(index, None),
            },
            Do::Deactivate(id) => {
                audit(state, id);
                let there = state.keys.get(id).is_some();
                let off = |key: &mut Key| {
                    key.exists = there;
                    key.deactivated = if key.active { NOW } else { key.deactivated };
                    key.active = false;
                };
                if there {
                    state.keys.change(id, off);
                }
                state.controllers[index].view.keys.change(id, off);
            }
            Do::Delete(id) => {
                delete(state, id);
                let view = &mut state.controllers[index].view;
                view.keys.change(id, |key| key.exists = false);
                view.deleted |= only(id);
            }
            Do::ReadLastUsed => {
                let any = controller.view.keys.existing().next().map(|key| key.id);
                controller.view.last_used = if let Action::LastUsed(_, id) = action { Some(id) } else { any };
            }
        }
    }

    fn publish(&self, state: &mut State, index: usize, key: u8) {
        let controller = &mut state.controllers[index];
        let tagged = controller.view.keys.entry(key).is_some_and(|key| key.tagged.is_some());
        if self.variant == Variant::TagBeforePublish && !tagged {
            return tag(state, index, key);
        }
        let writable = match controller.view.secret {
            Some((_, current)) => current,
            None => state.secret.is_none(),
        };
        if !writable && self.variant != Variant::UnconditionalPublish {
            return fail(state, index);
        }
        let before = controller.view.secret.map(|(secret, _)| secret);
        let honours = controller.view.journal.map_or(0, |(journal, _)| journal.honours);
        let fence = before.map_or(0, |secret| secret.fence);
        controller.sts = StsAnswers::default();
        let mut secret = Secret { key, value: key, age: NOW, honours, fence };
        if self.variant == Variant::TwoWrites {
            secret.value = before.map_or(key, |secret| secret.value);
            controller.at = At::SecondWrite(key);
        }
        state.write_secret(Some(index), Some(secret));
    }

    fn abandon(&self, state: &mut State, index: usize, orphans: Ids, failed: bool) {
        let controller = &mut state.controllers[index];
        let Some((journal, current)) = controller.view.journal else { return };
        let journal = Journal { phase: AttemptPhase::Abandoned { orphans }, ..journal };
        if self.variant == Variant::NoFence {
            controller.view.journal = Some((journal, current));
        } else if current {
            state.write_journal(index, Some(journal));
        } else {
            return fail(state, index);
        }
        state.controllers[index].sts = StsAnswers::default();
        if failed {
            fail(state, index);
        }
    }

    fn touch(&self, state: &mut State, index: usize) {
        let controller = &mut state.controllers[index];
        let (Some((secret, current)), Some((journal, _))) = (controller.view.secret, controller.view.journal) else {
            return;
        };
        let touched = Secret { fence: journal.attempt, ..secret };
        if self.variant == Variant::NoTouch {
            controller.view.secret = Some((touched, current));
        } else if current {
            state.write_secret(Some(index), Some(touched));
        } else {
            fail(state, index);
        }
    }
}

/// A list that lags does not show the youngest keys.
pub(crate) fn can_be_hidden(key: &Key) -> bool {
    key.exists && key.created == NOW
}

/// Writes the key into the journal, if that is unchanged since the attempt started.
fn stage(state: &mut State, index: usize, (attempt, key, unsure): (u8, u8, bool), action: Action) {
    let intent = state.journal.filter(|journal| journal.attempt == attempt && journal.is_intent());
    let lost = matches!(action, Action::LoseAnswer(_));
    if matches!(action, Action::LoseCall(_)) {
        state.controllers[index].at = At::Stage { attempt, key, unsure: true };
        return;
    }
    let made = state.keys.get(key).copied();
    if let Some(journal) = intent {
        state.write_journal(index, Some(Journal { phase: AttemptPhase::Keyed { key, age: NOW }, ..journal }));
    }
    let controller = &mut state.controllers[index];
    if lost {
        controller.at = At::Stage { attempt, key, unsure: true };
    } else if intent.is_some() {
        adopt(controller, made);
    } else {
        controller.at = At::Refused { attempt, key, unsure };
    }
}

/// The journal has the key: the reconcile continues from there.
fn adopt(controller: &mut Controller, made: Option<Key>) {
    if let Some(made) = made {
        let learned = Key { tagged: None, truth: Truth::default(), ..made };
        controller.view.keys.change(made.id, |seen| *seen = learned);
    }
    controller.sts = StsAnswers::default();
    controller.at = At::Ready;
}

fn end(controller: &mut Controller) {
    controller.cache = None;
    controller.request = 0;
    controller.confirmed = 0;
    controller.sts.refused = 0;
    controller.view = View::default();
    controller.at = At::Idle;
}

/// Ends a reconcile after an error. The failed call may have had its effect, so no IAM state is cached.
fn fail(state: &mut State, index: usize) {
    end(&mut state.controllers[index]);
}

pub(crate) fn make_key(state: &mut State, change: impl FnOnce(&mut Key)) -> u8 {
    let (id, since) = (state.next_key(), state.last_attempt());
    state.keys.change(id, |key| {
        *key = Key { id, exists: true, active: true, since, ..Key::default() };
        change(key);
    });
    id
}

fn begin(state: &mut State, index: usize, known: Ids) {
    if state.journal.is_some() {
        return fail(state, index);
    }
    let attempt = state.last_attempt() + 1;
    let honours = state.controllers[index].request;
    state.write_journal(index, Some(Journal { attempt, honours, age: NOW, phase: AttemptPhase::Intent { known } }));
    state.controllers[index].at = At::Create { attempt, again: false };
}

fn tag(state: &mut State, index: usize, id: u8) {
    state.keys.change(id, |key| key.tagged = Some(NOW));
    let view = &mut state.controllers[index].view;
    view.keys.change(id, |key| key.tagged = Some(NOW));
    view.tagged |= only(id);
}

fn delete(state: &mut State, id: u8) {
    audit(state, id);
    state.keys.change(id, |key| key.exists = false);
}

/// Checks S3 and S5 before a controller deactivates or deletes a key.
fn audit(state: &mut State, id: u8) {
    let Some(key) = state.keys.get(id).filter(|key| key.active) else { return };
    if key.truth.foreign {
        state.violation = Violation::ForeignTouched;
    }
    // While no working key is published there is no overlap to keep: a slot may be freed.
    let Some(secret) = state.secret.filter(|secret| state.keys.works(secret.key)) else { return };
    let too_early = secret.key == id || (key.truth.was_published && secret.age < OVERLAP);
    if too_early && state.violation == Violation::None {
        state.violation = Violation::EndedEarly;
    }
    let awaits = state.has_consumer && key.truth.was_published && secret.age < HANDOVER && !state.handed_over;
    if awaits && state.violation == Violation::None {
        state.violation = Violation::HandoverCut;
    }
}
