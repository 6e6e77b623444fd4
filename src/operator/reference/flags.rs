//! The reference of flags, from the argument parser.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Args, Command};

use super::{cell, generated, split_default};
use crate::operator::{doctor::DoctorArguments, iam_policy::IamPolicyArguments, settings::OperatorSettings};

pub(super) fn markdown() -> String {
    let mut text = format!("# Flags\n\n{}\n\n{HEAD}", generated("the doc comments in src/operator/settings.rs"));
    text.push_str("\n| flag | environment variable | chart value | default | description |\n|---|---|---|---|---|\n");
    let operator = OperatorSettings::augment_args(Command::new("operator"));
    for argument in operator.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(flag) = argument.get_long() else { continue };
        let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let (description, default) = described(argument);
        let _ = writeln!(text, "| `--{flag}` | {variable} | {} | {default} | {description} |", chart_value(flag));
    }
    text.push_str(COMMANDS);
    for command in [
        IamPolicyArguments::augment_args(Command::new("iam-policy")),
        DoctorArguments::augment_args(Command::new("doctor")),
    ] {
        let _ = write!(text, "\n### {}\n\n| flag | default | description |\n|---|---|---|\n", command.get_name());
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long() else { continue };
            let (description, default) = described(argument);
            let _ = writeln!(text, "| `--{flag}` | {default} | {description} |");
        }
    }
    text
}

const HEAD: &str = "Every setting is a flag of the operator, an environment variable, and a value of the chart. A flag takes precedence over its
variable. Durations are written as `30s`, `10m`, `1h` or `90d`, and are at most `3650d`. [Access keys](../access-keys.md#settings) explains
how to choose the durations of a rotation.
";

const COMMANDS: &str = "
## Commands

| command | writes to standard output |
|---|---|
| `aws-deploy-user-operator crds [NAME]` | the custom resource definitions, or the one with this plural name |
| `aws-deploy-user-operator iam-policy` | an IAM policy for the operator, see [the operator's own IAM policy](../iam-policy.md) |
| `aws-deploy-user-operator doctor` | what an installation lacks and who provides it; exits with 0 if nothing, else with 1. The chart's start-up check runs it with `--wait` |
";

/// The description and the default of an argument.
fn described(argument: &Arg) -> (String, String) {
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let (mut text, written_default) = split_default(&cell(&help));
    // clap drops the full stop of a help text of one paragraph.
    if !text.is_empty() && !text.ends_with('.') {
        text.push('.');
    }
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let switch = matches!(values.as_slice(), [no, yes] if no == "`true`" && yes == "`false`");
    if !values.is_empty() && !switch {
        let _ = write!(text, " One of {}.", values.join(", "));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    let default = if matches!(argument.get_action(), ArgAction::SetTrue) {
        "`false`".to_owned()
    } else if defaults.is_empty() {
        written_default.unwrap_or_default()
    } else {
        defaults.join(", ")
    };
    (text, default)
}

/// The chart value that sets a flag.
fn chart_value(flag: &str) -> String {
    match flag {
        "leader-elect" => "`leaderElection.enabled`".to_owned(),
        "namespace" | "lease-name" | "secrets-cluster-role" | "restarts-cluster-role" => "set by the chart".to_owned(),
        "metrics-bind-address" => "`metrics.address`, `metrics.port`".to_owned(),
        "metrics-auth" => "`metrics.auth.enabled`".to_owned(),
        "metrics-audience" => "`metrics.auth.audience`".to_owned(),
        "metrics-per-resource" => "`metrics.perResource`".to_owned(),
        "metrics-tls-cert" | "metrics-tls-key" => "`metrics.tls.*`".to_owned(),
        "otlp-endpoint" => "`tracing.otlp.endpoint`".to_owned(),
        "watch-namespaces" => "`watchNamespaces`".to_owned(),
        _ => format!("`settings.{}`", camel_case(flag)),
    }
}

fn camel_case(flag: &str) -> String {
    let mut parts = flag.split('-');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| {
        let mut letters = part.chars();
        let head = letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter();
        name + &head.chain(letters).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn named_chart_values_exist() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/aws-deploy-user-operator/values.yaml");
        let values: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let operator = OperatorSettings::augment_args(Command::new("operator"));
        for argument in operator.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(flag) = argument.get_long() else { continue };
            for path in chart_value(flag).split('`').filter(|part| part.contains('.') || part.ends_with("Namespaces")) {
                let pointer = format!("/{}", path.trim_end_matches(".*").replace('.', "/"));
                assert!(values.pointer(&pointer).is_some(), "--{flag}: the chart has no value {path}");
            }
        }
    }
}
