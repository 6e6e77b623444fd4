//! Faults that last: they hit whatever comes by, not one call.

use std::time::Duration;

use awsdeploy_testkit::{
    aws_proxy::{AwsError, Rule},
    kube_proxy::{KubeProxy, KubeRule},
};
use jiff::SignedDuration;

use crate::test_env::TestEnv;

/// How old answers of IAM are at most: less than the operator reckons with (`--recovery-delay`).
pub(crate) const LAG: Duration = Duration::from_millis(1_500);

/// One kind of bad weather.
#[derive(Clone, Copy)]
pub(crate) struct FaultProfile {
    pub(crate) name: &'static str,
    pub(crate) short: bool,
    begin: fn(&TestEnv, &KubeProxy),
    /// It stops by an act rather than by its count.
    end: Option<Lift>,
    /// Creations of keys whose outcome it leaves open.
    pub(crate) ambiguities: usize,
}

#[derive(Clone, Copy)]
enum Lift {
    Thaw,
    AwsBack,
}

const fn profile(name: &'static str, ambiguities: usize, begin: fn(&TestEnv, &KubeProxy)) -> FaultProfile {
    FaultProfile { name, short: false, begin, end: None, ambiguities }
}

pub(crate) const ALL: &[FaultProfile] = &[
    FaultProfile {
        short: true,
        ..profile("aws-html-500", 0, |env, _| {
            env.aws.rules().add(Rule::on_mutating().first(2).html_500());
        })
    },
    profile("aws-drops-twice", 0, |env, _| {
        env.aws.rules().add(Rule::on_mutating().first(2).drop_connection());
    }),
    profile("aws-reads-fail", 0, |env, _| {
        let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
        // The operator's reads; a consumer's are its own affair.
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
    profile("aws-create-loses-two-answers", 2, |env, _| {
        env.aws.rules().add(Rule::on("CreateAccessKey").first(2).after_commit().drop_connection());
    }),
    profile("aws-slow", 0, |env, _| {
        env.aws.rules().add(Rule::on_all().first(20).delay(Duration::from_millis(300)));
    }),
    profile("aws-lists-lag", 0, |env, _| {
        env.aws.rules().add(Rule::on("ListAccessKeys").hide_new_keys(LAG));
    }),
    profile("aws-stale-reads", 0, |env, _| {
        env.aws.rules().add(Rule::on_reads().first(6).stale_read(LAG));
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
    FaultProfile { end: Some(Lift::AwsBack), ..profile("aws-away", 0, |_, _| {}) },
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
    FaultProfile { end: Some(Lift::Thaw), ..profile("kube-frozen-watch", 0, |_, kube| kube.stall_watches()) },
    FaultProfile { short: true, ..profile("kube-cut-watch", 0, |_, kube| kube.expire_watches()) },
    profile("kube-status-lost", 0, |_, kube| {
        kube.rules().add(KubeRule::on_resource("awsdeployusers/status").first(3).after_commit().drop_connection());
    }),
];

/// How long weather lasts that is ended by an act.
const SPELL: Duration = Duration::from_secs(3);

impl FaultProfile {
    /// It breaks.
    pub(crate) async fn begin(&self, env: &TestEnv, kube: &KubeProxy) {
        (self.begin)(env, kube);
        if matches!(self.end, Some(Lift::AwsBack)) {
            env.aws.stop_listening().await;
        }
    }

    /// It clears up, if it does not by itself. The time is the fault: nothing is waited for.
    pub(crate) async fn lift(&self, env: &TestEnv, kube: &KubeProxy) {
        match self.end {
            None => {}
            Some(Lift::Thaw) => {
                tokio::time::sleep(SPELL).await;
                kube.resume_watches();
            }
            Some(Lift::AwsBack) => {
                tokio::time::sleep(SPELL).await;
                env.aws.resume_listening().await.expect("AWS comes back");
            }
        }
    }
}
