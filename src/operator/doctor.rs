//! The command `doctor`: checks an installation, and waits for it.

use std::time::Duration;

use clap::Args;
use kube::{Client, Config};

use super::error::RunError;
use crate::{
    api::duration::parse_flag,
    cluster::{self, InstallationNames},
    domain::installation::{self, Check},
};

/// Time between two checks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Limit of all reads of one check. The client has no deadline of its own.
const READ_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Args, Clone, Debug)]
pub struct DoctorArguments {
    /// Check again until nothing is missing or the time is over; without it, check once.
    #[arg(long)]
    pub wait: bool,

    /// How long to wait.
    #[arg(long, default_value = "2m", value_parser = parse_flag)]
    pub timeout: Duration,

    /// Namespace of the operator (default: that of the `ServiceAccount`, or of the context).
    #[arg(long)]
    pub namespace: Option<String>,

    /// Name of the operator's Deployment.
    #[arg(long, default_value = "aws-deploy-user-operator")]
    pub deployment: String,

    /// Name of the operator's Lease (default: that of the Deployment).
    #[arg(long)]
    pub lease_name: Option<String>,

    /// The operator runs without leader election.
    #[arg(long, conflicts_with = "lease_name")]
    pub no_leader_election: bool,

    /// Name of a class that must be Ready; repeatable.
    #[arg(long = "class", value_name = "CLASS", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub classes: Vec<String>,
}

/// Checks the installation and reports each check and its changes as a line. Returns whether nothing is missing.
///
/// # Errors
/// If there is no cluster to ask.
pub async fn run(arguments: DoctorArguments, mut report: impl FnMut(&str)) -> Result<bool, RunError> {
    let client = Client::try_from(Config::infer().await?).map_err(Box::new)?;
    let DoctorArguments { wait, timeout, namespace, deployment, lease_name, no_leader_election, classes } = arguments;
    let lease = (!no_leader_election).then(|| lease_name.unwrap_or_else(|| deployment.clone()));
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let names = InstallationNames { namespace, deployment, lease, classes };
    let deadline = tokio::time::Instant::now() + timeout;
    let mut reported = Vec::new();
    loop {
        let checks = match tokio::time::timeout(READ_DEADLINE, cluster::read_installation(&client, &names)).await {
            Ok(facts) => installation::evaluate(&facts),
            Err(_) => vec![unanswered()],
        };
        for line in checks.iter().map(line).filter(|line| !reported.contains(line)) {
            report(&line);
        }
        reported = checks.iter().map(line).collect();
        if checks.iter().all(|check| check.problem.is_none()) {
            return Ok(true);
        }
        let next = tokio::time::Instant::now() + INTERVAL;
        if !wait || next >= deadline {
            return Ok(false);
        }
        tokio::time::sleep_until(next).await;
    }
}

fn unanswered() -> Check {
    let what = format!("the API server did not answer in {} s", READ_DEADLINE.as_secs());
    let problem = installation::Problem { what, fix: "A cluster admin checks the API server".to_owned() };
    Check { name: "API server".to_owned(), problem: Some(problem) }
}

fn line(check: &Check) -> String {
    match &check.problem {
        None => format!("ok       {}", check.name),
        Some(problem) => format!("missing  {}: {}. {}.", check.name, problem.what, problem.fix),
    }
}
