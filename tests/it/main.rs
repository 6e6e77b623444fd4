//! Integration tests: a real API server, an emulated AWS, and the operator as a process with the RBAC of the chart.
//!
//! All tests share one control plane; each has its own namespace, AWS account and operator. The first test that needs
//! the control plane starts it, and it is stopped after the last one, also when tests fail.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a test fails by a panic, waits in real time, and its futures run one at a time"
)]

mod account_details;
mod accounts;
mod adapter;
mod admission;
mod adoption;
mod answers;
mod apply;
mod architecture;
mod back_off;
mod bad_input;
mod call_costs;
mod class;
mod console;
mod crash;
mod crd;
mod creation;
mod documents;
mod failures;
mod formats;
mod handover;
mod iam;
mod journals;
mod leader;
mod least_privilege;
mod lifecycle;
mod observability;
mod operator_permissions;
mod ownership;
mod presets;
mod quarantine;
mod repeated_apply;
mod restore;
mod rotation;
mod rotation_timing;
#[path = "../test_env/mod.rs"]
mod test_env;
mod tools;
mod traces;
mod upgrade;
mod waiting;
mod workload_restart;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use test_env::{Test, tests, trials};

const TESTS: &[Test] = tests! {
    architecture: { imports_follow_the_layers, generated_files_are_up_to_date,
        image_build_context_includes_every_workspace_member,
        runbook_documents_every_reason,
        operator_accepts_the_chart_arguments, documented_iam_policy_matches_the_printed_one,
        secrets_are_read_by_namespace_only, threat_model_names_existing_tests,
        documented_fault_cells_are_those_of_the_scenarios,
        prose_avoids_banned_words, retired_names_are_not_used, type_names_are_unique, test_names_are_short }
    crd: { every_crd_field_has_a_description, tenant_spec_has_no_namespace_or_address_field,
        schema_errors_state_the_allowed_values, name_of_the_secret_is_immutable, printer_columns_are_as_documented }
    apply: { every_tool_creates_edits_and_removes_fields, kubectl_finds_what_tests_applied_unchanged }
    repeated_apply: { examples_applied_again_change_nothing }
    creation: {
        one_manifest_creates_user_policy_key_and_secret,
        defang_guide_is_one_manifest,
        first_creation_costs_four_writes_and_one_read,
        operator_restart_writes_nothing_and_stays_ready,
    }
    rotation: {
        consumer_is_never_refused_during_rotations,
        previous_key_is_deactivated_then_deleted_after_overlap,
        cron_schedule_rotates_keys,
        new_annotation_value_rotates_once,
        key_is_published_only_after_aws_accepts_it,
        key_that_aws_never_accepts_is_abandoned,
        deleted_secret_is_recreated_with_a_new_key,
        edited_secret_gets_a_new_key_and_lost_file_does_not,
        key_deleted_in_aws_is_replaced,
        foreign_key_is_reported_and_not_touched,
    }
    formats: {
        every_format_is_readable_by_its_consumer,
        credential_process_picks_up_a_new_key,
        changed_format_is_written_with_the_same_key,
        invalid_template_creates_no_key,
    }
    rotation_timing: {
        previous_key_in_use_is_kept_and_reported_until_unused,
        previous_key_in_use_is_kept_for_a_bounded_time,
        used_key_is_reported_a_day_before_its_end,
        rotation_without_hold_does_not_read_last_use,
        unknown_last_use_keeps_the_key_for_a_bounded_time,
        scheduled_rotation_starts_only_inside_its_window,
        operator_restart_keeps_the_back_off,
    }
    handover: {
        confirmed_key_ends_the_previous_one_at_once,
        unconfirmed_key_is_kept_for_a_bounded_time,
        unconfirmed_key_is_reported_a_day_before_its_end,
        handover_agent_may_only_confirm,
    }
    quarantine: {
        alert_reports_quarantine_and_changes_nothing,
        quarantine_rotates_once_without_overlap,
        quarantine_revokes_until_the_policy_is_detached,
        quarantine_of_a_denied_user_follows_its_class,
    }
    iam: {
        policy_change_is_applied_in_aws,
        drift_is_corrected_and_reported,
        tags_follow_the_manifest,
        tags_end_as_last_edited_despite_conflicts,
        quarantine_policies_are_never_detached,
        groups_are_exactly_the_declared_ones,
        missing_group_is_named,
        boundary_is_set_on_creation_and_kept,
        no_user_is_created_without_its_boundary,
    }
    documents: {
        managed_document_costs_two_calls,
        quiet_managed_document_costs_no_call,
        document_of_6000_characters_becomes_ready,
        edits_make_versions_and_keep_the_replaced_one,
        versions_by_hand_are_corrected_and_kept,
        five_versions_by_hand_are_named,
        removed_document_leaves_nothing_in_aws,
        policy_that_others_have_is_never_taken_from_them,
        policy_of_another_owner_is_not_changed,
        document_changes_its_place_without_a_gap,
        lost_replies_make_no_second_policy_or_version,
        deletion_and_retention_include_the_policies,
        policies_keep_their_path_in_another_class,
        document_renamed_in_case_only_is_replaced,
        revoked_user_loses_its_policies_and_gets_them_back,
        unreadable_policies_stop_neither_rotation_nor_revocation,
        unreadable_policies_are_not_forgotten_by_a_deletion,
        outdated_list_of_policies_revokes_nothing,
    }
    ownership: {
        foreign_user_is_refused_without_a_write,
        foreign_secret_is_refused_before_any_creation,
        first_of_two_claims_keeps_the_user,
        operator_writes_only_its_own_metadata,
    }
    account_details: {
        unchanged_users_share_one_read,
        denied_users_cost_no_more_reads_than_others,
        drift_in_account_details_is_confirmed_by_a_live_read,
        stale_account_details_revert_nothing,
        start_reads_all_users_once_and_spreads_key_lists,
        key_deleted_while_the_operator_is_down_is_noticed,
        user_recreated_manually_is_not_served_from_the_cache,
        denied_account_details_fall_back_to_reads_per_user,
        throttled_account_details_stop_no_repair,
        start_without_aws_causes_no_later_burst_of_reads,
    }
    adoption: {
        user_is_adopted_with_consent_of_both_sides,
        adoption_without_valid_consent_writes_nothing,
        adoption_needs_permission_of_the_class,
        adopted_user_with_two_keys_waits_for_a_free_slot,
        crash_during_adoption_does_no_harm,
        adopted_user_is_deleted_or_retained_like_any_other,
    }
    lifecycle: {
        revoked_credentials_end_in_one_reconcile,
        active_credentials_are_a_new_key_after_a_revocation,
        deletion_removes_everything_in_six_calls,
        retain_keeps_user_and_secret, retained_secret_survives_a_foreground_deletion,
        foreign_key_blocks_deletion_until_forced,
        deletion_removes_everything_attached_to_the_user,
        user_deleted_manually_is_recreated_with_a_new_key,
    }
    waiting: {
        unobserved_object_is_in_progress_whatever_made_it,
        wait_ends_with_the_message_of_a_terminal_error,
        terminal_error_stalls_whatever_else_is_scheduled,
        paused_resource_changes_nothing_and_loses_old_keys,
        credentials_of_a_paused_resource_can_be_revoked,
    }
    tools: {
        documented_wait_commands_work,
        helm_waits_for_the_operator,
        helm_reports_a_terminal_error_at_once,
        doctor_waits_until_the_operator_leads,
        doctor_names_what_is_missing_and_fails,
    }
    crash: {
        kill_between_create_and_journal_leaves_no_orphan,
        lost_create_key_response_leaves_no_orphan,
        kill_after_journal_write_publishes_the_same_key,
        user_of_a_lost_create_response_is_owned,
    }
    leader: { standby_takes_over_when_the_leader_stops, two_leaders_lose_no_key_and_interrupt_no_consumer }
    journals: {
        forged_journal_of_a_tenant_is_not_read,
        journal_names_its_resource_and_needs_no_owner,
        stale_journal_is_deleted_and_a_live_one_is_kept,
        second_installation_changes_nothing_until_released,
        second_installation_takes_credentials_away,
    }
    bad_input: {
        unknown_policy_is_named,
        malformed_document_error_quotes_aws,
        invalid_document_is_refused_without_aws_calls,
        policy_warning_is_reported_once_per_change,
        too_many_policies_are_refused_with_the_limit,
        invalid_schedule_error_states_what_is_allowed,
        missing_rbac_error_names_the_command_that_grants_it,
        missing_credentials_are_reported_and_retried,
        unreachable_aws_does_not_change_ready,
        invalid_resource_does_not_block_others,
        credentials_of_an_invalid_spec_can_be_revoked,
    }
    answers: {
        refusal_by_a_proxy_leaves_no_foreign_key,
        new_user_that_iam_shows_late_gets_its_key,
        quota_that_counts_a_deleted_key_passes_soon,
        undone_key_that_iam_shows_late_is_deleted,
        key_that_iam_shows_late_is_still_set_inactive,
        deletion_that_conflicts_for_a_while_ends_soon,
        recreated_resource_takes_the_name_when_iam_lets_go,
        renamed_resource_takes_its_user_name_over,
        taken_name_is_terminal_where_users_cannot_be_listed,
        revocation_needs_no_access_to_secrets,
        unreadable_class_stops_no_revocation,
        replaced_class_revokes_nothing,
        policy_that_refuses_the_secret_is_named,
    }
    class: {
        nothing_is_allowed_without_a_class,
        class_sets_name_path_limits_tags_and_defaults,
        denied_spec_is_reported_without_aws_calls,
        tightened_class_freezes_the_user_and_keeps_its_key,
        namespace_without_its_label_loses_its_keys,
        deleted_class_deletes_its_users,
        class_deleted_before_iam_lists_its_user_leaves_no_key,
        denied_change_is_not_applied_and_revocation_works,
        user_over_the_class_quota_waits,
        user_of_another_class_waits_for_quota_too,
        account_other_than_the_class_account_is_not_written,
        changed_class_does_not_move_a_user,
        class_status_reports_account_users_and_credentials,
        class_of_another_operator_is_reported_once_it_is_outdated,
    }
    accounts: {
        users_of_a_role_share_its_account_and_session,
        role_of_a_class_is_mutable_and_its_account_is_not,
        caller_identity_decides_the_account_first,
        denied_role_reports_what_to_fix_and_recovers,
        unresponsive_account_does_not_block_others,
        revocation_reaches_an_account_that_no_class_serves,
        deletion_waits_for_a_role_in_its_account,
        user_of_an_interrupted_creation_is_found,
        class_of_another_account_cannot_take_over_a_user,
        session_refresh_is_shared_and_denied_one_is_dropped,
        operator_runs_with_web_identity_only,
        operator_runs_with_pod_identity_only,
    }
    admission: {
        admission_and_operator_agree_on_every_row,
        no_requester_gets_more_than_the_class_allows,
        denied_spec_is_refused_and_existing_one_can_be_deleted,
        admission_refuses_operator_writes_to_foreign_secrets,
        operator_writes_only_its_own_secrets_in_its_namespace,
        operator_secret_keeps_its_owner_and_its_label,
        operator_publishes_events_about_its_resources_only,
        tenant_cannot_write_the_records_of_the_operator,
    }
    presets: {
        cycle_preset_needs_ten_lines,
        defang_preset_needs_ten_lines,
        cdk_preset_needs_ten_lines,
        every_example_creates_its_user_and_secret,
    }
    operator_permissions: {
        printed_policy_suffices_for_the_users_of_its_classes,
        aws_refuses_a_resource_that_passed_every_other_check,
    }
    console: {
        console_user_gets_password_and_sign_in_instructions,
        password_of_a_lost_response_matches_the_secret,
        foreign_console_secret_is_not_touched,
        console_access_is_deleted_with_the_resource,
        console_only_user_gets_no_key,
        access_key_can_be_added_to_and_removed_from_a_console_user,
        staged_key_removed_from_the_spec_is_abandoned,
    }
    failures: {
        failed_read_is_reported_and_causes_no_write,
        throttled_read_backs_off_and_causes_no_write,
        failed_caller_identity_blocks_all_calls,
        user_with_unreadable_tags_is_not_claimed,
        key_with_unreadable_last_use_is_not_deleted,
        deletion_stops_when_remaining_objects_are_unreadable,
        denied_write_is_reported_with_its_reason,
        persistent_conflict_is_reported_and_backs_off,
        unresponsive_aws_times_out_and_nothing_is_assumed,
        failed_status_write_backs_off,
    }
    back_off: {
        invalid_spec_costs_one_reconcile_and_one_write,
        denied_read_waits_for_its_back_off,
        spec_that_turns_invalid_ends_earlier_retries,
        repeated_failure_is_written_once,
        user_of_another_owner_is_compared_at_the_resync,
        label_that_admission_changes_is_reported,
        secret_that_is_not_kept_is_written_once,
        used_up_secret_quota_costs_no_key,
        unanswered_status_write_ends_the_reconcile,
        written_status_ends_the_retry_of_its_conflict,
    }
    workload_restart: {
        previous_key_is_kept_until_workloads_restarted_once,
        crash_or_second_leader_restarts_no_workload_twice,
        failed_workload_restart_is_reported_and_blocks_nothing,
        stuck_rollout_keeps_the_previous_key_for_a_bounded_time,
        workload_restart_changes_only_its_annotation,
    }
    restore: {
        restored_resource_continues_with_its_retagged_user,
        restored_secret_is_deleted_before_the_user_is_transferred,
    }
    upgrade: {
        staged_key_of_an_older_version_is_published,
        orphan_of_an_older_version_is_deleted_and_replaced,
        abandoned_key_of_an_older_version_is_replaced,
    }
    observability: {
        metrics_follow_a_resource_until_its_deletion,
        throttled_calls_are_counted,
        metrics_require_authorization_if_configured,
        endpoints_serve_tls_and_reload_their_certificate,
        every_json_log_line_names_its_reconcile,
        operator_process_writes_no_core_dump,
        unparsable_kubeconfig_is_not_quoted,
    }
    traces: {
        creation_is_one_span_tree_with_every_call,
        unavailable_collector_delays_no_reconcile,
        collector_certificate_must_be_signed_by_configured_ca,
    }
    call_costs: { aws_calls_stay_within_budget, single_user_reconcile_costs_five_reads_and_no_write }
    adapter: {
        lost_response_causes_no_second_create,
        http_500_causes_no_second_create,
        user_missing_in_a_response_is_not_absent,
        lists_are_read_page_by_page,
        policy_documents_are_decoded,
        errors_are_classified,
        unresponsive_aws_times_out,
    }
};

/// Tests about all others together. They run only if every other test ran and passed.
const FINAL_TESTS: &[Test] = tests! {
    least_privilege: { printed_policy_allows_exactly_the_observed_actions }
};

fn main() -> ExitCode {
    if let Some(code) = formats::run_sdk_consumer() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Tests wait more than they compute; one thread per core would leave the machine idle.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(&[TESTS, FINAL_TESTS].concat())).exit_code();
    }
    let mut conclusion = libtest_mimic::run(&arguments, trials(TESTS));
    if conclusion.num_passed == u64::try_from(TESTS.len()).unwrap_or(u64::MAX) {
        conclusion = libtest_mimic::run(&arguments, trials(FINAL_TESTS));
    }
    test_env::stop();
    conclusion.exit_code()
}
