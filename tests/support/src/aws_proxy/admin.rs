//! The admin API for shell scripts and demos: JSON below `/_awsdeploy/` on the port of the proxy, loopback only.
//!
//! | request | response |
//! |---|---|
//! | `GET calls` (`?action=`, `?user=`, `?since=<seq>`) | the call log |
//! | `GET counts` | calls by action |
//! | `DELETE calls` | clears the log |
//! | `GET rules` | the rules with their hits |
//! | `POST rules` with a [`RuleSpec`] | the id of the new rule |
//! | `DELETE rules/<id>`, `DELETE rules` | removes one, or all |
//! | `POST rules/<id>/release`, `.../abort` | releases or aborts the calls held by a `pause` |
//! | `GET settings`, `PATCH settings` with a [`SettingsSpec`] | the settings |
//!
//! `curl -d '{"action":"CreateAccessKey","nth":1,"when":"after-commit","do":"drop"}' $AWS_ENDPOINT_URL/_awsdeploy/rules`

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Request;
use super::engine::Engine;
use super::pause::Pause;
use super::response::AwsError;
use super::rules::{Rule, RuleId};
use super::settings::PageShape;

/// Prefix of all admin paths.
pub(super) const PREFIX: &str = "/_awsdeploy/";

/// A rule as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RuleSpec {
    action: Option<String>,
    mutating: Option<bool>,
    user: Option<String>,
    access_key: Option<String>,
    caller: Option<String>,
    nth: Option<u64>,
    first: Option<u64>,
    from: Option<u64>,
    every: Option<u64>,
    #[serde(default)]
    when: WhenSpec,
    #[serde(rename = "do")]
    effect: EffectSpec,
    /// For `delay`, `hide-new-keys` and `clock-skew`; only the last may be negative.
    seconds: Option<f64>,
    /// For `error`.
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WhenSpec {
    #[default]
    Before,
    AfterCommit,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EffectSpec {
    Drop,
    Delay,
    Error,
    Throttle,
    Deny,
    Html500,
    Pause,
    Stale,
    HideNewKeys,
    ClockSkew,
    AllowThirdKey,
}

impl RuleSpec {
    fn into_rule(self) -> Result<Rule, String> {
        let mut rule = match (&self.action, self.mutating) {
            (Some(action), None) => Rule::on(action),
            (None, Some(true)) => Rule::on_mutating(),
            (None, Some(false)) => Rule::on_reads(),
            (None, None) => Rule::on_all(),
            (Some(_), Some(_)) => return Err("action and mutating exclude each other".to_owned()),
        };
        if let Some(user) = &self.user {
            rule = rule.user(user);
        }
        if let Some(key) = &self.access_key {
            rule = rule.access_key(key);
        }
        if let Some(caller) = &self.caller {
            rule = rule.caller(caller);
        }
        rule = match (self.nth, self.first, self.from, self.every) {
            (None, None, None, None) => rule,
            (Some(n), None, None, None) => rule.nth(n),
            (None, Some(n), None, None) => rule.first(n),
            (None, None, Some(n), None) => rule.from(n),
            (None, None, None, Some(n)) => rule.every(n),
            _ => return Err("nth, first, from and every exclude each other".to_owned()),
        };
        if matches!(self.when, WhenSpec::AfterCommit) {
            rule = rule.after_commit();
        }
        let seconds = || self.seconds.ok_or_else(|| "seconds is missing".to_owned());
        let time = || Duration::try_from_secs_f64(seconds()?).map_err(|error| error.to_string());
        Ok(match self.effect {
            EffectSpec::Drop => rule.drop_connection(),
            EffectSpec::Delay => rule.delay(time()?),
            EffectSpec::Error => {
                let code = self.code.ok_or("code is missing")?;
                rule.respond_with(AwsError::new(self.status.unwrap_or(400), code, self.message.unwrap_or_default()))
            }
            EffectSpec::Throttle => rule.throttle(),
            EffectSpec::Deny => rule.deny(),
            EffectSpec::Html500 => rule.html(500),
            EffectSpec::Pause => rule.pause(&Pause::default()),
            EffectSpec::Stale => rule.stale_read(time()?),
            EffectSpec::HideNewKeys => rule.hide_new_keys(time()?),
            EffectSpec::ClockSkew => {
                rule.clock_skew(SignedDuration::try_from_secs_f64(seconds()?).map_err(|error| error.to_string())?)
            }
            EffectSpec::AllowThirdKey => rule.allow_third_key(),
        })
    }
}

/// Settings as JSON. A `PATCH` keeps omitted fields.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct SettingsSpec {
    activation_delay_seconds: Option<f64>,
    revocation_lag_seconds: Option<f64>,
    last_used_lag_seconds: Option<f64>,
    last_used_granularity_seconds: Option<f64>,
    page_size: Option<usize>,
    page_shape: Option<PageShape>,
    users_quota: Option<usize>,
    attached_policies_quota: Option<usize>,
    password_min_length: Option<usize>,
    operator_arn: Option<String>,
    check_signature_age: Option<bool>,
}

type Reply = (StatusCode, Value);

fn bad_request(error: impl std::fmt::Display) -> Reply {
    (StatusCode::BAD_REQUEST, json!({ "error": error.to_string() }))
}

fn not_found() -> Reply {
    (StatusCode::NOT_FOUND, json!({ "error": "not found" }))
}

fn ok(value: Value) -> Reply {
    (StatusCode::OK, value)
}

/// Serves an admin request; `path` is the part after [`PREFIX`].
pub(super) fn serve(engine: &Engine, path: &str, request: &Request) -> Response<Full<Bytes>> {
    let path: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let (status, value) = match (request.method.as_str(), path.as_slice()) {
        ("GET", ["calls"]) => calls(engine, request),
        ("GET", ["counts"]) => ok(json!(engine.log.counts())),
        ("DELETE", ["calls"]) => {
            engine.log.clear();
            ok(json!({}))
        }
        ("GET", ["rules"]) => ok(engine
            .rules
            .list()
            .into_iter()
            .map(|(id, rule, hits)| json!({ "id": id, "rule": rule, "hits": hits }))
            .collect()),
        ("POST", ["rules"]) => match serde_json::from_slice::<RuleSpec>(&request.body) {
            Ok(spec) => match spec.into_rule() {
                Ok(rule) => ok(json!({ "id": engine.rules.add(rule) })),
                Err(error) => bad_request(error),
            },
            Err(error) => bad_request(error),
        },
        ("DELETE", ["rules"]) => {
            engine.rules.clear();
            ok(json!({}))
        }
        ("DELETE", ["rules", id]) => with_rule(id, |id| engine.rules.remove(id)),
        ("POST", ["rules", id, "release"]) => with_rule(id, |id| engine.rules.settle(id, Pause::release)),
        ("POST", ["rules", id, "abort"]) => with_rule(id, |id| engine.rules.settle(id, Pause::abort)),
        ("GET", ["settings"]) => ok(json!(settings(engine))),
        ("PATCH", ["settings"]) => match serde_json::from_slice::<SettingsSpec>(&request.body) {
            Ok(spec) => match configure(engine, spec) {
                Ok(()) => ok(json!(settings(engine))),
                Err(error) => bad_request(error),
            },
            Err(error) => bad_request(error),
        },
        _ => not_found(),
    };
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(format!("{value:#}\n")))
        .unwrap_or_else(|_| Response::new(Full::default()))
}

fn with_rule(id: &str, act: impl FnOnce(RuleId) -> bool) -> Reply {
    match id.parse() {
        Ok(id) if act(RuleId(id)) => ok(json!({})),
        _ => not_found(),
    }
}

fn calls(engine: &Engine, request: &Request) -> Reply {
    let query: std::collections::HashMap<String, String> =
        form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
    let since: u64 = query.get("since").and_then(|seq| seq.parse().ok()).unwrap_or(0);
    let calls = engine.log.select(|call| {
        call.seq > since
            && query.get("action").is_none_or(|action| *action == call.action)
            && query.get("user").is_none_or(|user| call.user.as_ref() == Some(user))
    });
    ok(json!(calls))
}

fn settings(engine: &Engine) -> SettingsSpec {
    let settings = engine.account().settings();
    SettingsSpec {
        activation_delay_seconds: Some(settings.activation_delay.as_secs_f64()),
        revocation_lag_seconds: Some(settings.revocation_lag.as_secs_f64()),
        last_used_lag_seconds: Some(settings.last_used_lag.as_secs_f64()),
        last_used_granularity_seconds: Some(settings.last_used_granularity.as_secs_f64()),
        page_size: Some(settings.page_size),
        page_shape: Some(settings.page_shape),
        users_quota: Some(settings.users_quota),
        attached_policies_quota: Some(settings.attached_policies_quota),
        password_min_length: Some(settings.password_min_length),
        operator_arn: settings.operator_arn,
        check_signature_age: Some(settings.check_signature_age),
    }
}

fn configure(engine: &Engine, spec: SettingsSpec) -> Result<(), String> {
    fn set<T>(field: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *field = value;
        }
    }
    let time = |seconds: Option<f64>| {
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())).transpose()
    };
    let activation_delay = time(spec.activation_delay_seconds)?;
    let revocation_lag = time(spec.revocation_lag_seconds)?;
    let last_used_lag = time(spec.last_used_lag_seconds)?;
    let last_used_granularity = time(spec.last_used_granularity_seconds)?;
    engine.account().configure(|settings| {
        set(&mut settings.activation_delay, activation_delay);
        set(&mut settings.revocation_lag, revocation_lag);
        set(&mut settings.last_used_lag, last_used_lag);
        set(&mut settings.last_used_granularity, last_used_granularity);
        set(&mut settings.page_size, spec.page_size);
        set(&mut settings.page_shape, spec.page_shape);
        set(&mut settings.users_quota, spec.users_quota);
        set(&mut settings.attached_policies_quota, spec.attached_policies_quota);
        set(&mut settings.password_min_length, spec.password_min_length);
        set(&mut settings.check_signature_age, spec.check_signature_age);
        if spec.operator_arn.is_some() {
            settings.operator_arn = spec.operator_arn;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Rule, String> {
        serde_json::from_str::<RuleSpec>(json).map_err(|error| error.to_string())?.into_rule()
    }

    #[test]
    fn rules_parse_from_json() {
        for good in [
            r#"{"do":"drop"}"#,
            r#"{"action":"CreateAccessKey","user":"u","nth":1,"when":"after-commit","do":"drop"}"#,
            r#"{"mutating":true,"every":2,"do":"throttle"}"#,
            r#"{"do":"error","status":503,"code":"ServiceUnavailable"}"#,
            r#"{"do":"clock-skew","seconds":-600}"#,
            r#"{"do":"hide-new-keys","seconds":1.5}"#,
        ] {
            assert!(rule(good).is_ok(), "{good}");
        }
        for bad in [
            "{}",
            r#"{"do":"explode"}"#,
            r#"{"do":"delay"}"#,
            r#"{"do":"delay","seconds":-1}"#,
            r#"{"do":"error"}"#,
            r#"{"do":"drop","nth":1,"first":2}"#,
            r#"{"do":"drop","action":"GetUser","mutating":false}"#,
            r#"{"do":"drop","typo":1}"#,
        ] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
