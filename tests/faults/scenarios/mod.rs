//! The 38 scenarios that an operator of this kind must survive, and the tests that prove it.
//!
//! Proofs are runs in this folder, tests of the `it` binary, cells of the fault matrix, and unit tests. Every name in
//! the list is checked to exist.

mod cluster;
mod edits;
mod failover;
mod journal;
mod network;

use std::{fs, path::Path};

use awsdeploy_testkit::{auditor::Auditor, files, kube_proxy::KubeProxy};
use serde_json::{Value, json};

use crate::{
    cell,
    operation::{RECOVERY, wait_settled},
    test_env::{self, TestEnv},
    tests::{bad_input, crash, iam, leader, lifecycle, ownership, quarantine, rotation, rotation_timing},
};

/// Name and function of a run. It fails by a panic.
pub(crate) type Run = (&'static str, fn());

pub(crate) struct Scenario {
    pub(crate) number: u32,
    /// The event and the required result.
    pub(crate) title: &'static str,
    pub(crate) runs: &'static [Run],
    /// Matrix cells that prove it, by parts of their names.
    pub(crate) cells: &'static [&'static str],
    /// Names of unit tests that prove it.
    pub(crate) unit_tests: &'static [&'static str],
    /// Whether it breaks the control plane for other runs, so that it must run last and alone.
    pub(crate) alone: bool,
}

macro_rules! runs {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), || test_env::block_on($module::$name()))),*]
    };
}

const fn scenario(number: u32, title: &'static str, runs: &'static [Run]) -> Scenario {
    Scenario { number, title, runs, cells: &[], unit_tests: &[], alone: false }
}

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        cells: &["/kill-before", "/kill-after", "/lost-reply"],
        ..scenario(1, "the operator is killed before and after every write, and every response is lost", &[])
    },
    Scenario {
        cells: &["aws:CreateAccessKey:1/lost-reply", "profile/aws-html-500", "profile/aws-create-loses-responses"],
        ..scenario(
            2,
            "the response of CreateAccessKey is lost: one orphan, which is deleted; no retry",
            runs![crash::lost_create_key_response_leaves_no_orphan],
        )
    },
    Scenario {
        cells: &["profile/kube-409", "profile/kube-504-after-commit"],
        ..scenario(3, "a write to a Secret conflicts, with another writer or with itself", &[])
    },
    scenario(
        4,
        "a restarted operator lists a stale resource: no key is created or deleted",
        runs![network::stale_resource_after_restart_creates_no_key],
    ),
    Scenario {
        cells: &["profile/kube-frozen-watch", "profile/kube-cut-watch"],
        ..scenario(5, "a change of the resource is missed: the resync finds it", &[])
    },
    scenario(
        6,
        "two leaders at once: no key is lost, no consumer is interrupted",
        runs![leader::two_leaders_lose_no_key_and_interrupt_no_consumer],
    ),
    scenario(
        7,
        "a leader is paused before CreateAccessKey and resumes after another has finished",
        runs![failover::late_create_of_a_paused_leader_is_undone],
    ),
    Scenario {
        cells: &["profile/aws-clock-ahead", "profile/aws-clock-behind"],
        ..scenario(8, "the clocks differ by ten minutes", &[])
    },
    scenario(
        9,
        "the API server is unavailable with a staged key: no second key, the operator stays ready",
        runs![network::unavailable_api_server_causes_no_second_key],
    ),
    Scenario {
        cells: &["profile/aws-unavailable"],
        ..scenario(
            10,
            "AWS is unavailable: the Secret and Ready do not change",
            runs![bad_input::unreachable_aws_does_not_change_ready],
        )
    },
    Scenario {
        cells: &["profile/aws-throttles-once"],
        ..scenario(
            11,
            "every second call is throttled: the rotation is slower and completes",
            runs![network::rotation_completes_with_half_of_calls_throttled],
        )
    },
    Scenario {
        cells: &["profile/aws-new-keys-late"],
        ..scenario(
            12,
            "AWS accepts a new key late or never",
            runs![
                rotation::key_is_published_only_after_aws_accepts_it,
                rotation::key_that_aws_never_accepts_is_abandoned,
            ],
        )
    },
    Scenario {
        cells: &["profile/aws-lists-lag", "profile/aws-stale-reads", "profile/aws-old-keys-linger"],
        ..scenario(
            13,
            "reads omit a new user or key, or return a deleted one",
            runs![network::user_deleted_before_iam_lists_it_is_removed],
        )
    },
    scenario(
        14,
        "the user is deleted in AWS: it is recreated with a new key",
        runs![lifecycle::user_deleted_manually_is_recreated_with_a_new_key],
    ),
    Scenario {
        cells: &["deleted-key/"],
        ..scenario(
            15,
            "the published key is deleted or deactivated in AWS: it is replaced at once",
            runs![rotation::key_deleted_in_aws_is_replaced],
        )
    },
    scenario(
        16,
        "a key is added manually: reported and never touched, even if it takes the slot",
        runs![rotation::foreign_key_is_reported_and_not_touched],
    ),
    Scenario {
        cells: &["deleted-secret/"],
        ..scenario(
            17,
            "the Secret is deleted: a new key, and the previous one keeps its overlap",
            runs![rotation::deleted_secret_is_recreated_with_a_new_key],
        )
    },
    Scenario {
        cells: &["edited-secret/", "missing-file/"],
        ..scenario(
            18,
            "the Secret is edited: a new key only if the secret is lost",
            runs![rotation::edited_secret_gets_a_new_key_and_lost_file_does_not],
        )
    },
    scenario(
        19,
        "the Secret is immutable: reported, no key created, resolved when it is deleted",
        runs![edits::immutable_secret_creates_no_keys],
    ),
    scenario(
        20,
        "a resource is recreated under its name during its deletion",
        runs![edits::recreation_during_deletion_gets_a_new_user],
    ),
    scenario(
        21,
        "two resources claim one user: the first keeps it",
        runs![ownership::first_of_two_claims_keeps_the_user, ownership::foreign_user_is_refused_without_a_write,],
    ),
    scenario(
        22,
        "two resources claim one Secret: no key is created for the second",
        runs![edits::second_claim_on_a_secret_creates_no_key, ownership::foreign_secret_is_refused_before_any_creation,],
    ),
    scenario(
        23,
        "the namespace is deleted: user and keys are deleted, the namespace does not hang",
        runs![cluster::namespace_deletion_deletes_its_users],
    ),
    scenario(
        24,
        "a resource is deleted while the operator is down: cleaned up after its restart",
        runs![cluster::deletion_waits_for_the_operator],
    ),
    Scenario {
        alone: true,
        ..scenario(
            25,
            "the CRD is deleted: all users are deleted, the operator keeps running",
            runs![cluster::crd_deletion_deletes_all_users],
        )
    },
    scenario(
        26,
        "etcd is restored from an old backup: the Secret holds a deleted key",
        runs![cluster::restored_etcd_backup_gets_a_new_key],
    ),
    scenario(
        27,
        "the cluster is cloned: the clone, with its own cluster id, writes nothing",
        runs![cluster::cloned_cluster_with_its_own_id_writes_nothing],
    ),
    scenario(28, "the spec is edited during a rotation", runs![edits::spec_edit_during_rotation_is_applied]),
    scenario(
        29,
        "a policy is malformed, unknown, or over the limit: reported, without a retry loop",
        runs![
            bad_input::malformed_document_error_quotes_aws,
            bad_input::unknown_policy_is_named,
            bad_input::too_many_policies_are_refused_with_the_limit,
        ],
    ),
    scenario(
        30,
        "the second of three policies cannot be attached: no key before all are attached",
        runs![edits::no_key_is_created_before_all_policies],
    ),
    Scenario {
        unit_tests: &["rotations_due_in_the_same_minute_are_spread"],
        ..scenario(
            31,
            "a restart with many resources: nothing is written",
            runs![cluster::restart_with_many_resources_writes_nothing],
        )
    },
    Scenario {
        unit_tests: &[
            "daylight_saving_changes_cause_exactly_one_rotation",
            "missed_cron_times_cause_one_rotation",
            "window_in_a_skipped_hour_opens_for_its_full_length",
            "begin_is_stable_until_its_time_has_passed",
            "clock_that_was_ahead_delays_no_key",
        ],
        ..scenario(32, "daylight saving and clock jumps: a rotation happens exactly once", &[])
    },
    scenario(
        33,
        "an overlap longer than the interval: refused",
        runs![bad_input::invalid_schedule_error_states_what_is_allowed],
    ),
    scenario(
        34,
        "the previous key is still used at the end of its overlap: kept and reported, for a bounded time",
        runs![
            rotation_timing::previous_key_in_use_is_kept_and_reported_until_unused,
            rotation_timing::previous_key_in_use_is_kept_for_a_bounded_time,
            rotation_timing::unknown_last_use_keeps_the_key_for_a_bounded_time,
        ],
    ),
    scenario(
        35,
        "AWS quarantines a leaked key: the policy is kept and reported, the keys are rotated or revoked by class",
        runs![
            iam::quarantine_policies_are_never_detached,
            quarantine::alert_reports_quarantine_and_changes_nothing,
            quarantine::quarantine_rotates_once_without_overlap,
            quarantine::quarantine_revokes_until_the_policy_is_detached,
        ],
    ),
    scenario(
        36,
        "shutdown with a staged key: completed or undone in time",
        runs![failover::shutdown_with_a_staged_key_loses_nothing, leader::standby_takes_over_when_the_leader_stops,],
    ),
    scenario(
        37,
        "a journal of an unknown format: only safe actions",
        runs![journal::unknown_journal_format_is_not_touched],
    ),
    scenario(
        38,
        "write access to Secrets is revoked: no key is created, other resources are not affected",
        runs![
            journal::no_key_is_created_without_secret_access,
            bad_input::missing_rbac_error_names_the_command_that_grants_it,
        ],
    ),
];

/// The name of a run as `ONLY` takes it: `scenario/02/crash::lost_create_key_response_leaves_no_orphan`.
pub(crate) fn name(number: u32, run: &str) -> String {
    format!("scenario/{number:02}/{run}")
}

/// Unit tests that are listed and do not exist below `src`.
pub(crate) fn missing_unit_tests() -> Vec<&'static str> {
    let sources: Vec<_> = files::with_extensions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &["rs"])
        .expect("the sources")
        .into_iter()
        .map(|file| fs::read_to_string(file).expect("a source file"))
        .collect();
    let exists = |test: &str| sources.iter().any(|source| source.contains(&format!("fn {test}(")));
    ALL.iter().flat_map(|scenario| scenario.unit_tests).copied().filter(|test| !exists(test)).collect()
}

/// A test environment behind both proxies, with an auditor.
struct Harness {
    env: TestEnv,
    kube: KubeProxy,
    auditor: Auditor,
}

impl Harness {
    async fn start() -> Self {
        let (env, kube, auditor) = cell::start_env().await;
        Self { env, kube, auditor }
    }

    async fn with_published_key() -> (Self, String) {
        let harness = Self::start().await;
        harness.env.apply("x", plain()).await;
        let key = wait_settled(&harness.env, "").await;
        (harness, key)
    }

    async fn rotate(&self, request: &str) {
        self.env.annotate("x", "awsdeploy.dev/rotate", request).await;
    }

    fn created_key_count(&self) -> usize {
        self.env.aws.log().calls_of("CreateAccessKey").iter().filter(|call| call.committed).count()
    }

    /// Asserts that the idle operator writes nothing and that every invariant holds.
    async fn assert_invariants_and_idle(self, ambiguities: usize) {
        let mut violations = self.auditor.check_idle(RECOVERY).await;
        violations.extend(self.violations(ambiguities).await);
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Asserts the invariants only, for scenarios that end without a resource.
    async fn assert_invariants(self, ambiguities: usize) {
        let violations = self.violations(ambiguities).await;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    async fn violations(self, ambiguities: usize) -> Vec<awsdeploy_testkit::auditor::Violation> {
        let evidence = [("the operator's log", self.env.log()), ("the traces", self.env.traces())];
        self.auditor.finish(ambiguities, &evidence).await.expect("the audit")
    }
}

fn plain() -> Value {
    json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]},
        "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})
}
