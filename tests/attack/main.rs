//! Attacks by a tenant: administrator of one namespace by RBAC, with the admission policies and the roles of the chart in
//! place, and the operator with its own token.
//!
//! Two victims are beside the tenant: the resource of another namespace, and the IAM user of a person. The claim of every
//! test: no call of the operator names a user, a key or an account that the class of the tenant does not give it.
//!
//! They take minutes and load the machine, so that `cargo test` without a filter skips them: `make attack-short`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test fails by a panic, prints its counts, waits in real time, and its futures run one at a time"
)]

mod arena;
mod evasion;
mod forged_records;
mod hostile_objects;
mod load;
mod overlap;
mod pace;
mod random;
mod requests;
mod tenant;
mod tenant_identity;
#[path = "../test_env/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the it tests, which use all of it")]
mod test_env;
mod untrusted_secrets;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use test_env::{Test, tests, trials};

const TESTS: &[Test] = tests! {
    tenant_identity: {
        annotation_never_names_the_user,
        user_is_created_only_after_its_status,
        finalizer_of_a_denied_resource_causes_no_aws_call,
        user_is_found_by_its_tags_without_a_status,
    }
    hostile_objects: {
        hostile_objects_do_not_stop_the_operator,
        unreadable_resource_is_revoked_and_deleted,
        large_objects_take_little_memory,
    }
    untrusted_secrets: {
        untrusted_secret_data_is_not_echoed_and_blocks_nothing,
        untrusted_secret_data_does_not_delay_revocation,
    }
    forged_records: {
        records_of_the_operator_are_refused_from_a_tenant,
        forged_journals_name_no_key_of_others,
        forged_secrets_name_no_key_of_others,
        wrong_secret_with_a_forged_mac_is_noticed,
        edited_secret_with_a_working_key_is_signed_again,
        secret_of_a_deleted_key_put_back_is_replaced,
        forged_password_reaches_no_user_of_others,
        secret_of_the_year_10000_is_not_logged,
    }
    overlap: {
        invalid_spec_does_not_prolong_a_previous_key,
        frozen_resource_does_not_prolong_its_overlap,
        secret_put_back_does_not_prolong_its_key,
    }
    requests: {
        requests_beyond_the_class_are_refused,
        operator_refuses_what_admission_let_pass,
        names_of_two_namespaces_never_collide,
        unserved_resource_causes_no_aws_call,
        copied_marks_give_no_user_without_adoption,
        policy_of_another_resource_is_never_attached,
    }
    evasion: { foreign_claim_does_not_delay_a_revocation, renamed_class_does_not_prolong_the_grace }
    pace: {
        abandoned_first_keys_count_for_the_interval,
        key_that_is_declared_again_is_no_first_key,
    }
    random: { random_writes_of_a_tenant_stay_in_its_class }
    load: { edits_of_a_secret_mint_keys_at_a_bounded_rate, probes_are_answered_under_a_flood_of_connections }
};

/// A test that measures time and counts calls, and therefore runs alone.
const LAST: &[Test] = tests! {
    load: { revocation_comes_first_while_a_tenant_floods, revoked_newcomers_do_not_starve_others }
};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests wait more than they compute.
    arguments.test_threads = arguments.test_threads.or(Some(6));
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(&[TESTS, LAST].concat())).exit_code();
    }
    if std::env::var_os("ATTACK").is_none() && arguments.filter.is_none() {
        println!("attack: skipped; run: make attack-short");
        return ExitCode::SUCCESS;
    }
    let first = libtest_mimic::run(&arguments, trials(TESTS));
    let last = libtest_mimic::run(&arguments, trials(LAST));
    test_env::stop();
    let failed = first.num_failed + last.num_failed;
    println!("attack: {} passed, {failed} failed", first.num_passed + last.num_passed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
