//! One test binary for everything that needs more than a function call: a real API server, an AWS that behaves like
//! AWS, and the operator as a process with the rights that the chart gives it.
//!
//! One control plane serves all tests; each has a namespace, an AWS account and an operator of its own. It is started
//! by the first test that asks for it and stopped after the last one, also when tests fail.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test fails by a panic, lives in real time, and its futures run one at a time"
)]

mod accounts;
mod adapter;
mod admission;
mod adoption;
mod bad_input;
mod class;
mod console;
mod cost;
mod crash;
mod crd;
mod details;
mod failures;
mod formats;
mod hostile;
mod house;
mod iam;
mod leader;
mod least_rights;
mod lifecycle;
mod main_job;
mod observed;
mod ownership;
mod presets;
mod quarantine;
mod restart;
mod restore;
mod rights;
mod rotation;
#[path = "../stage/mod.rs"]
mod stage;
mod traces;
mod upgrade;
mod waiting;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: its claim is its name.
type Claim = (&'static str, fn() -> Result<(), Failed>);

/// Makes claims of functions: `async` ones run on the shared runtime.
macro_rules! claims {
    ($($module:ident: { $($name:ident),+ $(,)? })+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), || stage::run($module::$name()))),+),+]
    };
}

const CLAIMS: &[Claim] = claims! {
    house: { imports_run_one_way, generated_files_are_up_to_date,
        the_image_build_is_sent_every_member_of_the_workspace,
        the_runbook_says_what_to_do_for_every_reason,
        the_operator_takes_the_arguments_of_the_chart, the_documented_iam_policy_is_the_one_that_is_printed,
        secrets_are_asked_for_by_namespace_only, the_threat_model_names_tests_that_exist }
    crd: { every_field_is_described, no_field_of_a_tenant_names_a_namespace_or_an_address,
        rules_refuse_with_the_allowed_value, printer_columns_answer_the_first_questions }
    main_job: {
        one_manifest_leads_to_user_policy_key_and_secret,
        the_defang_guide_is_one_manifest_too,
        first_creation_costs_four_writes_and_one_read,
        a_restart_writes_nothing_and_stays_ready,
    }
    rotation: {
        a_consumer_is_never_refused_through_rotations,
        an_old_key_lives_through_its_overlap_then_is_inactive_then_gone,
        a_cron_schedule_rotates,
        a_new_value_of_the_annotation_rotates_once,
        a_key_is_published_only_when_aws_accepts_it,
        a_key_that_aws_never_accepts_is_given_up,
        a_deleted_secret_comes_back_with_a_new_key,
        an_edited_secret_gets_a_new_key_and_a_lost_file_does_not,
        a_key_deleted_in_aws_is_replaced,
        a_foreign_key_is_reported_and_left_alone,
        a_renamed_secret_gets_a_new_key_and_the_old_one_stays_until_it_retires,
    }
    formats: {
        every_form_is_read_by_what_it_is_made_for,
        a_program_that_runs_picks_up_a_new_key_through_credential_process,
        a_changed_form_is_written_with_the_same_key,
        a_bad_template_costs_no_key,
    }
    waiting: {
        an_old_key_in_use_is_held_and_told_until_it_is_quiet,
        an_old_key_in_use_is_not_held_for_ever,
        a_rotation_that_nobody_holds_back_asks_nothing_of_last_use,
        a_last_use_that_aws_does_not_tell_is_neither_unused_nor_for_ever,
        a_scheduled_rotation_begins_inside_its_window_only,
        a_restart_in_the_middle_of_a_back_off_keeps_it,
    }
    quarantine: {
        an_alert_is_told_and_changes_nothing,
        a_quarantined_user_gets_a_new_key_once_and_the_bad_ones_go_without_overlap,
        a_quarantined_user_is_suspended_until_the_policy_is_detached,
        a_frozen_user_in_quarantine_loses_its_key_where_its_class_asks_for_that,
    }
    iam: {
        a_changed_policy_is_changed_in_aws,
        drift_is_put_back_and_told,
        tags_come_and_go_with_the_manifest,
        quarantine_policies_are_never_detached,
        groups_are_exactly_the_declared_ones,
        a_group_that_does_not_exist_is_named,
        the_boundary_is_there_from_the_start_and_kept,
        without_its_boundary_no_user_is_made,
    }
    ownership: {
        a_foreign_user_is_refused_without_a_write,
        a_foreign_secret_is_refused_before_anything_is_made,
        the_first_of_two_claims_keeps_the_user,
        the_operator_marks_resources_and_changes_nothing_that_they_ask_for,
    }
    details: {
        users_that_are_as_they_were_cost_one_read_for_all_of_them,
        users_that_a_class_has_frozen_cost_no_more_than_others,
        what_the_details_show_is_looked_at_anew_before_it_is_mended,
        details_of_before_a_change_undo_nothing,
        a_new_start_asks_once_for_all_and_lists_the_keys_in_the_course_of_time,
        a_key_that_went_while_the_operator_was_away_is_found_missing,
        a_user_that_was_made_again_by_hand_is_no_user_that_was_known,
        where_aws_refuses_the_details_each_user_is_read_by_itself,
        a_throttled_read_for_all_is_no_storm_of_reads_for_each,
        a_start_without_a_way_to_aws_is_no_storm_of_reads_later,
    }
    adoption: {
        a_user_is_taken_over_with_the_consent_of_both_sides,
        without_a_true_consent_nothing_is_written,
        a_cluster_that_does_not_permit_it_adopts_nobody,
        an_adopted_user_with_two_keys_waits_for_a_slot,
        a_crash_amid_an_adoption_does_no_harm,
        an_adopted_user_leaves_as_any_other_and_can_be_handed_back,
    }
    lifecycle: {
        suspend_sets_all_keys_inactive_in_one_pass,
        suspend_deactivates_and_resume_makes_a_new_key,
        deletion_removes_everything_in_six_calls,
        retain_leaves_user_and_secret,
        a_secret_that_is_renamed_twice_leaves_none_behind,
        a_foreign_key_makes_the_deletion_wait_and_force_removes_it,
        whatever_hangs_on_the_user_goes_with_it,
        a_user_deleted_by_hand_comes_back_with_a_new_key,
    }
    crash: {
        killed_between_create_and_journal_leaves_no_key,
        a_lost_answer_of_create_leaves_no_key,
        killed_after_the_journal_publishes_the_same_key,
        a_lost_answer_of_create_user_is_no_stranger,
    }
    leader: { one_of_two_leads_and_the_other_takes_over, two_leaders_at_once_lose_no_key_and_cut_nobody_off }
    bad_input: {
        an_unknown_policy_is_named,
        a_malformed_document_keeps_the_words_of_aws,
        too_many_policies_are_refused_with_the_number,
        a_bad_schedule_says_what_is_allowed,
        missing_rights_name_the_command_that_grants_them,
        missing_credentials_are_told_and_waited_for,
        an_unreachable_aws_leaves_ready_as_it_was,
        one_bad_resource_does_not_stop_the_others,
        a_spec_that_is_not_valid_can_still_be_suspended,
    }
    class: {
        without_a_class_nothing_is_allowed,
        a_class_decides_on_name_path_limits_tags_and_defaults,
        what_a_class_does_not_allow_is_told_and_never_asked_of_aws,
        a_tightened_class_freezes_the_user_and_its_key_lives_on,
        a_namespace_without_its_label_loses_its_keys,
        a_deleted_class_takes_its_users_with_it,
        a_class_that_goes_before_iam_shows_its_user_leaves_no_key_behind,
        a_forbidden_change_costs_nothing_and_suspend_still_works,
        who_comes_too_late_waits_for_room,
        whoever_comes_from_another_class_waits_for_room_too,
        another_account_than_the_class_asks_for_is_not_written_to,
        another_class_does_not_move_a_user,
        a_class_says_how_it_stands,
    }
    accounts: {
        users_of_a_role_live_in_its_account_and_share_its_session,
        the_role_of_a_class_can_be_changed_and_its_account_cannot,
        the_account_that_aws_names_decides_before_anything_else,
        a_refused_role_is_told_with_what_it_needs_and_taken_once_that_is_mended,
        a_silent_account_and_a_refused_one_do_not_delay_the_others,
        a_revocation_follows_the_user_into_an_account_that_no_class_leads_to,
        a_deletion_waits_for_a_way_to_its_account_and_takes_another_role,
        a_user_whose_making_was_cut_off_is_found_in_its_account,
        a_class_for_another_account_is_no_way_out,
        one_renews_the_session_for_all_and_a_refused_one_is_dropped,
        the_operator_runs_with_a_web_identity_alone,
        the_operator_runs_with_a_pod_identity_alone,
    }
    admission: {
        api_server_and_operator_say_the_same_of_every_row,
        nobody_gets_more_than_the_class_allows_whoever_asks,
        what_is_forbidden_is_refused_at_once_and_what_exists_can_be_cleaned_up,
        the_operator_writes_no_secret_that_is_not_its_own,
    }
    hostile: {
        what_others_write_into_our_secrets_is_repeated_nowhere_and_stops_nobody,
        nothing_in_our_secrets_holds_up_a_suspension,
    }
    presets: {
        the_cycle_preset_needs_ten_lines,
        the_defang_preset_needs_ten_lines,
        the_cdk_preset_needs_ten_lines,
        every_example_comes_to_its_user_and_secret,
    }
    rights: {
        the_printed_policy_suffices_for_the_users_of_its_classes,
        a_hostile_resource_that_got_past_everything_else_is_refused_by_aws,
    }
    console: {
        a_person_gets_a_password_and_the_way_in,
        a_password_that_aws_took_without_telling_is_the_one_in_the_secret,
        a_foreign_console_secret_is_left_alone,
        console_access_leaves_with_the_resource,
        console_alone_makes_no_key,
        an_access_key_comes_and_goes_beside_the_console,
        a_key_under_way_is_given_up_when_it_is_not_declared_any_more,
    }
    failures: {
        a_failed_read_is_told_and_never_leads_to_a_write,
        a_throttled_read_slows_down_and_never_leads_to_a_write,
        a_failed_first_question_holds_everything_up,
        a_name_whose_owner_cannot_be_told_is_nobodys_to_take,
        a_key_whose_last_use_cannot_be_told_makes_no_room,
        a_deletion_that_cannot_see_what_is_left_takes_nothing_more,
        a_refused_write_is_told_under_its_reason,
        a_conflict_that_stays_is_told_and_not_hammered,
        a_silent_aws_is_given_up_in_time_and_nothing_is_guessed,
        a_status_that_cannot_be_written_is_no_reason_to_hurry,
    }
    restart: {
        a_new_key_restarts_its_workloads_once_and_the_old_key_waits_for_them,
        a_workload_is_restarted_once_also_by_a_crash_and_by_a_second_leader,
        what_cannot_be_restarted_is_told_and_holds_up_no_key_and_no_other_workload,
        a_rollout_that_hangs_keeps_the_old_key_no_longer_than_is_allowed,
        the_operator_changes_nothing_of_a_workload_but_its_own_annotation,
    }
    restore: {
        a_restored_resource_goes_on_with_its_user_once_that_is_handed_over,
    }
    upgrade: {
        a_key_that_an_older_operator_left_in_its_journal_is_published,
        a_key_whose_answer_an_older_operator_lost_is_deleted_and_another_one_made,
        a_key_that_an_older_operator_gave_up_is_deleted_and_another_one_made,
    }
    observed: {
        metrics_follow_a_resource_from_its_first_key_to_its_end,
        throttled_calls_are_counted,
        metrics_are_for_those_who_may_read_them_where_that_is_asked_for,
        the_endpoints_speak_tls_and_follow_their_certificate,
        every_line_of_a_json_log_names_its_pass,
    }
    traces: {
        a_first_creation_is_a_tree_of_spans_and_no_call_is_missing,
        a_collector_that_is_away_costs_no_pass_anything,
        a_collector_is_believed_by_the_authority_that_is_named_and_by_no_other,
    }
    cost: { calls_to_aws_are_counted, a_user_read_by_itself_takes_five_reads_and_no_write }
    adapter: {
        a_lost_answer_causes_no_second_create,
        an_answer_of_500_causes_no_second_create,
        lists_are_read_page_by_page,
        documents_are_decoded,
        errors_are_told_apart,
        a_silent_aws_is_given_up_in_time,
    }
};

/// Claims about all the others together: they run when every one of those has run and held.
const CLOSING: &[Claim] = claims! {
    least_rights: { the_policy_allows_what_was_seen_and_nothing_else }
};

fn trials(claims: &[Claim]) -> Vec<Trial> {
    claims.iter().map(|&(name, claim)| Trial::test(name, claim)).collect()
}

fn main() -> ExitCode {
    if let Some(code) = formats::sdk() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // The tests wait more than they compute; one a core would leave the machine idle.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(&[CLAIMS, CLOSING].concat())).exit_code();
    }
    let mut conclusion = libtest_mimic::run(&arguments, trials(CLAIMS));
    if conclusion.num_passed == u64::try_from(CLAIMS.len()).unwrap_or(u64::MAX) {
        conclusion = libtest_mimic::run(&arguments, trials(CLOSING));
    }
    stage::stop();
    conclusion.exit_code()
}
