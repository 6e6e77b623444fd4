//! The 38 scenarios that an operator of this kind must live through, and what shows that it does.
//!
//! Some are played here, step by step; some are claims of the other test program, run once more; for some the sweep over
//! all calls is the proof, for some a test of a pure function. Every name in the list is checked to exist.

mod cluster;
mod journal;
mod leaders;
mod spec;
mod weather;

use std::{fs, path::Path};

use awsdeploy_testkit::{auditor::Auditor, kube_proxy::KubeProxy};
use serde_json::{Value, json};

use crate::{
    cell,
    claims::{bad_input, crash, iam, leader, lifecycle, ownership, quarantine, rotation, waiting},
    scenario::{RECOVERY, settled},
    stage::{self, Stage},
};

/// A run of its own: its name, and what to do. It fails by a panic.
pub(crate) type Run = (&'static str, fn());

/// One of the 38.
pub(crate) struct Story {
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
        &[$((concat!(stringify!($module), "::", stringify!($name)), || stage::block_on($module::$name()))),*]
    };
}

const fn story(number: u32, title: &'static str, runs: &'static [Run]) -> Story {
    Story { number, title, runs, cells: &[], units: &[], alone: false }
}

const SCHEDULE: &str = "src/domain/schedule.rs";
const WINDOW: &str = "src/domain/window.rs";
const ROTATION: &str = "src/domain/plan/tests/rotation.rs";

pub(crate) const ALL: &[Story] = &[
    Story {
        cells: &["/kill-before", "/kill-after", "/lost-reply"],
        ..story(1, "killed before and after every write, and the answer of every write lost", &[])
    },
    Story {
        cells: &["aws:CreateAccessKey:1/lost-reply", "weather/aws-html-500", "weather/aws-create-loses-two-answers"],
        ..story(
            2,
            "a key is made and its answer lost: one orphan, which goes; never a second call",
            runs![crash::a_lost_answer_of_create_leaves_no_key],
        )
    },
    Story {
        cells: &["weather/kube-409", "weather/kube-504-after-commit"],
        ..story(3, "a write to a Secret meets a conflict, real or its own", &[])
    },
    story(
        4,
        "a restart is served an old resource: no key is made or deleted for it",
        runs![weather::an_old_resource_after_a_restart_costs_no_key],
    ),
    Story {
        cells: &["weather/kube-frozen-watch", "weather/kube-cut-watch"],
        ..story(5, "a change of the resource is missed: the resync finds it", &[])
    },
    story(
        6,
        "two leaders at once: no key is lost, nobody is cut off",
        runs![leader::two_leaders_at_once_lose_no_key_and_cut_nobody_off],
    ),
    story(
        7,
        "a leader stopped right before it makes a key, and woken after another has finished",
        runs![leaders::a_late_create_is_undone],
    ),
    Story {
        cells: &["weather/aws-clock-ahead", "weather/aws-clock-behind"],
        ..story(8, "clocks ten minutes apart", &[])
    },
    story(
        9,
        "the API server is away while a key is in hand: no second key, readiness stays",
        runs![weather::an_api_server_that_is_away_costs_no_second_key],
    ),
    Story {
        cells: &["weather/aws-away"],
        ..story(
            10,
            "AWS is away: the Secret is not touched, Ready stays as it was",
            runs![bad_input::an_unreachable_aws_leaves_ready_as_it_was],
        )
    },
    Story {
        cells: &["weather/aws-throttles-once"],
        ..story(
            11,
            "every second call is throttled: slower, and still done",
            runs![weather::half_of_all_calls_throttled],
        )
    },
    Story {
        cells: &["weather/aws-new-keys-late"],
        ..story(
            12,
            "AWS does not accept a new key yet, or never",
            runs![
                rotation::a_key_is_published_only_when_aws_accepts_it,
                rotation::a_key_that_aws_never_accepts_is_given_up,
            ],
        )
    },
    Story {
        cells: &["weather/aws-lists-lag", "weather/aws-stale-reads", "weather/aws-old-keys-linger"],
        ..story(
            13,
            "reads do not show a new user or key yet, or still show a deleted one",
            runs![weather::a_user_deleted_before_iam_shows_it_does_not_stay],
        )
    },
    story(
        14,
        "the user is deleted in AWS: it comes back, with a new key",
        runs![lifecycle::a_user_deleted_by_hand_comes_back_with_a_new_key],
    ),
    Story {
        cells: &["dead-key/"],
        ..story(
            15,
            "the published key is deleted or deactivated in AWS: another one at once",
            runs![rotation::a_key_deleted_in_aws_is_replaced],
        )
    },
    story(
        16,
        "a person adds a key: reported, never touched, also when it takes the slot",
        runs![rotation::a_foreign_key_is_reported_and_left_alone],
    ),
    Story {
        cells: &["deleted-secret/"],
        ..story(
            17,
            "the Secret is deleted: a new key, and the old one keeps its overlap",
            runs![rotation::a_deleted_secret_comes_back_with_a_new_key],
        )
    },
    Story {
        cells: &["edited-secret/", "lost-file/"],
        ..story(
            18,
            "the Secret is edited: a new key where the value is lost, else none",
            runs![rotation::an_edited_secret_gets_a_new_key_and_a_lost_file_does_not],
        )
    },
    story(
        19,
        "the Secret is made immutable: said, no key burnt, mended when it goes",
        runs![spec::an_immutable_secret_burns_no_keys],
    ),
    story(
        20,
        "deleted and made again under the same name while the first still goes",
        runs![spec::made_again_while_it_goes],
    ),
    story(
        21,
        "two resources claim one user: the first keeps it",
        runs![ownership::the_first_of_two_claims_keeps_the_user, ownership::a_foreign_user_is_refused_without_a_write,],
    ),
    story(
        22,
        "two resources claim one Secret: the second makes no key",
        runs![spec::two_claims_on_one_secret, ownership::a_foreign_secret_is_refused_before_anything_is_made,],
    ),
    story(
        23,
        "the namespace is deleted: user and keys go, the namespace does not hang",
        runs![cluster::a_namespace_goes_with_its_users],
    ),
    story(
        24,
        "the operator is away when a resource is deleted: done when it is back",
        runs![cluster::a_deletion_waits_for_the_operator],
    ),
    Story {
        alone: true,
        ..story(25, "the CRD is deleted: all users go, the operator lives", runs![cluster::the_crd_is_deleted])
    },
    story(
        26,
        "etcd is put back to an old backup: the Secret holds a key that is gone",
        runs![cluster::an_old_backup_is_put_back],
    ),
    story(
        27,
        "the cluster is cloned: the copy, with an id of its own, touches nothing",
        runs![cluster::a_clone_with_its_own_id_touches_nothing],
    ),
    story(28, "the spec is edited in the middle of a rotation", runs![spec::edited_in_the_middle_of_a_rotation]),
    story(
        29,
        "a policy is malformed, unknown, or one too many: said, and nothing spins",
        runs![
            bad_input::a_malformed_document_keeps_the_words_of_aws,
            bad_input::an_unknown_policy_is_named,
            bad_input::too_many_policies_are_refused_with_the_number,
        ],
    ),
    story(
        30,
        "the second of three policies cannot be attached: no key before all are",
        runs![spec::no_key_before_all_policies],
    ),
    Story {
        units: &[(SCHEDULE, "five_thousand_users_due_in_the_same_minute_do_not_start_together")],
        ..story(
            31,
            "many resources at the start: nothing is written",
            runs![cluster::a_restart_with_many_writes_nothing],
        )
    },
    Story {
        units: &[
            (SCHEDULE, "an_hour_that_daylight_saving_skips_still_rotates_once_and_a_doubled_hour_once"),
            (SCHEDULE, "missed_cron_times_count_as_one"),
            (WINDOW, "a_window_in_the_hour_that_daylight_saving_skips_opens_and_lasts_as_long_as_ever"),
            (WINDOW, "the_answer_stays_until_its_time_has_come_whatever_the_clock_does"),
            (ROTATION, "a_clock_that_was_ahead_holds_no_key_back"),
        ],
        ..story(32, "daylight saving and clocks that jump: once, and not twice", &[])
    },
    story(33, "an overlap longer than the interval is refused", runs![bad_input::a_bad_schedule_says_what_is_allowed]),
    story(
        34,
        "the old key is still used at the end of its overlap: held, told, and not for ever",
        runs![
            waiting::an_old_key_in_use_is_held_and_told_until_it_is_quiet,
            waiting::an_old_key_in_use_is_not_held_for_ever,
            waiting::a_last_use_that_aws_does_not_tell_is_neither_unused_nor_for_ever,
        ],
    ),
    story(
        35,
        "AWS quarantines a leaked key: the policy stays, it is said, and the keys are rotated or suspended as asked",
        runs![
            iam::quarantine_policies_are_never_detached,
            quarantine::an_alert_is_told_and_changes_nothing,
            quarantine::a_quarantined_user_gets_a_new_key_once_and_the_bad_ones_go_without_overlap,
            quarantine::a_quarantined_user_is_suspended_until_the_policy_is_detached,
        ],
    ),
    story(
        36,
        "asked to stop with a key in hand: finished or undone in time",
        runs![leaders::asked_to_stop_with_a_key_in_hand, leader::one_of_two_leads_and_the_other_takes_over,],
    ),
    story(37, "a journal of an unknown format: only the safe branch", runs![journal::an_unknown_format_is_left_alone]),
    story(
        38,
        "the right to write Secrets is taken away: no key is made, the others go on",
        runs![
            journal::without_the_right_to_write_no_key_is_made,
            bad_input::missing_rights_name_the_command_that_grants_them,
        ],
    ),
];

/// The name that picks this run: `story/07/crash::a_lost_answer_of_create_leaves_no_key`.
pub(crate) fn name(number: u32, run: &str) -> String {
    format!("story/{number:02}/{run}")
}

/// Tests that the list names and the sources do not have. A list must not outlive what it lists.
pub(crate) fn missing_units() -> Vec<String> {
    let units = ALL.iter().flat_map(|story| story.units);
    let missing = units.filter(|(file, test)| {
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
        !source.contains(&format!("fn {test}("))
    });
    missing.map(|(file, test)| format!("{file} has no test {test}")).collect()
}

/// A stage behind both proxies, with an auditor, and one user `u` with a published key.
struct Play {
    stage: Stage,
    kube: KubeProxy,
    auditor: Auditor,
}

impl Play {
    async fn set() -> Self {
        let (stage, kube, auditor) = cell::set().await;
        Self { stage, kube, auditor }
    }

    async fn with_a_key() -> (Self, String) {
        let play = Self::set().await;
        play.stage.apply("x", plain()).await;
        let key = settled(&play.stage, "").await;
        (play, key)
    }

    async fn rotate(&self, request: &str) {
        self.stage.annotate("x", "awsdeploy.dev/rotate", request).await;
    }

    fn keys_made(&self) -> usize {
        self.stage.aws.log().calls_of("CreateAccessKey").iter().filter(|call| call.committed).count()
    }

    /// The verdict: a quiet look writes nothing, and every promise was kept.
    async fn holds(self, ambiguities: usize) {
        let mut violations = self.auditor.quiet(RECOVERY).await;
        violations.extend(self.verdict(ambiguities).await);
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// The verdict where no resource is left to be quiet.
    async fn held(self, ambiguities: usize) {
        let violations = self.verdict(ambiguities).await;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    async fn verdict(self, ambiguities: usize) -> Vec<awsdeploy_testkit::auditor::Violation> {
        let evidence = [("the operator's log", self.stage.log()), ("the traces", self.stage.traces())];
        self.auditor.finish(ambiguities, &evidence).await.expect("the audit")
    }
}

fn plain() -> Value {
    json!({"userName": "u", "policies": {"managed": ["AmazonEC2FullAccess"]},
        "accessKey": {"rotation": {"every": "Never", "overlap": "1s"}}})
}
