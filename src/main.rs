//! `aws-deploy-user-operator`: settings, telemetry, run; no logic.

use std::process::ExitCode;

use awsdeploy::operator::{self, settings::OperatorSettings, telemetry};
use clap::{Parser, Subcommand};

/// Turns `AwsDeployUser` resources into IAM users, policies and rotating access keys.
///
/// Runs with nothing but KUBECONFIG (or a `ServiceAccount`) and AWS credentials in the environment.
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
    /// Write the custom resource definitions to standard output.
    Crds {
        /// Plural name of the only one to write: awsdeployusers or awsdeployuserclasses. Default: all.
        name: Option<String>,
    },
    /// Write the reference of the metrics to standard output, as Markdown.
    Metrics,
    /// Write an IAM policy that the operator needs to standard output.
    IamPolicy(operator::iam_policy::IamPolicyArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let written = match arguments.command {
        Some(Command::Crds { name }) => match crds(name.as_deref()) {
            Ok(yaml) => Some(yaml),
            Err(error) => return fail(&error),
        },
        Some(Command::Metrics) => Some(operator::metrics::reference::markdown()),
        Some(Command::IamPolicy(arguments)) => match arguments.render() {
            Ok((policy, note)) => {
                // Not among what is piped on.
                if let Some(note) = note {
                    use std::io::Write;
                    let _ = writeln!(std::io::stderr(), "{note}");
                }
                Some(policy)
            }
            Err(error) => return fail(&error),
        },
        None => None,
    };
    if let Some(text) = written {
        use std::io::Write;
        return std::io::stdout().write_all(text.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    // One crypto provider for Kubernetes, AWS and everything else.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(&"a TLS provider was installed before");
    }
    let telemetry = match telemetry::start(&arguments.settings) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    // Location only: the message of a panic may quote what it choked on.
    std::panic::set_hook(Box::new(|panic| tracing::error!(at = panic.location().map(ToString::to_string), "panic")));
    match operator::run(arguments.settings, telemetry).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One definition, or all of them as a stream of documents.
fn crds(name: Option<&str>) -> Result<String, String> {
    let all = awsdeploy::api::crds_yaml().map_err(|error| error.to_string())?;
    let Some(name) = name else { return Ok(all.map(|(_, yaml)| yaml).join("---\n")) };
    let known = all.map(|(plural, yaml)| if plural == name { Ok(yaml) } else { Err(plural) });
    let names = known.iter().filter_map(|found| found.as_ref().err()).copied().collect::<Vec<_>>().join(", ");
    known
        .into_iter()
        .find_map(Result::ok)
        .ok_or_else(|| format!("there is no custom resource {name}; there are {names}"))
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "aws-deploy-user-operator: {error}");
    ExitCode::FAILURE
}
