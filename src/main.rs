//! `aws-deploy-user-operator`: parses arguments and runs the operator or a subcommand.

use std::{process::ExitCode, sync::Arc};

use awsdeploy::operator::{self, metrics::Metrics, settings::OperatorSettings, telemetry};
use clap::{Parser, Subcommand};

/// Reconciles `AwsDeployUser` resources into IAM users, policies and rotating access keys.
///
/// Needs a kubeconfig or a `ServiceAccount`, and AWS credentials in the environment.
#[derive(Parser)]
#[command(version, args_override_self = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: OperatorSettings,
}

#[derive(Subcommand)]
enum Command {
    /// Print the custom resource definitions as YAML.
    Crds {
        /// Plural name of one definition: awsdeployusers or awsdeployuserclasses (default: all).
        name: Option<String>,
    },
    /// Print a reference page of the documentation as Markdown.
    #[command(hide = true)]
    Reference { page: operator::reference::Page },
    /// Print an IAM policy that the operator needs.
    IamPolicy(operator::iam_policy::IamPolicyArguments),
    /// Check the installation: resource types, operator, leader, admission. Exits with 1 if something is missing.
    Doctor(operator::doctor::DoctorArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = operator::disable_core_dumps() {
        return fail(&format!("failed to disable core dumps: {error}"));
    }
    let arguments = Arguments::parse();
    let output = match arguments.command {
        Some(Command::Crds { name }) => match crds(name.as_deref()) {
            Ok(yaml) => Some(yaml),
            Err(error) => return fail(&error),
        },
        Some(Command::Reference { page }) => match page.markdown() {
            Ok(markdown) => Some(markdown),
            Err(error) => return fail(&error),
        },
        Some(Command::IamPolicy(arguments)) => match arguments.render() {
            Ok((policy, note)) => {
                // Standard output carries only the policy, so that it can be piped.
                if let Some(note) = note {
                    use std::io::Write;
                    let _ = writeln!(std::io::stderr(), "{note}");
                }
                Some(policy)
            }
            Err(error) => return fail(&error),
        },
        Some(Command::Doctor(arguments)) => return doctor(arguments).await,
        None => None,
    };
    if let Some(text) = output {
        use std::io::Write;
        return std::io::stdout().write_all(text.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if let Err(error) = install_crypto_provider() {
        return fail(&error);
    }
    let metrics = Arc::new(Metrics::new(arguments.settings.metrics_per_resource));
    let telemetry = match telemetry::start(&arguments.settings, &metrics) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    // Only the location: a panic message may quote key material.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(target: "awsdeploy", at = panic.location().map(ToString::to_string), "panic");
    }));
    match operator::run(arguments.settings, metrics, telemetry).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One crypto provider for the Kubernetes client, the AWS SDK and the HTTP server.
fn install_crypto_provider() -> Result<(), &'static str> {
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    installed.map_err(|_| "failed to install the TLS provider: another one is installed")
}

async fn doctor(arguments: operator::doctor::DoctorArguments) -> ExitCode {
    if let Err(error) = install_crypto_provider() {
        return fail(&error);
    }
    let report = |line: &str| {
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    match operator::doctor::run(arguments, report).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

/// One definition, or all as a multi-document stream.
fn crds(name: Option<&str>) -> Result<String, String> {
    let all = awsdeploy::api::crds_yaml().map_err(|error| error.to_string())?;
    let Some(name) = name else { return Ok(all.map(|(_, yaml)| yaml).join("---\n")) };
    let names = all.each_ref().map(|(plural, _)| *plural).join(", ");
    let found = all.into_iter().find_map(|(plural, yaml)| (plural == name).then_some(yaml));
    found.ok_or_else(|| format!("unknown custom resource {name}: use one of {names}"))
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "aws-deploy-user-operator: {error}");
    ExitCode::FAILURE
}
