//! Fault profiles: faults that hit every matching call for a while, not one call. Those that last do so for longer than
//! the first delays of the back-off.

use std::time::Duration;

use awsdeploy_testkit::{
    aws_proxy::{AwsError, Rule},
    kube_proxy::{KubeProxy, KubeRule},
};
use jiff::SignedDuration;

use crate::test_env::TestEnv;

/// Staleness of IAM reads; below `--recovery-delay`, which must cover it.
pub(crate) const READ_LAG: Duration = Duration::from_millis(1_500);

/// Duration of an outage that ends before the first retries.
const OUTAGE_DURATION: Duration = Duration::from_secs(3);

/// Duration of a lasting fault: several retries fail, and the first one after it is within the limit for recovery.
const LASTING: Duration = Duration::from_secs(20);

#[derive(Clone, Copy)]
pub(crate) struct FaultProfile {
    pub(crate) name: &'static str,
    pub(crate) short: bool,
    start: fn(&TestEnv, &KubeProxy),
    /// How long it lasts, if it does not end by its own count.
    lasts: Duration,
    /// What ends it, or what people do after it.
    pub(crate) end: Option<StopAction>,
    /// How many extra keys it may cause.
    pub(crate) ambiguities: usize,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum StopAction {
    ThawWatches,
    RestoreAws,
    RestoreSecretAccess,
    /// Missing permissions are tried again after minutes, or when a person asks for it.
    RequestRetry,
}

const fn profile(name: &'static str, ambiguities: usize, start: fn(&TestEnv, &KubeProxy)) -> FaultProfile {
    FaultProfile { name, short: false, start, lasts: Duration::ZERO, end: None, ambiguities }
}

const fn lasting(name: &'static str, start: fn(&TestEnv, &KubeProxy)) -> FaultProfile {
    FaultProfile { lasts: LASTING, ..profile(name, 0, start) }
}

pub(crate) const ALL: &[FaultProfile] = &[
    FaultProfile {
        short: true,
        ..profile("aws-html-500", 0, |env, _| {
            env.aws.rules().add(Rule::on_mutating().first(2).html(500));
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
    FaultProfile {
        lasts: OUTAGE_DURATION,
        end: Some(StopAction::RestoreAws),
        ..profile("aws-unavailable", 0, |_, _| {})
    },
    FaultProfile { end: Some(StopAction::RestoreAws), ..lasting("aws-lasting-outage", |_, _| {}) },
    FaultProfile {
        short: true,
        ..lasting("aws-lasting-html-403", |env, _| {
            env.aws.rules().add(Rule::on_mutating().lasting(LASTING).html(403));
        })
    },
    lasting("aws-lasting-html-502", |env, _| {
        env.aws.rules().add(Rule::on_mutating().lasting(LASTING).html(502));
    }),
    lasting("aws-lasting-empty-200", |env, _| {
        env.aws.rules().add(Rule::on_mutating().lasting(LASTING).empty());
    }),
    FaultProfile {
        end: Some(StopAction::RequestRetry),
        ..lasting("aws-lasting-denied-read", |env, _| {
            env.aws.rules().add(Rule::on("ListAccessKeys").lasting(LASTING).deny());
        })
    },
    FaultProfile {
        end: Some(StopAction::RequestRetry),
        ..lasting("aws-lasting-denied-create", |env, _| {
            env.aws.rules().add(Rule::on("CreateAccessKey").lasting(LASTING).deny());
        })
    },
    FaultProfile {
        short: true,
        ..lasting("aws-lasting-throttled-bulk-read", |env, _| {
            env.aws.rules().add(Rule::on("GetAccountAuthorizationDetails").lasting(LASTING).throttle());
        })
    },
    lasting("aws-lasting-throttled-tags", |env, _| {
        env.aws.rules().add(Rule::on_any_of(["TagUser", "UntagUser"]).lasting(LASTING).throttle());
    }),
    lasting("aws-lasting-lag", |env, _| {
        env.account.configure(|settings| {
            settings.activation_delay = READ_LAG;
            settings.revocation_lag = READ_LAG;
        });
        env.aws.rules().add(Rule::on_reads().lasting(LASTING).stale_read(READ_LAG));
        env.aws.rules().add(Rule::on("ListAccessKeys").lasting(LASTING).hide_new_keys(READ_LAG));
    }),
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
        short: true,
        end: Some(StopAction::RestoreSecretAccess),
        ..lasting("kube-lasting-secrets-forbidden", |_, _| {})
    },
    lasting("kube-lasting-status-refused", |_, kube| {
        let status = KubeRule::on_resource("awsdeployusers/status").lasting(LASTING);
        kube.rules().add(status.respond_with(500, "InternalError"));
    }),
    FaultProfile {
        lasts: OUTAGE_DURATION,
        end: Some(StopAction::ThawWatches),
        ..profile("kube-frozen-watch", 0, |_, kube| kube.stall_watches())
    },
    FaultProfile { short: true, ..profile("kube-cut-watch", 0, |_, kube| kube.expire_watches()) },
    profile("kube-status-lost", 0, |_, kube| {
        kube.rules().add(KubeRule::on_resource("awsdeployusers/status").first(3).after_commit().drop_connection());
    }),
];

impl FaultProfile {
    pub(crate) async fn start(&self, env: &TestEnv, kube: &KubeProxy) {
        (self.start)(env, kube);
        match self.end {
            Some(StopAction::RestoreAws) => env.aws.stop_listening().await,
            Some(StopAction::RestoreSecretAccess) => env.revoke_secret_access().await,
            None | Some(StopAction::ThawWatches | StopAction::RequestRetry) => {}
        }
    }

    /// Ends a profile that does not end by its own count. The sleep is the fault, not a wait for a state.
    pub(crate) async fn stop(&self, env: &TestEnv, kube: &KubeProxy) {
        tokio::time::sleep(self.lasts).await;
        match self.end {
            None => {}
            Some(StopAction::ThawWatches) => kube.resume_watches(),
            Some(StopAction::RestoreAws) => env.aws.resume_listening().await.expect("AWS comes back"),
            Some(StopAction::RestoreSecretAccess) => {
                env.grant_secret_access().await;
                request_retry(env).await;
            }
            Some(StopAction::RequestRetry) => request_retry(env).await,
        }
    }

    /// Whether it changes the account beyond its end, so that it would affect all later rotations.
    pub(crate) fn changes_the_account(&self) -> bool {
        ["aws-new-keys-late", "aws-old-keys-linger", "aws-lasting-lag"].contains(&self.name)
    }
}

/// Requests a retry of the resource, unless it is deleted already.
async fn request_retry(env: &TestEnv) {
    if env.users().get_metadata_opt("x").await.is_ok_and(|user| user.is_some()) {
        env.request_retry("x", "the fault is over").await;
    }
}
