//! The model: possible actions and properties.

use stateright::{Model, Property};

use crate::{
    canonical::canonical,
    convergence::Convergence,
    decide::{Decision, DecisionInput, Do, decide},
    reconcile::{MAX_KEYS, can_be_hidden, make_key},
    state::{
        Age, At, Budget, Controller, HANDOVER, Key, LIMIT, OVERLAP, RECOVERY, Secret, State, Truth, Violation, spend,
    },
};

/// S1 of the design.
pub const PUBLISHED_KEY_WORKS: &str = "S1: the published key is Active in IAM";
/// S2.
pub const ID_AND_VALUE_BELONG_TOGETHER: &str = "S2: id and value in the Secret belong together";
/// S3.
pub const OVERLAP_IS_KEPT: &str = "S3: no key is deactivated while it is published or before its overlap";
/// S3 with `accessKey.handover`.
pub const HANDOVER_IS_AWAITED: &str =
    "S3: no key is deactivated before its consumer has the new one or its time is over";
/// The limit of a handover.
pub const HANDOVER_IS_BOUNDED: &str = "a handover ends with its time, and before the next rotation";
/// S5.
pub const FOREIGN_KEYS_ARE_UNTOUCHED: &str = "S5: a foreign key is never touched";
/// S6, the keys.
pub const TWO_KEYS_AT_MOST: &str = "S6: never more than two keys by our doing";
/// S6, the calls.
pub const ONE_CALL_PER_ATTEMPT: &str = "S6: an attempt calls CreateAccessKey once";
/// Liveness: one controller without further faults finishes every attempt and leaks no key.
pub const CONVERGES: &str = "liveness: without further faults it converges and leaks nothing";

/// The protocol as it is, or without one of its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// As it is.
    #[default]
    Whole,
    /// An attempt is abandoned without a write to the journal.
    NoFence,
    /// The Secret is written without its resourceVersion.
    UnconditionalPublish,
    /// The Secret is not touched before an abandoned key is deleted.
    NoTouch,
    /// A key is tagged as ours before it is published.
    TagBeforePublish,
    /// `CreateAccessKey` is called again when its response is lost.
    RetryCreate,
    /// The files of the Secret are written in two writes.
    TwoWrites,
    /// A key that the journal refuses is deleted, even if an earlier write without a response may have staged it and another
    /// controller may have published it.
    UndoUnseen,
}

/// A consumer outside the cluster, `accessKey.handover`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Handover {
    /// There is none.
    #[default]
    None,
    /// It has a limited time, and keys are rotated on request only.
    Limited,
    /// Its time is longer than the interval of scheduled rotations.
    Scheduled,
    /// As `Scheduled`, but the operator does not know the next rotation: its end has no limit within the times of the model.
    Unlimited,
    /// As `Limited`, but the operator awaits no confirmation.
    Ignored,
    /// As `Limited`, but the operator accepts the confirmation of any key.
    AnyKey,
}

/// The initial state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// A key was published long ago.
    #[default]
    Published,
    /// A user without key and Secret.
    Empty,
}

/// What is explored.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "switches that do not depend on each other")]
pub struct Protocol {
    /// One or two.
    pub controllers: usize,
    /// How the run begins.
    pub start: Start,
    /// Which part is missing.
    pub variant: Variant,
    /// The rule of the operator that is missing.
    pub omitted_rule: Option<&'static str>,
    /// The consumer of the key outside the cluster.
    pub handover: Handover,
    /// Faults and other events.
    pub budget: Budget,
    /// Reconciles may start with cached IAM state.
    pub cache: bool,
    /// The user with its tags, and its keys, are two calls to IAM.
    pub split_reads: bool,
    /// A person may create a key also while an attempt has no response, when it cannot be distinguished from the attempt's
    /// orphan.
    pub ambiguous_keys: bool,
    /// IAM's quota of two keys does not hold.
    pub no_quota: bool,
    /// What is already known to converge.
    pub convergence: Convergence,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The next call of a controller, without a fault.
    Step(usize),
    /// The reconcile starts with cached IAM state.
    StartCached(usize),
    /// IAM's list does not show the youngest keys.
    StaleList(usize),
    /// The call has its effect and the response is lost.
    LoseAnswer(usize),
    /// The call never arrives, and the controller cannot know that.
    LoseCall(usize),
    /// The key is created and AWS will never accept it.
    MakeRefusedKey(usize),
    /// STS does not accept the key yet.
    NotAccepted(usize),
    /// This key was used last.
    LastUsed(usize, u8),
    /// The process dies and starts again.
    Crash(usize),
    /// Time passes.
    Leap(Age),
    /// A rotation is requested.
    Request,
    /// A person creates a key.
    AddKey,
    /// A person deletes the Secret.
    DeleteSecret,
    /// The consumer confirms a key that it has: the published one, or the one before.
    Confirm(u8),
}

impl Action {
    /// The controller that acts; `None` for the environment.
    #[must_use]
    pub fn actor(self) -> Option<usize> {
        match self {
            Self::Step(index)
            | Self::StartCached(index)
            | Self::StaleList(index)
            | Self::LoseAnswer(index)
            | Self::LoseCall(index)
            | Self::MakeRefusedKey(index)
            | Self::NotAccepted(index)
            | Self::LastUsed(index, _)
            | Self::Crash(index) => Some(index),
            Self::Leap(_) | Self::Request | Self::AddKey | Self::DeleteSecret | Self::Confirm(_) => None,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let has_consumer = self.handover != Handover::None;
        let mut state = State { request: 1, has_consumer, budget: self.budget, ..State::default() };
        if self.start == Start::Published {
            let truth = Truth { was_published: true, ..Truth::default() };
            let key = Key {
                id: 1,
                exists: true,
                active: true,
                created: OVERLAP,
                tagged: Some(RECOVERY),
                truth,
                ..Key::default()
            };
            state.keys.change(1, |entry| *entry = key);
            state.secret = Some(Secret { key: 1, value: 1, age: OVERLAP, honours: 1, fence: 0 });
        }
        canonical(&mut state);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let budget = &state.budget;
        for (index, controller) in state.controllers.iter().enumerate().take(self.controllers) {
            // Two controllers in the same state have the same futures.
            if index == 0 || state.controllers[0] != *controller {
                self.steps(state, index, controller, actions);
                if budget.faults > 0 && *controller != Controller::default() {
                    actions.push(Action::Crash(index));
                }
            }
        }
        if budget.leaps > 0 {
            actions.extend(self.leaps().map(Action::Leap));
        }
        // One request at a time: a second one before the first is handled only replaces it.
        let handled = state.secret.is_some_and(|secret| secret.honours == state.request)
            || state.journal.is_some_and(|journal| journal.honours == state.request);
        if budget.requests > 0 && handled {
            actions.push(Action::Request);
        }
        let intent = state.journal.is_some_and(|journal| journal.is_intent());
        if budget.foreign > 0 && state.keys.existing().count() < MAX_KEYS && (self.ambiguous_keys || !intent) {
            actions.push(Action::AddKey);
        }
        if budget.deletions > 0 && state.secret.is_some() {
            actions.push(Action::DeleteSecret);
        }
        if budget.confirmations > 0 {
            let known = state.keys.existing().filter(|key| key.truth.was_published && key.id != state.confirmed);
            actions.extend(known.map(|key| Action::Confirm(key.id)));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = self.apply(before, action)?;
        canonical(&mut state);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(PUBLISHED_KEY_WORKS, |_, state: &State| {
                state.secret.is_none_or(|secret| state.keys.works(secret.key))
            }),
            Property::always(ID_AND_VALUE_BELONG_TOGETHER, |_, state: &State| {
                state.secret.is_none_or(|secret| secret.key == secret.value)
            }),
            Property::always(OVERLAP_IS_KEPT, |_, state: &State| state.violation != Violation::EndedEarly),
            Property::always(FOREIGN_KEYS_ARE_UNTOUCHED, |_, state: &State| {
                state.violation != Violation::ForeignTouched
            }),
            Property::always(TWO_KEYS_AT_MOST, |_, state: &State| {
                state.keys.existing().filter(|key| !key.truth.foreign).count() <= MAX_KEYS
            }),
            Property::always(ONE_CALL_PER_ATTEMPT, |_, state: &State| state.violation != Violation::SecondCall),
        ];
        if self.handover != Handover::None {
            properties.extend([
                Property::always(HANDOVER_IS_AWAITED, |_, state: &State| state.violation != Violation::HandoverCut),
                Property::always(HANDOVER_IS_BOUNDED, |_, state: &State| {
                    state.violation != Violation::HandoverExceeded
                }),
            ]);
        }
        // Scheduled rotations never end.
        if self.handover != Handover::Scheduled {
            properties.push(Property::always(CONVERGES, |model: &Self, state: &State| model.converges(state)));
        }
        properties
    }
}

impl Protocol {
    /// What a controller that has observed all does next.
    pub(crate) fn decide(&self, controller: &Controller) -> Decision {
        let Controller { view, sts, request, confirmed, .. } = *controller;
        decide(DecisionInput {
            view,
            sts,
            request,
            confirmed,
            handover: self.handover,
            omitted_rule: self.omitted_rule,
        })
    }

    /// How far time may leap.
    pub(crate) fn leaps(&self) -> impl Iterator<Item = Age> + use<> {
        let longest = (self.handover != Handover::None).then_some(HANDOVER);
        [RECOVERY, LIMIT, OVERLAP].into_iter().chain(longest)
    }

    /// The state after the action, with all names as they were.
    #[must_use]
    pub fn apply(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        match action {
            Action::Crash(index) => {
                state.controllers[index] = Controller::default();
                spend(&mut state.budget.faults);
            }
            Action::Leap(least) => {
                state.leap(least);
                if state == *before {
                    return None;
                }
                spend(&mut state.budget.leaps);
            }
            Action::Request => {
                state.request = state.last_request() + 1;
                spend(&mut state.budget.requests);
            }
            Action::AddKey => {
                make_key(&mut state, |key| key.truth.foreign = true);
                spend(&mut state.budget.foreign);
            }
            Action::DeleteSecret => {
                state.write_secret(None, None);
                spend(&mut state.budget.deletions);
            }
            Action::Confirm(key) => {
                state.confirmed = key;
                state.handed_over |= state.secret.is_some_and(|secret| secret.key == key);
                spend(&mut state.budget.confirmations);
            }
            step => self.step(&mut state, step.actor()?, step),
        }
        Some(state)
    }

    /// The steps that a controller may take now, one per possible outcome.
    fn steps(&self, state: &State, index: usize, controller: &Controller, actions: &mut Vec<Action>) {
        actions.push(Action::Step(index));
        let budget = &state.budget;
        let lagging = budget.faults > 0 && state.keys.existing().any(can_be_hidden);
        match controller.at {
            At::Idle => {
                actions.extend(controller.cache.map(|_| Action::StartCached(index)));
                actions.extend((lagging && !self.split_reads).then_some(Action::StaleList(index)));
            }
            At::ReadIam if !self.split_reads => actions.extend(lagging.then_some(Action::StaleList(index))),
            At::ReadKeys => actions.extend(lagging.then_some(Action::StaleList(index))),
            At::Create { .. } => {
                actions.extend((budget.faults > 0).then_some(Action::LoseAnswer(index)));
                actions.extend((budget.refused > 0).then_some(Action::MakeRefusedKey(index)));
            }
            At::Stage { .. } => {
                actions.extend((budget.faults > 0).then_some(Action::LoseAnswer(index)));
                actions.extend((budget.faults > 0).then_some(Action::LoseCall(index)));
            }
            At::Ready => match self.decide(controller) {
                Some((Do::Verify(_), _)) => actions.push(Action::NotAccepted(index)),
                Some((Do::ReadLastUsed, _)) => {
                    actions.extend(controller.view.keys.existing().map(|key| Action::LastUsed(index, key.id)));
                }
                _ => {}
            },
            _ => {}
        }
    }
}
