//! Faults that last: they hit whatever comes by, not one call.

use std::time::Duration;

use awsdeploy_testkit::{
    aws_proxy::{AwsError, Rule},
    kube_proxy::{KubeProxy, KubeRule},
};
use jiff::SignedDuration;

use crate::stage::Stage;

/// How old answers of IAM are at most: less than the operator reckons with (`--intent-dwell`).
pub(crate) const LAG: Duration = Duration::from_millis(1_500);

/// One kind of bad weather.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) name: &'static str,
    pub(crate) short: bool,
    begin: fn(&Stage, &KubeProxy),
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

const fn weather(name: &'static str, ambiguities: usize, begin: fn(&Stage, &KubeProxy)) -> Weather {
    Weather { name, short: false, begin, end: None, ambiguities }
}

pub(crate) const ALL: &[Weather] = &[
    Weather {
        short: true,
        ..weather("aws-html-500", 0, |stage, _| {
            stage.aws.rules().add(Rule::on_mutating().first(2).html_500());
        })
    },
    weather("aws-drops-twice", 0, |stage, _| {
        stage.aws.rules().add(Rule::on_mutating().first(2).drop_connection());
    }),
    weather("aws-reads-fail", 0, |stage, _| {
        let error = AwsError::new(503, "ServiceUnavailable", "Please try again.");
        // The operator's reads; a consumer's are its own affair.
        let reads = [
            "GetUser",
            "ListAccessKeys",
            "ListAttachedUserPolicies",
            "ListUserPolicies",
            "GetAccountAuthorizationDetails",
        ];
        stage.aws.rules().add(Rule::on_any_of(reads).first(2).answer(error));
    }),
    weather("aws-throttles-once", 0, |stage, _| {
        stage.aws.rules().add(Rule::on_mutating().first(1).throttle());
    }),
    weather("aws-create-loses-two-answers", 2, |stage, _| {
        stage.aws.rules().add(Rule::on("CreateAccessKey").first(2).after_commit().drop_connection());
    }),
    weather("aws-slow", 0, |stage, _| {
        stage.aws.rules().add(Rule::on_all().first(20).delay(Duration::from_millis(300)));
    }),
    weather("aws-lists-lag", 0, |stage, _| {
        stage.aws.rules().add(Rule::on("ListAccessKeys").hide_new_keys(LAG));
    }),
    weather("aws-stale-reads", 0, |stage, _| {
        stage.aws.rules().add(Rule::on_reads().first(6).stale_read(LAG));
    }),
    weather("aws-new-keys-late", 0, |stage, _| {
        stage.account.configure(|settings| settings.activation_delay = Duration::from_secs(2));
    }),
    weather("aws-old-keys-linger", 0, |stage, _| {
        stage.account.configure(|settings| settings.revocation_lag = Duration::from_secs(5));
    }),
    weather("aws-clock-ahead", 0, |stage, _| {
        stage.aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(10)));
    }),
    weather("aws-clock-behind", 0, |stage, _| {
        stage.aws.rules().add(Rule::on_all().clock_skew(SignedDuration::from_mins(-10)));
    }),
    weather("aws-third-key", 0, |stage, _| {
        stage.aws.rules().add(Rule::on("CreateAccessKey").allow_third_key());
    }),
    Weather { end: Some(Lift::AwsBack), ..weather("aws-away", 0, |_, _| {}) },
    Weather {
        short: true,
        ..weather("kube-503", 0, |_, kube| {
            kube.rules().add(KubeRule::on_mutating().first(2).answer(503, "ServiceUnavailable"));
        })
    },
    weather("kube-429", 0, |_, kube| {
        kube.rules().add(KubeRule::on_mutating().first(2).answer(429, "TooManyRequests"));
    }),
    weather("kube-409", 1, |_, kube| {
        kube.rules().add(KubeRule::on("update", "secrets").first(1).answer(409, "Conflict"));
    }),
    weather("kube-504-after-commit", 1, |_, kube| {
        kube.rules().add(KubeRule::on_resource("secrets").nth(3).after_commit().answer(504, "Timeout"));
        kube.rules().add(KubeRule::on_mutating().first(2).after_commit().answer(504, "Timeout"));
    }),
    weather("kube-slow", 0, |_, kube| {
        kube.rules().add(KubeRule::on_all().first(20).delay(Duration::from_millis(300)));
    }),
    weather("kube-stale-secrets", 1, |_, kube| {
        kube.rules().add(KubeRule::on("get", "secrets").first(4).stale_read());
    }),
    weather("kube-secrets-unreadable", 0, |_, kube| {
        kube.rules().add(KubeRule::on("get", "secrets").first(2).answer(500, "InternalError"));
    }),
    Weather { end: Some(Lift::Thaw), ..weather("kube-frozen-watch", 0, |_, kube| kube.freeze_watches()) },
    Weather { short: true, ..weather("kube-cut-watch", 0, |_, kube| kube.cut_watches()) },
    weather("kube-status-lost", 0, |_, kube| {
        kube.rules().add(KubeRule::on_resource("awsdeployusers/status").first(3).after_commit().drop_connection());
    }),
];

/// How long weather lasts that is ended by an act.
const SPELL: Duration = Duration::from_secs(3);

impl Weather {
    /// It breaks.
    pub(crate) async fn begin(&self, stage: &Stage, kube: &KubeProxy) {
        (self.begin)(stage, kube);
        if matches!(self.end, Some(Lift::AwsBack)) {
            stage.aws.go_away().await;
        }
    }

    /// It clears up, if it does not by itself. The time is the fault: nothing is waited for.
    pub(crate) async fn lift(&self, stage: &Stage, kube: &KubeProxy) {
        match self.end {
            None => {}
            Some(Lift::Thaw) => {
                tokio::time::sleep(SPELL).await;
                kube.thaw_watches();
            }
            Some(Lift::AwsBack) => {
                tokio::time::sleep(SPELL).await;
                stage.aws.come_back().await.expect("AWS comes back");
            }
        }
    }
}
