//! The formats of a key in the Secret, each read by the program that it is for.

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Output, Stdio},
};

use aws_config::BehaviorVersion;
use awsdeploy::api::{ConditionType, Reason, well_known};
use awsdeploy_testkit::{secret_mount::SecretMount, tools::Tools};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::test_env::{TIMEOUT, TestEnv, eventually, message};

/// With this variable set the test binary is a consumer that signs one call with the Rust SDK.
const SDK_VARIABLE: &str = "AWSDEPLOY_TEST_SDK";

/// Runs the test binary as that consumer. `None` if it must run tests.
pub(crate) fn run_sdk_consumer() -> Option<ExitCode> {
    std::env::var_os(SDK_VARIABLE)?;
    crate::test_env::block_on(async {
        awsdeploy_testkit::install_crypto_provider();
        let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let sts = aws_sdk_sts::Client::new(&config);
        match sts.get_caller_identity().send().await {
            Ok(answer) => print_line(answer.arn().unwrap_or_default()),
            Err(error) => print_line(&format!("{error:?}")),
        }
    });
    Some(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "stdout is its output")]
fn print_line(line: &str) {
    println!("{line}");
}

/// A mounted Secret, and the programs that read it.
struct Programs {
    mount: SecretMount,
    endpoint: String,
    python: PathBuf,
    aws: PathBuf,
}

impl Programs {
    async fn for_secret(env: &TestEnv, secret: &str) -> Self {
        let tools = Tools::locate().await.expect("the tools");
        let aws = tools.program("aws");
        // The virtual environment of the CLI has boto3.
        let python = std::fs::canonicalize(&aws).expect("the CLI").with_file_name("python3");
        let directory = env.directory.join("files");
        let mount = SecretMount::start(env.client.clone(), &env.namespace, secret, directory).expect("a mount");
        let mut versions = mount.versions();
        tokio::time::timeout(TIMEOUT, versions.wait_for(|versions| *versions > 0))
            .await
            .expect("files")
            .expect("a mount");
        Self { mount, endpoint: env.aws.endpoint(), python, aws }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.mount.directory().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A command without the AWS configuration of this machine.
    fn program(&self, program: &Path, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.mount.directory())
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn python(&self, what: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = self.program(&self.python, variables);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/consumer.py")).arg(what);
        command
    }

    fn rust(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = self.program(&std::env::current_exe().expect("this program"), variables);
        command.env(SDK_VARIABLE, "1");
        command
    }

    fn cli(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = self.program(&self.aws, variables);
        command.args(["sts", "get-caller-identity", "--query", "Arn", "--output", "text"]);
        command
    }

    /// The caller identity of the Rust SDK, boto3 and the CLI.
    async fn caller_identities(&self, variables: &[(&str, &str)]) -> [String; 3] {
        let boto3 = output(self.python("once", variables)).await;
        let boto3 = boto3.split_once(' ').map_or(boto3.clone(), |(_, arn)| arn.to_owned());
        [output(self.rust(variables)).await, boto3, output(self.cli(variables)).await]
    }

    async fn reads(&self, what: &str, file: &str) -> String {
        let mut command = self.python(what, &[]);
        command.stdin(std::fs::File::open(self.file(file)).expect("the file"));
        output(command).await
    }
}

async fn output(mut command: Command) -> String {
    let Output { status, stdout, stderr } = tokio::time::timeout(TIMEOUT, command.output())
        .await
        .expect("the program exits in time")
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text").trim().to_owned()
}

/// A process that keeps one client.
struct LongLivedClient {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl LongLivedClient {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let answers = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { child, answers }
    }

    /// Makes one call. Returns key id and ARN.
    async fn call(&mut self) -> (String, String) {
        self.child.stdin.as_mut().expect("stdin").write_all(b"\n").await.expect("the program reads stdin");
        let answer = tokio::time::timeout(TIMEOUT, self.answers.next_line()).await.expect("a response in time");
        let answer = answer.expect("an answer").expect("the program runs");
        let (key, arn) = answer.split_once(' ').expect("key id and ARN");
        (key.to_owned(), arn.to_owned())
    }
}

fn spec(secret: &Value) -> Value {
    json!({
        "userName": "formed",
        "accessKey": {"region": "eu-west-1", "rotation": {"every": "Never", "overlap": "1h"}, "secret": secret},
    })
}

pub(crate) async fn every_format_is_readable_by_its_consumer() {
    let env = TestEnv::new().await;
    let formats = ["Environment", "CredentialsFile", "Csv", "ProcessJson", "SesSmtp"];
    let process = "[default]\nregion = {{ region }}\ncredential_process = cat credentials.json\n";
    let template = json!({
        "cloud": "[default]\naws_access_key_id={{ accessKeyId }}\naws_secret_access_key={{ secretAccessKey }}\n",
        "process": process,
    });
    env.apply("x", spec(&json!({"name": "keys", "formats": formats, "template": template}))).await;
    env.wait_ready("x").await;
    let arn = env.iam("formed").await.arn;
    let key = env.published_key("keys").await;
    let secret = env.secret_data("keys").await.expect("the Secret")["AWS_SECRET_ACCESS_KEY"].clone();
    let programs = Programs::for_secret(&env, "keys").await;
    let names = programs.mount.directory().to_owned();
    let path = |name: &str| names.join(name).to_string_lossy().into_owned();
    let all = [arn.clone(), arn.clone(), arn.clone()];

    let held: Vec<(String, String)> =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"]
            .map(|name| (name.to_owned(), programs.read(name)))
            .into();
    let environment: Vec<(&str, &str)> = held.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(programs.caller_identities(&environment).await, all, "Environment");

    let (credentials, config, cloud) = (path("credentials"), path("config"), path("cloud"));
    let files = [("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()), ("AWS_CONFIG_FILE", config.as_str())];
    assert_eq!(programs.caller_identities(&files).await, all, "CredentialsFile");
    let files = [("AWS_SHARED_CREDENTIALS_FILE", cloud.as_str()), ("AWS_CONFIG_FILE", config.as_str())];
    assert_eq!(programs.caller_identities(&files).await, all, "a template for Velero");

    for (name, command) in [
        ("without expiry", format!("cat {}", path("credentials.json"))),
        ("with an expiry", format!("sh {}", path("credential-process"))),
    ] {
        let file = env.directory.join("process-config");
        let text = programs.read("process").replace("cat credentials.json", &command);
        std::fs::write(&file, text).expect("a file");
        let file = file.to_string_lossy();
        let files = [("AWS_CONFIG_FILE", file.as_ref()), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")];
        assert_eq!(programs.caller_identities(&files).await, all, "ProcessJson {name}");
    }

    assert_eq!(programs.reads("console", "accessKeys.csv").await, format!("{key} {secret}"));
    assert_eq!(programs.reads("import", "configure-import.csv").await, format!("formed {key} {secret}"));
    assert_eq!(programs.read("smtp-username"), key);
    assert_eq!(programs.read("smtp-server"), "email-smtp.eu-west-1.amazonaws.com");
    assert!(!env.log().contains(&secret) && !env.log().contains(&programs.read("smtp-password")));
}

pub(crate) async fn credential_process_picks_up_a_new_key() {
    let env = TestEnv::new().await;
    env.apply("x", spec(&json!({"name": "keys", "formats": ["Environment", "ProcessJson"]}))).await;
    env.wait_ready("x").await;
    let arn = env.iam("formed").await.arn;
    let first = env.published_key("keys").await;
    let programs = Programs::for_secret(&env, "keys").await;
    let config = env.directory.join("process-config");
    let text = format!(
        "[default]\nregion = eu-west-1\ncredential_process = sh {}\n",
        programs.file("credential-process").display()
    );
    std::fs::write(&config, text).expect("a file");
    let config = config.to_string_lossy();
    // boto3 refreshes credentials that expire within 15 minutes; with an hour it does not.
    let started = |ask_again: &str| {
        let variables = [
            ("AWS_CONFIG_FILE", config.as_ref()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWSDEPLOY_ASK_AGAIN_AFTER", ask_again),
        ];
        LongLivedClient::start(programs.python("follow", &variables))
    };
    let (mut soon, mut late) = (started("300"), started("3600"));
    assert_eq!(soon.call().await, (first.clone(), arn.clone()));
    assert_eq!(late.call().await, (first.clone(), arn.clone()));

    let mut versions = programs.mount.versions();
    versions.mark_unchanged();
    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    let second = env.wait_published("keys", &first).await;
    let new = versions.wait_for(|_| programs.read("AWS_ACCESS_KEY_ID") == second);
    tokio::time::timeout(TIMEOUT, new).await.expect("new files").expect("a mount");
    assert_eq!(soon.call().await, (second, arn.clone()), "without a restart");
    assert_eq!(late.call().await, (first, arn), "only the expiry causes a refresh");
}

pub(crate) async fn changed_format_is_written_with_the_same_key() {
    let mut env = TestEnv::new().await;
    env.apply("x", spec(&json!({"name": "keys", "template": {"cloud": "a {{ accessKeyId }}"}}))).await;
    env.wait_ready("x").await;
    let key = env.published_key("keys").await;
    env.apply("x", spec(&json!({"name": "keys", "formats": ["Csv"], "template": {"cloud": "b {{ accessKeyId }}"}})))
        .await;
    let written = async || {
        let secret = env.secret_data("keys").await?;
        (secret["cloud"] == format!("b {key}")).then_some(secret)
    };
    let secret = eventually("the new formats", written, || env.log()).await;
    let names: Vec<&str> = secret.keys().map(String::as_str).collect();
    assert_eq!(names, ["accessKeys.csv", "cloud", "configure-import.csv"]);
    assert!(secret["accessKeys.csv"].contains(&key));
    assert_eq!(env.aws.log().calls_of("CreateAccessKey").len(), 1);
    env.wait_ready("x").await;
    env.assert_restart_writes_nothing("x").await;
}

pub(crate) async fn invalid_template_creates_no_key() {
    let env = TestEnv::new().await;
    env.apply("x", spec(&json!({"template": {"cloud": "id\n{{ secretKey }}"}}))).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::InvalidSpec)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains(r#"spec.accessKey.secret.template: "cloud": line 2: "secretKey" is not a value"#), "{text}");
    assert_eq!(env.iam_opt("formed").await, None, "nothing was created");

    env.apply("x", spec(&json!({"template": {"cloud": "{{ accessKeyId }}"}}))).await;
    env.wait_ready("x").await;
    let key = env.published_key("x").await;
    env.apply("x", spec(&json!({"template": {"config": "taken"}}))).await;
    let user = env.wait_for_condition("x", ConditionType::Ready, "False", Some(Reason::InvalidSpec)).await;
    let text = message(&user, ConditionType::Ready);
    assert!(text.contains("the format CredentialsFile also writes the data key"), "{text}");
    let secret = env.secret_data("x").await.expect("the Secret");
    assert_eq!((&secret["cloud"], &secret["AWS_ACCESS_KEY_ID"]), (&key, &key), "the Secret is unchanged");
}
