//! The test kit for shell scripts: control plane, AWS emulator, mounted Secrets and consumers.

use std::{
    fmt::Write as _,
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use awsdeploy_testkit::{
    Error, Result,
    aws_proxy::Account,
    consumer::{Consumer, ConsumerOptions, ConsumerReport},
    emulator::AwsAccess,
    error::format_chain,
    install_crypto_provider, kubeconfig,
    rig::Rig,
    run_dir::RunDir,
    secret_mount::SecretMount,
};
use clap::{Parser, Subcommand};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Starts parts of the test kit of aws-deploy-user-operator. All servers listen on loopback only.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a Kubernetes control plane and an AWS emulator, and run them until SIGTERM, Ctrl-C, or EOF of standard
    /// input if it is a pipe or a terminal
    Up {
        /// Directory for data and logs. When ready, its file `env` contains variables for a shell to source
        #[arg(long)]
        dir: PathBuf,
    },
    /// Mount a Secret in a directory, like a kubelet
    Mount {
        /// The kubeconfig of the cluster
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: PathBuf,
        /// The namespace of the Secret
        #[arg(long)]
        namespace: String,
        /// The name of the Secret, which need not exist yet
        #[arg(long)]
        secret: String,
        /// Directory of the files
        #[arg(long)]
        dir: PathBuf,
    },
    /// Call sts:GetCallerIdentity continuously with the key of a mounted Secret, and count the results
    Consume {
        /// The mounted Secret, with a `credentials` file
        #[arg(long)]
        mount: PathBuf,
        /// The endpoint URL of AWS
        #[arg(long, env = "AWS_ENDPOINT_URL")]
        endpoint: String,
        /// The expected ARN of the caller identity
        #[arg(long)]
        arn: String,
        /// File for the counters as JSON, written every second and at the end
        #[arg(long)]
        report: PathBuf,
        /// Milliseconds between two calls
        #[arg(long, default_value_t = 100)]
        interval_ms: u64,
        /// Stop after this many seconds
        #[arg(long, default_value_t = 3600)]
        max_seconds: u64,
    },
    /// Do nothing until SIGTERM; used as the sandbox image of a node
    Pause,
    /// Write a kubeconfig of a service account, with a token that is valid for a day
    SaKubeconfig {
        /// The kubeconfig that requests the token
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: PathBuf,
        /// The namespace of the service account
        #[arg(long)]
        namespace: String,
        /// The name of the service account
        #[arg(long)]
        name: String,
        /// The file to write
        #[arg(long)]
        out: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up { dir } => up(&dir).await,
        Command::Mount { kubeconfig, namespace, secret, dir } => mount(&kubeconfig, &namespace, &secret, dir).await,
        Command::Consume { mount, endpoint, arn, report, interval_ms, max_seconds } => {
            let options = ConsumerOptions {
                interval: Duration::from_millis(interval_ms),
                max_duration: Duration::from_secs(max_seconds),
                ..ConsumerOptions::new(mount, endpoint, arn)
            };
            consume(options, &report).await
        }
        Command::Pause => pause().await,
        Command::SaKubeconfig { kubeconfig, namespace, name, out } => {
            kubeconfig::write_for_service_account(&kubeconfig, &namespace, &name, &out).await
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "testkit: {}", format_chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn up(directory: &Path) -> Result<()> {
    let mut shutdown = Shutdown::new()?;
    let directory = RunDir::at(directory)?;
    let environment = directory.path().join("env");
    // The file of an earlier run has outdated ports.
    match fs::remove_file(&environment) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove the old env", error)),
        _ => {}
    }
    let started = async {
        let rig = Rig::start_in(directory).await?;
        let aws = rig.strict_aws(Account::new()).await?;
        Ok::<_, Error>((rig, aws))
    };
    let (rig, aws) = tokio::select! {
        started = started => started?,
        () = shutdown.requested() => return Ok(()),
    };
    write_atomically(&environment, &shell_environment(&rig, &AwsAccess::administrator(aws.address())))?;
    print_line(&format!("ready: source {}", environment.display()))?;
    shutdown.requested().await;
    rig.stop().await;
    fs::remove_file(&environment).map_err(|error| failed("remove env", error))
}

async fn mount(kubeconfig: &Path, namespace: &str, secret: &str, directory: PathBuf) -> Result<()> {
    let mut shutdown = Shutdown::new()?;
    let client = kubeconfig::client(kubeconfig).await?;
    let mut mounted = SecretMount::start(client, namespace, secret, directory)?;
    tokio::select! {
        error = mounted.wait_for_failure() => Err(error),
        () = shutdown.requested() => Ok(()),
    }
}

async fn consume(options: ConsumerOptions, file: &Path) -> Result<()> {
    let mut shutdown = Shutdown::new()?;
    install_crypto_provider();
    let consumer = Consumer::start(options);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        write_report(file, &consumer.report())?;
        tokio::select! {
            biased;
            () = shutdown.requested() => break,
            () = consumer.ended() => break,
            _ = ticks.tick() => {}
        }
    }
    let report = consumer.stop().await;
    write_report(file, &report)?;
    print_line(&report.to_string())
}

async fn pause() -> Result<()> {
    Shutdown::new()?.requested().await;
    Ok(())
}

fn write_report(file: &Path, report: &ConsumerReport) -> Result<()> {
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| Error::Unexpected(format!("failed to serialize the report: {error}")))?;
    write_atomically(file, &(json + "\n"))
}

/// Assignments that a shell can source.
fn shell_environment(rig: &Rig, aws: &AwsAccess) -> String {
    let kubeconfig = rig.control_plane().kubeconfig().to_string_lossy();
    let programs = rig.tools().directory().to_string_lossy();
    let mut text = String::new();
    for (name, value) in aws.variables().into_iter().chain([("KUBECONFIG", &*kubeconfig), ("KUBE_BIN", &*programs)]) {
        let _ = writeln!(text, "export {name}={}", shell_quoted(value));
    }
    let _ = writeln!(text, "export PATH={}:\"$PATH\"", shell_quoted(&programs));
    text
}

/// Sources of a shutdown request.
struct Shutdown {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// EOF of standard input. `None` if it is /dev/null or a file, as for a background job.
    input: Option<watch::Receiver<bool>>,
}

impl Shutdown {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| failed("listen for signals", error));
        let input = fs::metadata("/dev/stdin").map(|input| input.file_type());
        let followed = input.is_ok_and(|kind| kind.is_fifo() || kind.is_socket()) || io::stdin().is_terminal();
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            input: followed.then(input_end),
        })
    }

    async fn requested(&mut self) {
        let input = async {
            match &mut self.input {
                Some(input) => drop(input.wait_for(|ended| *ended).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = input => {}
        }
    }
}

/// Reports EOF of standard input and discards its content. Uses a thread, because a runtime cannot cancel a read of
/// standard input; it ends with the process.
fn input_end() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        sender.send_replace(true);
    });
    receiver
}

/// Writes a file atomically.
fn write_atomically(file: &Path, content: &str) -> Result<()> {
    let mut temporary = file.to_owned().into_os_string();
    temporary.push(".new");
    fs::write(&temporary, content)
        .and_then(|()| fs::rename(&temporary, file))
        .map_err(|error| failed(&format!("write {}", file.display()), error))
}

fn shell_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn print_line(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").map_err(|error| failed("write to standard output", error))
}

fn failed(what: &str, source: io::Error) -> Error {
    Error::Io { what: what.to_owned(), source }
}
