//! The protocol holds, and fails without any of its parts.
//!
//! Each configuration prints one line even when it passes: the number of states is part of the claim. The short set runs
//! in `make test`; `make model` adds the larger ones.

mod trace;

use std::{collections::BTreeSet, io::Write, time::Instant};

use awsdeploy::domain::plan::rules::RULES;
use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    Action, Budget, CONVERGES, FOREIGN_KEYS_ARE_UNTOUCHED, HANDOVER_IS_AWAITED, HANDOVER_IS_BOUNDED, Handover,
    ID_AND_VALUE_BELONG_TOGETHER, ONE_CALL_PER_ATTEMPT, PUBLISHED_KEY_WORKS, Protocol, Start, State, TWO_KEYS_AT_MOST,
    Variant, convergence::Convergence, rules_that_decided, state::ANY,
};

/// Explores all states; panics with the path to a state where a property fails.
fn holds(what: &str, model: Protocol) {
    let start = Instant::now();
    let checker = model.checker().threads(threads()).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    report(what, "holds", checker.unique_state_count(), start);
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{what}: not {property:?}:\n{}", trace::describe(checker.model(), &path));
    }
    assert!(checker.is_done(), "{what}: some states were not explored");
}

/// Explores until the property fails; returns the path to the failure.
fn fails(what: &str, property: &'static str, model: Protocol) -> Vec<(State, Option<Action>)> {
    let start = Instant::now();
    let wanted = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    let count = checker.unique_state_count();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{what}: {property:?} holds in {count} states"));
    report(what, &format!("fails, not {property:?}"), count, start);
    eprintln!("{}", trace::describe(checker.model(), &path));
    path.into_vec()
}

/// Bypasses the test harness, which hides the output of a test that passes.
fn report(what: &str, how: &str, states: usize, start: Instant) {
    let (seconds, megabytes) = (start.elapsed().as_secs_f32(), peak_memory_megabytes());
    let line = format!("model: {what}: {how}; {states} states, {seconds:.1} s, process peak {megabytes} MB\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Of the whole process; 0 without `/proc`.
fn peak_memory_megabytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map_or(0, |kilobytes: usize| kilobytes / 1024)
}

/// Set by `make model`.
fn runs_all() -> bool {
    std::env::var("MODEL").is_ok_and(|what| what == "all")
}

/// The tests of the short set already run in parallel.
fn threads() -> usize {
    if runs_all() { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 }
}

/// Every kind of fault, without limit.
const UNBOUNDED: Budget =
    Budget { requests: ANY, faults: ANY, refused: ANY, leaps: ANY, foreign: ANY, deletions: ANY, confirmations: 0 };

fn one(budget: Budget) -> Protocol {
    Protocol { controllers: 1, budget, ..Protocol::default() }
}

fn two(budget: Budget) -> Protocol {
    Protocol { controllers: 2, budget, ..Protocol::default() }
}

/// Only requested rotations and passing time.
fn quiet(requests: u8, leaps: u8) -> Budget {
    Budget { requests, leaps, ..Budget::default() }
}

// --- the protocol holds ------------------------------------------------------------------------------

/// Every kind of fault, without people who create keys or delete the Secret: ten times fewer states.
const UNATTENDED: Budget = Budget { foreign: 0, deletions: 0, ..UNBOUNDED };

#[test]
fn one_controller_converges_despite_endless_faults() {
    holds("one controller, a published key, unbounded without people", one(UNATTENDED));
    let start = Start::Empty;
    holds("one controller, a new user, unbounded without people", Protocol { start, ..one(UNATTENDED) });
}

#[test]
fn one_controller_converges_despite_people() {
    let people = Budget { faults: 1, foreign: 1, deletions: 1, ..quiet(1, ANY) };
    holds("one controller, a published key, 1 fault, 1 foreign key, 1 deletion", one(people));
    let start = Start::Empty;
    holds("one controller, a new user, 1 fault, 1 foreign key, 1 deletion", Protocol { start, ..one(people) });
}

#[test]
fn cache_of_one_controller_breaks_no_invariant() {
    let budget = Budget { refused: 0, ..UNATTENDED };
    holds(
        "one controller, cache and split reads, unbounded",
        Protocol { cache: true, split_reads: true, ..one(budget) },
    );
}

#[test]
fn two_controllers_without_leader_election_hold() {
    holds("two controllers, 1 request, 1 leap, 2 faults", two(Budget { faults: 2, ..quiet(1, 1) }));
    holds("two controllers, 1 request, 2 leaps", two(quiet(1, 2)));
    let refused = Budget { faults: 1, refused: 1, ..quiet(1, 1) };
    holds("two controllers, 1 request, 1 leap, 1 fault, 1 refused key", two(refused));
}

#[test]
fn two_controllers_never_touch_a_manual_key() {
    let budget = Budget { faults: 1, foreign: 1, ..quiet(1, 1) };
    holds("two controllers, 1 request, 1 leap, 1 fault, 1 foreign key", two(budget));
}

#[test]
fn caches_of_two_controllers_break_no_invariant() {
    let model = Protocol { cache: true, split_reads: true, ..two(Budget { faults: 1, ..quiet(1, 1) }) };
    holds("two controllers, cache and split reads, 1 request, 1 leap, 1 fault", model);
}

/// A consumer outside the cluster that confirms keys, the previous one too. Time and confirmations are not limited.
fn handed_over(handover: Handover, budget: Budget) -> Protocol {
    Protocol { handover, ..one(Budget { leaps: ANY, confirmations: ANY, ..budget }) }
}

#[test]
fn handover_is_awaited_and_bounded_despite_faults() {
    let faulty = |faults| Budget { faults, ..quiet(1, 0) };
    holds("one controller, a handover, 1 request, 2 faults", handed_over(Handover::Limited, faulty(2)));
    holds("one controller, a handover and a schedule, 1 request", handed_over(Handover::Scheduled, faulty(0)));
}

#[test]
fn handover_fails_without_any_of_its_parts() {
    let without = |part: &str, property, handover| {
        fails(&format!("without a part of the handover, {part}"), property, handed_over(handover, quiet(1, 0)));
    };
    without("the wait", HANDOVER_IS_AWAITED, Handover::Ignored);
    without("the id of the new key", HANDOVER_IS_AWAITED, Handover::AnyKey);
    without("the limit", HANDOVER_IS_BOUNDED, Handover::Unlimited);
    // A rotation that is requested waits for the slot.
    let model = handed_over(Handover::Unlimited, quiet(2, 0));
    fails("without a part of the handover, the limit, two requests", CONVERGES, model);
    let rule = Some("a superseded key is Inactive after its overlap");
    let model = Protocol { omitted_rule: rule, ..handed_over(Handover::Limited, quiet(1, 0)) };
    fails("without the rule that ends a superseded key", HANDOVER_IS_BOUNDED, model);
}

#[test]
fn larger_configurations_hold() {
    if !runs_all() {
        return;
    }
    holds("one controller, a published key, unbounded", one(UNBOUNDED));
    holds("one controller, a new user, unbounded", Protocol { start: Start::Empty, ..one(UNBOUNDED) });
    let cached = Protocol { cache: true, split_reads: true, ..one(UNBOUNDED) };
    holds("one controller, cache and split reads, unbounded with people", cached);
    let faulty = Budget { requests: ANY, faults: ANY, refused: ANY, ..Budget::default() };
    holds("one controller, a handover, unbounded", handed_over(Handover::Limited, faulty));
    let scheduled = Budget { faults: 2, refused: 1, ..quiet(1, 0) };
    holds(
        "one controller, a handover and a schedule, 1 request, 2 faults",
        handed_over(Handover::Scheduled, scheduled),
    );
    let paired = Budget { faults: 1, confirmations: 1, ..quiet(1, 2) };
    holds(
        "two controllers, a handover, 1 request, 2 leaps, 1 fault, 1 confirmation",
        Protocol { handover: Handover::Limited, ..two(paired) },
    );
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
    let cached = Protocol { cache: true, split_reads: true, ..two(Budget { faults: 1, ..quiet(1, 2) }) };
    holds("two controllers, cache and split reads, 1 request, 2 leaps, 1 fault", cached);
    holds("two controllers, 2 requests, 3 leaps, 2 faults", two(Budget { faults: 2, ..quiet(2, 3) }));
    holds(
        "two controllers, 1 request, 3 leaps, 3 faults, 1 refused key, 1 foreign key",
        two(Budget { faults: 3, refused: 1, foreign: 1, ..quiet(1, 3) }),
    );
    let cached = Protocol { cache: true, split_reads: true, ..two(Budget { faults: 2, ..quiet(2, 2) }) };
    holds("two controllers, cache and split reads, 2 requests, 2 leaps, 2 faults", cached);
}

// --- it fails without any of its parts -------------------------------------------------------

/// The variant fails, and on the path to the failure it differs from the protocol in this place only.
fn fails_without(variant: Variant, place: &str, property: &'static str, model: &Protocol) {
    let with = |variant| Protocol { variant, convergence: Convergence::default(), ..*model };
    let (broken, whole) = (with(variant), with(Variant::Whole));
    let path = fails(&format!("without a part, {variant:?}"), property, with(variant));
    let differs = |(state, action): &(State, Option<Action>)| {
        let action = (*action)?;
        (broken.apply(state, action) != whole.apply(state, action)).then(|| trace::place(&whole, state, action))
    };
    let places: BTreeSet<String> = path.iter().filter_map(differs).collect();
    assert_eq!(places, [place.to_owned()].into(), "{variant:?} differs from the protocol elsewhere");
}

#[test]
fn without_fence_a_deleted_key_is_published() {
    fails_without(Variant::NoFence, "Abandon", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn unconditional_publish_publishes_a_deleted_key() {
    fails_without(Variant::UnconditionalPublish, "Publish", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn without_touch_a_deleted_key_is_published() {
    fails_without(Variant::NoTouch, "Touch", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn key_tagged_before_publication_retires_while_published() {
    fails_without(Variant::TagBeforePublish, "Publish", PUBLISHED_KEY_WORKS, &two(quiet(1, 1)));
}

#[test]
fn retried_create_access_key_leaks_a_key() {
    let model = || one(Budget { faults: 1, ..quiet(1, 0) });
    fails_without(Variant::RetryCreate, "CreateAccessKey", ONE_CALL_PER_ATTEMPT, &model());
    fails_without(Variant::RetryCreate, "CreateAccessKey", CONVERGES, &Protocol { start: Start::Empty, ..model() });
}

#[test]
fn secret_written_in_two_writes_mixes_id_and_value() {
    let model = one(Budget { faults: 1, ..quiet(1, 0) });
    fails_without(Variant::TwoWrites, "Publish", ID_AND_VALUE_BELONG_TOGETHER, &model);
}

#[test]
fn key_undone_after_unanswered_write_may_be_published() {
    let model = two(Budget { faults: 1, ..quiet(1, 0) });
    fails_without(Variant::UndoUnseen, "stage", PUBLISHED_KEY_WORKS, &model);
}

// --- known limits of the protocol ------------------------------------------------------------

#[test]
fn limit_without_a_secret_two_controllers_publish_a_dead_key() {
    fails("limit: a Secret deleted by hand", PUBLISHED_KEY_WORKS, two(Budget { deletions: 1, ..quiet(0, 1) }));
    let model = Protocol { start: Start::Empty, ..two(quiet(0, 1)) };
    fails("limit: no Secret yet", PUBLISHED_KEY_WORKS, model);
}

#[test]
fn limit_manual_key_during_unanswered_attempt_counts_as_orphan() {
    let model = Protocol { ambiguous_keys: true, ..one(Budget { foreign: 1, faults: 1, ..quiet(1, 1) }) };
    fails("limit: a manual key during an attempt", FOREIGN_KEYS_ARE_UNTOUCHED, model);
}

#[test]
fn limit_only_iam_quota_prevents_a_third_key() {
    fails("limit: no quota", TWO_KEYS_AT_MOST, Protocol { no_quota: true, ..two(quiet(1, 2)) });
}

// --- model and code have one order -----------------------------------------------------------

/// Rules about what the model has, with the property that fails without each, and a configuration in which it does.
fn modelled_rules() -> Vec<(&'static str, &'static str, Protocol)> {
    let interrupted = || one(Budget { faults: 1, ..quiet(1, 0) });
    vec![
        ("a published key is tagged, never before it is published", CONVERGES, one(quiet(1, 0))),
        ("a superseded key is Inactive after its overlap", CONVERGES, one(quiet(1, 0))),
        ("a paused publisher of an abandoned key is fenced off", PUBLISHED_KEY_WORKS, two(quiet(1, 1))),
        ("orphans are deleted behind the fence", CONVERGES, interrupted()),
        ("an attempt that is over is closed", CONVERGES, one(quiet(1, 0))),
        ("a staged key that AWS accepts is published", CONVERGES, one(quiet(1, 0))),
        ("an attempt that cannot be finished is abandoned", CONVERGES, interrupted()),
        ("a staged key is verified", CONVERGES, one(quiet(1, 0))),
        ("tags of deleted keys are removed", CONVERGES, one(quiet(1, 0))),
        ("a superseded key is deleted after the deletion delay", CONVERGES, one(quiet(1, 0))),
        ("a key that is due is replaced", CONVERGES, one(quiet(1, 0))),
    ]
}

#[test]
fn protocol_fails_without_any_modelled_rule() {
    for (rule, property, model) in modelled_rules() {
        assert!(RULES.iter().any(|(name, _)| *name == rule), "no rule {rule:?}");
        fails(&format!("without the rule {rule:?}"), property, Protocol { omitted_rule: Some(rule), ..model });
    }
}

#[test]
fn every_modelled_rule_decides_somewhere() {
    let budget = Budget { requests: 1, faults: 1, refused: 1, leaps: ANY, foreign: 0, deletions: 1, confirmations: 0 };
    holds("one controller, 1 of each, for the rules", one(budget));
    // Other tests may have used some of these rules too, but none of the others.
    let decided = rules_that_decided();
    let expected: BTreeSet<&str> = modelled_rules().into_iter().map(|(rule, ..)| rule).collect();
    assert_eq!(decided, expected, "rules that decided, and rules that should have");
}
