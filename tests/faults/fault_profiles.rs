//! Fault profiles: faults that hit every matching call for a while, not one call.

use std::time::Duration;

use awsdeploy_testkit::{
    aws_proxy::{AwsError, Rule},
    kube_proxy::{KubeProxy, KubeRule},
};
use jiff::SignedDuration;

use crate::test_env::TestEnv;

/// Staleness of IAM reads; below `--recovery-delay`, which must cover it.
pub(crate) const READ_LAG: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy)]
pub(crate) struct FaultProfile {
    pub(crate) name: &'static str,
    pub(crate) short: bool,
    start: fn(&TestEnv, &KubeProxy),
    /// How it is ended, if it does not end by its own count.
    end: Option<StopAction>,
    /// How many extra keys it may cause.
    pub(crate) ambiguities: usize,
}

#[derive(Clone, Copy)]
enum StopAction {
    ThawWatches,
    RestoreAws,
}

const fn profile(name: &'static str, ambiguities: usize, start: fn(&TestEnv, &KubeProxy)) -> FaultProfile {
    FaultProfile { name, short: false, start, end: None, ambiguities }
}

pub(crate) const ALL: &[FaultProfile] = &[
    FaultProfile {
        short: true,
        ..profile("aws-html-500", 0, |env, _| {
            env.aws.rules().add(Rule::on_mutating().first(2).html_500());
        })
    },
    profile("aws-drops-connection", 0, |env, _| {
        env.aws.rules().add(Rule::on_mutating().first(2).drop_connection());
    }),
    profile("aws-reads-fail", 0, |env, _| {
        let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
        // Reads of the operator only, so that the consumer's calls do not fail.
        let reads = [
            "GetUser",
            "ListAccessKeys",
            "ListAttachedUserPolicies",
            "ListUserPolicies",
            "GetAccountAuthorizationDetails",
        ];
        env.aws.rules().add(Rule::on_any_of(reads).first(2).respond_with(error));
    }),
    profile("aws-throttles-once", 0, |env, _| {
        env.aws.rules().add(Rule::on_mutating().first(1).throttle());
    }),
    profile("aws-create-loses-responses", 2, |env, _| {
        env.aws.rules().add(Rule::on("CreateAccessKey").first(2).after_commit().drop_connection());
    }),
    profile("aws-slow", 0, |env, _| {
        env.aws.rules().add(Rule::on_all().first(20).delay(Duration::from_millis(300)));
    }),
    profile("aws-lists-lag", 0, |env, _| {
        env.aws.rules().add(Rule::on("ListAccessKeys").hide_new_keys(READ_LAG));
    }),
    profile("aws-stale-reads", 0, |env, _| {
        env.aws.rules().add(Rule::on_reads().first(6).stale_read(READ_LAG));
    }),
    profile("aws-new-keys-late", 0, |env, _| {
        env.account.configure(|settings| settings.activation_delay = Duration::from_secs(2));
    }),
    profile("aws-old-keys-linger", 0, |env, _| {
        env.account.configure(|settings| settings.revocation_lag = Duration::from_secs(5));
    }),
    profile("aws-clock-ahead", 0, |env, _| {
        env.aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(10)));
    }),
    profile("aws-clock-behind", 0, |env, _| {
        env.aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(-10)));
    }),
    profile("aws-third-key", 0, |env, _| {
        env.aws.rules().add(Rule::on("CreateAccessKey").allow_third_key());
    }),
    FaultProfile { end: Some(StopAction::RestoreAws), ..profile("aws-unavailable", 0, |_, _| {}) },
    FaultProfile {
        short: true,
        ..profile("kube-503", 0, |_, kube| {
            kube.rules().add(KubeRule::on_mutating().first(2).respond_with(503, "ServiceUnavailable"));
        })
    },
    profile("kube-429", 0, |_, kube| {
        kube.rules().add(KubeRule::on_mutating().first(2).respond_with(429, "TooManyRequests"));
    }),
    profile("kube-409", 1, |_, kube| {
        kube.rules().add(KubeRule::on("update", "secrets").first(1).respond_with(409, "Conflict"));
    }),
    profile("kube-504-after-commit", 1, |_, kube| {
        kube.rules().add(KubeRule::on_resource("secrets").nth(3).after_commit().respond_with(504, "Timeout"));
        kube.rules().add(KubeRule::on_mutating().first(2).after_commit().respond_with(504, "Timeout"));
    }),
    profile("kube-slow", 0, |_, kube| {
        kube.rules().add(KubeRule::on_all().first(20).delay(Duration::from_millis(300)));
    }),
    profile("kube-stale-secrets", 1, |_, kube| {
        kube.rules().add(KubeRule::on("get", "secrets").first(4).stale_read());
    }),
    profile("kube-secrets-unreadable", 0, |_, kube| {
        kube.rules().add(KubeRule::on("get", "secrets").first(2).respond_with(500, "InternalError"));
    }),
    FaultProfile {
        end: Some(StopAction::ThawWatches),
        ..profile("kube-frozen-watch", 0, |_, kube| kube.stall_watches())
    },
    FaultProfile { short: true, ..profile("kube-cut-watch", 0, |_, kube| kube.expire_watches()) },
    profile("kube-status-lost", 0, |_, kube| {
        kube.rules().add(KubeRule::on_resource("awsdeployusers/status").first(3).after_commit().drop_connection());
    }),
];

/// Duration of a profile that `stop` ends.
const OUTAGE_DURATION: Duration = Duration::from_secs(3);

impl FaultProfile {
    pub(crate) async fn start(&self, env: &TestEnv, kube: &KubeProxy) {
        (self.start)(env, kube);
        if matches!(self.end, Some(StopAction::RestoreAws)) {
            env.aws.stop_listening().await;
        }
    }

    /// Ends a profile that does not end by itself. The sleep is the outage, not a wait for a state.
    pub(crate) async fn stop(&self, env: &TestEnv, kube: &KubeProxy) {
        match self.end {
            None => {}
            Some(StopAction::ThawWatches) => {
                tokio::time::sleep(OUTAGE_DURATION).await;
                kube.resume_watches();
            }
            Some(StopAction::RestoreAws) => {
                tokio::time::sleep(OUTAGE_DURATION).await;
                env.aws.resume_listening().await.expect("AWS comes back");
            }
        }
    }
}
