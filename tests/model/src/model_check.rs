//! The protocol holds, and falls without any of its parts.
//!
//! One line a configuration goes to the terminal even when all is well: how much was looked at is part
//! of the claim. The short set runs in `make test`; `make model` adds the larger ones.

mod tell;

use std::{collections::BTreeSet, io::Write, time::Instant};

use awsdeploy::domain::plan::rotation::RULES;
use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    Action, Budget, FOREIGN_KEYS_ARE_LEFT, ID_AND_VALUE_BELONG_TOGETHER, IT_CONVERGES, ONE_CALL_AN_ATTEMPT,
    PUBLISHED_KEY_WORKS, Protocol, Start, State, TWO_KEYS_AT_MOST, Variant, rules_that_decided, settle::Settled,
    state::ANY,
};

/// Explores everything; panics with the way to a state where a property fails.
fn holds(what: &str, model: Protocol) {
    let start = Instant::now();
    let checker = model.checker().threads(threads()).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    report(what, "holds", checker.unique_state_count(), start);
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{what}: not {property:?}:\n{}", tell::tell(checker.model(), &path));
    }
    assert!(checker.is_done(), "{what}: not everything was looked at");
}

/// Explores until the property fails; hands over the way to there.
fn falls(what: &str, property: &'static str, model: Protocol) -> Vec<(State, Option<Action>)> {
    let start = Instant::now();
    let wanted = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    let count = checker.unique_state_count();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{what}: {property:?} holds in {count} states"));
    report(what, &format!("falls, not {property:?}"), count, start);
    eprintln!("{}", tell::tell(checker.model(), &path));
    path.into_vec()
}

/// Past the test harness, which hides what a test that passes has to say.
fn report(what: &str, how: &str, states: usize, start: Instant) {
    let (seconds, megabytes) = (start.elapsed().as_secs_f32(), most_memory_so_far());
    let line = format!("model: {what}: {how}; {states} states, {seconds:.1} s, process peak {megabytes} MB\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Of the whole process. Where there is no `/proc`, 0.
fn most_memory_so_far() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map_or(0, |kilobytes: usize| kilobytes / 1024)
}

/// `make model` asks for everything.
fn everything() -> bool {
    std::env::var("MODEL").is_ok_and(|what| what == "all")
}

/// The tests of the short set run side by side already.
fn threads() -> usize {
    if everything() { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 }
}

/// Everything, as often as it likes.
const ENDLESS: Budget = Budget { requests: ANY, faults: ANY, refused: ANY, leaps: ANY, foreign: ANY, deletions: ANY };

fn one(budget: Budget) -> Protocol {
    Protocol { controllers: 1, budget, ..Protocol::default() }
}

fn two(budget: Budget) -> Protocol {
    Protocol { controllers: 2, budget, ..Protocol::default() }
}

/// No trouble but rotations that are asked for, and time.
fn quiet(requests: u8, leaps: u8) -> Budget {
    Budget { requests, leaps, ..Budget::default() }
}

// --- it holds --------------------------------------------------------------------------------

#[test]
fn one_controller_holds_and_converges_in_endless_trouble_of_every_kind() {
    holds("one controller, a key at rest, endless", one(ENDLESS));
}

#[test]
fn one_controller_gives_a_new_user_its_key_in_endless_trouble_of_every_kind() {
    holds("one controller, a new user, endless", Protocol { start: Start::Empty, ..one(ENDLESS) });
}

#[test]
fn what_a_controller_remembers_of_iam_does_no_harm() {
    let budget = Budget { foreign: 0, deletions: 0, refused: 0, ..ENDLESS };
    holds(
        "one controller, memory and split reads, endless",
        Protocol { memory: true, split_reads: true, ..one(budget) },
    );
}

#[test]
fn two_controllers_without_any_election_hold() {
    holds("two controllers, 1 request, 1 leap, 2 faults", two(Budget { faults: 2, ..quiet(1, 1) }));
    holds("two controllers, 1 request, 2 leaps", two(quiet(1, 2)));
    let refused = Budget { faults: 1, refused: 1, ..quiet(1, 1) };
    holds("two controllers, 1 request, 1 leap, 1 fault, 1 refused key", two(refused));
}

#[test]
fn two_controllers_leave_a_persons_key_alone() {
    let budget = Budget { faults: 1, foreign: 1, ..quiet(1, 1) };
    holds("two controllers, 1 request, 1 leap, 1 fault, 1 foreign key", two(budget));
}

#[test]
fn what_two_controllers_remember_of_iam_does_no_harm() {
    let model = Protocol { memory: true, split_reads: true, ..two(Budget { faults: 1, ..quiet(1, 1) }) };
    holds("two controllers, memory and split reads, 1 request, 1 leap, 1 fault", model);
}

#[test]
fn larger_runs_hold_when_they_are_asked_for() {
    if !everything() {
        return;
    }
    let memory = Protocol { memory: true, split_reads: true, ..one(ENDLESS) };
    holds("one controller, memory and split reads, endless with people", memory);
    holds("two controllers, 2 requests, 2 leaps", two(quiet(2, 2)));
    holds(
        "two controllers, 1 request, 2 leaps, 1 fault, 1 refused key",
        two(Budget { faults: 1, refused: 1, ..quiet(1, 2) }),
    );
    holds("two controllers, 1 request, 2 leaps, 2 faults", two(Budget { faults: 2, ..quiet(1, 2) }));
    holds(
        "two controllers, 1 request, 2 leaps, 2 faults, 1 foreign key",
        two(Budget { faults: 2, foreign: 1, ..quiet(1, 2) }),
    );
    let memory = Protocol { memory: true, split_reads: true, ..two(Budget { faults: 1, ..quiet(1, 2) }) };
    holds("two controllers, memory and split reads, 1 request, 2 leaps, 1 fault", memory);
    holds("two controllers, 2 requests, 3 leaps, 2 faults", two(Budget { faults: 2, ..quiet(2, 3) }));
    holds(
        "two controllers, 1 request, 3 leaps, 3 faults, 1 refused key, 1 foreign key",
        two(Budget { faults: 3, refused: 1, foreign: 1, ..quiet(1, 3) }),
    );
    let memory = Protocol { memory: true, split_reads: true, ..two(Budget { faults: 2, ..quiet(2, 2) }) };
    holds("two controllers, memory and split reads, 2 requests, 2 leaps, 2 faults", memory);
}

// --- it falls without any of its parts -------------------------------------------------------

/// The variant falls, and on the way to there it has differed from the protocol in this place and no other.
fn falls_without(variant: Variant, place: &str, property: &'static str, model: &Protocol) {
    let with = |variant| Protocol { variant, settled: Settled::default(), ..*model };
    let (broken, whole) = (with(variant), with(Variant::Whole));
    let path = falls(&format!("without a part, {variant:?}"), property, with(variant));
    let differs = |(state, action): &(State, Option<Action>)| {
        let action = (*action)?;
        (broken.apply(state, action) != whole.apply(state, action)).then(|| tell::place(state, action))
    };
    let places: BTreeSet<String> = path.iter().filter_map(differs).collect();
    assert_eq!(places, [place.to_owned()].into(), "{variant:?} differs from the protocol elsewhere");
}

#[test]
fn without_the_fence_a_deleted_key_is_published() {
    falls_without(Variant::NoFence, "Abandon", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn with_an_unconditional_publish_a_deleted_key_is_published() {
    falls_without(Variant::UnconditionalPublish, "Publish", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn without_the_touch_a_deleted_key_is_published() {
    falls_without(Variant::NoTouch, "Touch", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn a_key_tagged_before_it_is_published_is_retired_while_it_is_published() {
    falls_without(Variant::TagBeforePublish, "Publish", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn with_retries_of_create_access_key_an_attempt_makes_two_calls_and_a_key_is_left_over() {
    let model = || one(Budget { faults: 1, ..quiet(1, 0) });
    falls_without(Variant::RetryCreate, "CreateAccessKey", ONE_CALL_AN_ATTEMPT, &model());
    falls_without(Variant::RetryCreate, "CreateAccessKey", IT_CONVERGES, &Protocol { start: Start::Empty, ..model() });
}

#[test]
fn with_the_secret_read_before_iam_the_published_key_is_retired() {
    falls_without(Variant::SecretBeforeIam, "observe", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn with_the_secret_written_in_two_writes_a_crash_parts_id_and_value() {
    let model = one(Budget { faults: 1, ..quiet(1, 0) });
    falls_without(Variant::TwoWrites, "Publish", ID_AND_VALUE_BELONG_TOGETHER, &model);
}

#[test]
fn a_key_that_is_undone_after_a_write_without_an_answer_may_be_published() {
    let model = two(Budget { faults: 1, ..quiet(1, 0) });
    falls_without(Variant::UndoUnseen, "stage", PUBLISHED_KEY_WORKS, &model);
}

// --- known limits, pinned so that nobody promises more ---------------------------------------

#[test]
fn limit_two_controllers_may_publish_a_dead_key_where_there_is_no_secret_to_touch() {
    falls("limit: a Secret deleted by hand", PUBLISHED_KEY_WORKS, two(Budget { deletions: 1, ..quiet(0, 1) }));
    let model = Protocol { start: Start::Empty, ..two(quiet(0, 1)) };
    falls("limit: no Secret yet", PUBLISHED_KEY_WORKS, model);
}

#[test]
fn limit_a_key_that_a_person_makes_during_an_unanswered_attempt_is_taken_for_its_orphan() {
    let model = Protocol { ambiguous_keys: true, ..one(Budget { foreign: 1, faults: 1, ..quiet(1, 1) }) };
    falls("limit: a key made by hand during an attempt", FOREIGN_KEYS_ARE_LEFT, model);
}

#[test]
fn limit_more_than_two_keys_are_ruled_out_by_iams_quota_and_not_by_the_protocol() {
    falls("limit: no quota", TWO_KEYS_AT_MOST, Protocol { lax_quota: true, ..two(quiet(1, 2)) });
}

// --- model and code have one order -----------------------------------------------------------

/// Rules about things that the model does not have.
const NOT_MODELLED: [&str; 13] = [
    "workloads are restarted for a new key, and followed until they are rolled out",
    "a quarantine that keys are replaced for is dated, and undated when it is over",
    "before a key that may be held retires, AWS is asked whether it is used",
    "keys that are not declared any more are Inactive",
    "a staged key that is not declared any more is given up",
    "where no key is declared, what is left of one goes",
    "a journal of unknown format is left alone",
    "suspended keys are Inactive",
    "a staged key that was revoked is given up",
    "a suspended user gets no key",
    "a Secret that is not ours is not written",
    "an earlier target Secret goes with its key",
    "the Secret is as declared",
];

#[test]
fn the_ways_of_the_model_lead_through_every_rule_of_the_chain_that_it_has_a_world_for() {
    let budget = Budget { requests: 1, faults: 1, refused: 1, leaps: ANY, foreign: 0, deletions: 1 };
    holds("one controller, 1 of each, for the rules", one(budget));
    // Other tests may have led through some of them too; none leads through the others.
    let decided = rules_that_decided();
    let expected: BTreeSet<&str> =
        RULES.iter().map(|(name, _)| *name).filter(|name| !NOT_MODELLED.contains(name)).collect();
    assert_eq!(decided, expected, "rules that decided, and rules that should have");
}
