//! The 38 scenarios that an operator of this kind must live through, and what shows that it does.
//!
//! Some are played here, step by step; some are claims of the other test program, run once more; for some the sweep over
//! all calls is the proof, for some a test of a pure function. Every name in the list is checked to exist.

mod cluster;
mod edits;
mod failover;
mod journal;
mod network;

use std::{fs, path::Path};

use awsdeploy_testkit::{auditor::Auditor, kube_proxy::KubeProxy};
use serde_json::{Value, json};

use crate::{
    cell,
    operation::{RECOVERY, settled},
    test_env::{self, TestEnv},
    tests::{bad_input, crash, iam, leader, lifecycle, ownership, quarantine, rotation, rotation_timing},
};

/// A run of its own: its name, and what to do. It fails by a panic.
pub(crate) type Run = (&'static str, fn());

/// One of the 38.
pub(crate) struct Scenario {
    /// Its number in the list.
    pub(crate) number: u32,
    /// What happens, and what must come of it.
    pub(crate) title: &'static str,
    /// Runs of its own.
    pub(crate) runs: &'static [Run],
    /// Cells of the sweep that show it: parts of their names.
    pub(crate) cells: &'static [&'static str],
    /// Tests of pure functions that show it: file and name.
    pub(crate) units: &'static [(&'static str, &'static str)],
    /// It breaks the control plane for all others, so it comes last and alone.
    pub(crate) alone: bool,
}

macro_rules! runs {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), || test_env::block_on($module::$name()))),*]
    };
}

const fn scenario(number: u32, title: &'static str, runs: &'static [Run]) -> Scenario {
    Scenario { number, title, runs, cells: &[], units: &[], alone: false }
}

const SCHEDULE: &str = "src/domain/schedule.rs";
const WINDOW: &str = "src/domain/window.rs";
const ROTATION: &str = "src/domain/plan/tests/rotation.rs";

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        cells: &["/kill-before", "/kill-after", "/lost-reply"],
        ..scenario(1, "killed before and after every write, and the answer of every write lost", &[])
    },
    Scenario {
        cells: &["aws:CreateAccessKey:1/lost-reply", "profile/aws-html-500", "profile/aws-create-loses-two-answers"],
        ..scenario(
            2,
            "a key is made and its answer lost: one orphan, which goes; never a second call",
            runs![crash::lost_create_key_response_leaves_no_orphan],
        )
    },
    Scenario {
        cells: &["profile/kube-409", "profile/kube-504-after-commit"],
        ..scenario(3, "a write to a Secret meets a conflict, real or its own", &[])
    },
    scenario(
        4,
        "a restart is served an old resource: no key is made or deleted for it",
        runs![network::stale_resource_after_restart_creates_no_key],
    ),
    Scenario {
        cells: &["profile/kube-frozen-watch", "profile/kube-cut-watch"],
        ..scenario(5, "a change of the resource is missed: the resync finds it", &[])
    },
    scenario(
        6,
        "two leaders at once: no key is lost, nobody is cut off",
        runs![leader::two_leaders_lose_no_key_and_interrupt_no_consumer],
    ),
    scenario(
        7,
        "a leader stopped right before it makes a key, and woken after another has finished",
        runs![failover::late_create_of_a_paused_leader_is_undone],
    ),
    Scenario {
        cells: &["profile/aws-clock-ahead", "profile/aws-clock-behind"],
        ..scenario(8, "clocks ten minutes apart", &[])
    },
    scenario(
        9,
        "the API server is away while a key is in hand: no second key, readiness stays",
        runs![network::unavailable_api_server_causes_no_second_key],
    ),
    Scenario {
        cells: &["profile/aws-away"],
        ..scenario(
            10,
            "AWS is away: the Secret is not touched, Ready stays as it was",
            runs![bad_input::unreachable_aws_does_not_change_ready],
        )
    },
    Scenario {
        cells: &["profile/aws-throttles-once"],
        ..scenario(
            11,
            "every second call is throttled: slower, and still done",
            runs![network::rotation_completes_with_half_of_calls_throttled],
        )
    },
    Scenario {
        cells: &["profile/aws-new-keys-late"],
        ..scenario(
            12,
            "AWS does not accept a new key yet, or never",
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
            "reads do not show a new user or key yet, or still show a deleted one",
            runs![network::user_deleted_before_iam_lists_it_is_removed],
        )
    },
    scenario(
        14,
        "the user is deleted in AWS: it comes back, with a new key",
        runs![lifecycle::user_deleted_manually_is_recreated_with_a_new_key],
    ),
    Scenario {
        cells: &["dead-key/"],
        ..scenario(
            15,
            "the published key is deleted or deactivated in AWS: another one at once",
            runs![rotation::key_deleted_in_aws_is_replaced],
        )
    },
    scenario(
        16,
        "a person adds a key: reported, never touched, also when it takes the slot",
        runs![rotation::foreign_key_is_reported_and_not_touched],
    ),
    Scenario {
        cells: &["deleted-secret/"],
        ..scenario(
            17,
            "the Secret is deleted: a new key, and the old one keeps its overlap",
            runs![rotation::deleted_secret_is_recreated_with_a_new_key],
        )
    },
    Scenario {
        cells: &["edited-secret/", "lost-file/"],
        ..scenario(
            18,
            "the Secret is edited: a new key where the value is lost, else none",
            runs![rotation::edited_secret_gets_a_new_key_and_lost_file_does_not],
        )
    },
    scenario(
        19,
        "the Secret is made immutable: said, no key burnt, mended when it goes",
        runs![edits::immutable_secret_creates_no_keys],
    ),
    scenario(
        20,
        "deleted and made again under the same name while the first still goes",
        runs![edits::recreation_during_deletion_gets_a_new_user],
    ),
    scenario(
        21,
        "two resources claim one user: the first keeps it",
        runs![ownership::first_of_two_claims_keeps_the_user, ownership::foreign_user_is_refused_without_a_write,],
    ),
    scenario(
        22,
        "two resources claim one Secret: the second makes no key",
        runs![edits::second_claim_on_a_secret_creates_no_key, ownership::foreign_secret_is_refused_before_any_creation,],
    ),
    scenario(
        23,
        "the namespace is deleted: user and keys go, the namespace does not hang",
        runs![cluster::namespace_deletion_deletes_its_users],
    ),
    scenario(
        24,
        "the operator is away when a resource is deleted: done when it is back",
        runs![cluster::deletion_waits_for_the_operator],
    ),
    Scenario {
        alone: true,
        ..scenario(
            25,
            "the CRD is deleted: all users go, the operator lives",
            runs![cluster::crd_deletion_deletes_all_users],
        )
    },
    scenario(
        26,
        "etcd is put back to an old backup: the Secret holds a key that is gone",
        runs![cluster::restored_etcd_backup_gets_a_new_key],
    ),
    scenario(
        27,
        "the cluster is cloned: the copy, with an id of its own, touches nothing",
        runs![cluster::cloned_cluster_with_its_own_id_writes_nothing],
    ),
    scenario(28, "the spec is edited in the middle of a rotation", runs![edits::spec_edit_during_rotation_is_applied]),
    scenario(
        29,
        "a policy is malformed, unknown, or one too many: said, and nothing spins",
        runs![
            bad_input::malformed_document_error_quotes_aws,
            bad_input::unknown_policy_is_named,
            bad_input::too_many_policies_are_refused_with_the_limit,
        ],
    ),
    scenario(
        30,
        "the second of three policies cannot be attached: no key before all are",
        runs![edits::no_key_is_created_before_all_policies],
    ),
    Scenario {
        units: &[(SCHEDULE, "rotations_due_in_the_same_minute_are_spread")],
        ..scenario(
            31,
            "many resources at the start: nothing is written",
            runs![cluster::restart_with_many_resources_writes_nothing],
        )
    },
    Scenario {
        units: &[
            (SCHEDULE, "daylight_saving_changes_cause_exactly_one_rotation"),
            (SCHEDULE, "missed_cron_times_cause_one_rotation"),
            (WINDOW, "window_in_a_skipped_hour_opens_for_its_full_length"),
            (WINDOW, "begin_is_stable_until_its_time_has_passed"),
            (ROTATION, "clock_that_was_ahead_delays_no_key"),
        ],
        ..scenario(32, "daylight saving and clocks that jump: once, and not twice", &[])
    },
    scenario(
        33,
        "an overlap longer than the interval is refused",
        runs![bad_input::invalid_schedule_error_states_what_is_allowed],
    ),
    scenario(
        34,
        "the old key is still used at the end of its overlap: held, told, and not for ever",
        runs![
            rotation_timing::previous_key_in_use_is_kept_and_reported_until_unused,
            rotation_timing::previous_key_in_use_is_kept_for_a_bounded_time,
            rotation_timing::unknown_last_use_keeps_the_key_for_a_bounded_time,
        ],
    ),
    scenario(
        35,
        "AWS quarantines a leaked key: the policy stays, it is said, and the keys are rotated or suspended as asked",
        runs![
            iam::quarantine_policies_are_never_detached,
            quarantine::alert_reports_quarantine_and_changes_nothing,
            quarantine::quarantine_rotates_once_without_overlap,
            quarantine::quarantine_suspends_until_the_policy_is_detached,
        ],
    ),
    scenario(
        36,
        "asked to stop with a key in hand: finished or undone in time",
        runs![failover::shutdown_with_a_staged_key_loses_nothing, leader::standby_takes_over_when_the_leader_stops,],
    ),
    scenario(
        37,
        "a journal of an unknown format: only the safe branch",
        runs![journal::unknown_journal_format_is_not_touched],
    ),
    scenario(
        38,
        "the right to write Secrets is taken away: no key is made, the others go on",
        runs![
            journal::no_key_is_created_without_secret_access,
            bad_input::missing_rbac_error_names_the_command_that_grants_it,
        ],
    ),
];

/// The name that picks this run: `scenario/07/crash::lost_create_key_response_leaves_no_orphan`.
pub(crate) fn name(number: u32, run: &str) -> String {
    format!("scenario/{number:02}/{run}")
}

/// Tests that the list names and the sources do not have. A list must not outlive what it lists.
pub(crate) fn missing_units() -> Vec<String> {
    let units = ALL.iter().flat_map(|scenario| scenario.units);
    let missing = units.filter(|(file, test)| {
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
        !source.contains(&format!("fn {test}("))
    });
    missing.map(|(file, test)| format!("{file} has no test {test}")).collect()
}

/// A test environment behind both proxies, with an auditor, and one user `u` with a published key.
struct Play {
    env: TestEnv,
    kube: KubeProxy,
    auditor: Auditor,
}

impl Play {
    async fn set() -> Self {
        let (env, kube, auditor) = cell::set().await;
        Self { env, kube, auditor }
    }

    async fn with_a_key() -> (Self, String) {
        let play = Self::set().await;
        play.env.apply("x", plain()).await;
        let key = settled(&play.env, "").await;
        (play, key)
    }

    async fn rotate(&self, request: &str) {
        self.env.annotate("x", "awsdeploy.dev/rotate", request).await;
    }

    fn keys_made(&self) -> usize {
        self.env.aws.log().calls_of("CreateAccessKey").iter().filter(|call| call.committed).count()
    }

    /// The verdict: a quiet look writes nothing, and every promise was kept.
    async fn holds(self, ambiguities: usize) {
        let mut violations = self.auditor.check_idle(RECOVERY).await;
        violations.extend(self.verdict(ambiguities).await);
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// The verdict where no resource is left to be quiet.
    async fn held(self, ambiguities: usize) {
        let violations = self.verdict(ambiguities).await;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    async fn verdict(self, ambiguities: usize) -> Vec<awsdeploy_testkit::auditor::Violation> {
        let evidence = [("the operator's log", self.env.log()), ("the traces", self.env.traces())];
        self.auditor.finish(ambiguities, &evidence).await.expect("the audit")
    }
}

fn plain() -> Value {
    json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]},
        "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})
}
