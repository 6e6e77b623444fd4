//! The presets of the chart and the examples, applied until they are Ready.

use std::{collections::BTreeSet, fs, path::Path};

use awsdeploy::api::{AwsDeployUser, Reason};
use awsdeploy_testkit::aws_proxy::{Call, DEFAULT_ACCOUNT_ID};
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::test_env::{CDK_POLICY, EnvOptions, PRESET_PREFIX, TestEnv};

/// The manifest that replaces the guide of the tool.
fn manifest(preset: &str, spec: &str) -> String {
    format!(
        "
apiVersion: awsdeploy.dev/v1alpha1
kind: AwsDeployUser
metadata: {{name: {preset}, namespace: {PRESET_PREFIX}{preset}}}
spec:
  className: {preset}
{spec}"
    )
}

/// Applies the manifest and checks user, policy and Secret.
async fn apply_preset(env: &TestEnv, preset: &str, spec: &str, policy: &str) {
    let manifest = manifest(preset, spec);
    assert!(manifest.trim().lines().count() <= 10);
    let user: AwsDeployUser = serde_saphyr::from_str(&manifest).expect("a manifest");
    env.users().create(&PostParams::default(), &user).await.expect("the manifest is valid");
    env.wait_ready(preset).await;
    let iam = env.iam(&format!("{PRESET_PREFIX}{preset}_{preset}")).await;
    assert_eq!(iam.attached, BTreeSet::from([policy.to_owned()]), "the policy is the class's default");
    assert!(iam.inline.is_empty() && iam.groups.is_empty(), "{iam:?}");
    let secret = env.secret_data(&format!("{preset}-aws")).await.expect("the Secret is there");
    assert!(env.account.secret_matches(&iam.keys[0].id, &secret["AWS_SECRET_ACCESS_KEY"]));
}

/// Starts an operator in the namespace of a preset, with the IAM policy of that class only.
async fn start_env(preset: &'static str, account: Option<&'static str>) -> TestEnv {
    let namespace = match preset {
        "cycle" => "preset-cycle",
        "defang" => "preset-defang",
        _ => "preset-cdk",
    };
    let env_options =
        EnvOptions { namespace: Some(namespace), account, own_classes_only: true, ..EnvOptions::default() };
    let env = TestEnv::with_options(env_options).await;
    let class = env.classes().get(preset).await.expect("the preset's class");
    env.grant_class_permissions(preset, &serde_json::to_value(class.spec).expect("JSON"));
    env
}

pub(crate) async fn cycle_preset_needs_ten_lines() {
    let spec =
        "  accessKey:\n    description: Cycle hub\n    useCase: ThirdPartyService\n    secret: {name: cycle-aws}\n";
    let env = start_env("cycle", None).await;
    apply_preset(&env, "cycle", spec, "arn:aws:iam::aws:policy/AmazonEC2FullAccess").await;
    env.apply("more", json!({"className": "cycle", "policies": {"managed": ["AmazonS3FullAccess"]}})).await;
    let text = env.wait_for_event("more", Reason::NotAllowed).await;
    assert!(text.contains("it allows: AmazonEC2FullAccess"), "{text}");
}

pub(crate) async fn defang_preset_needs_ten_lines() {
    let spec =
        "  accessKey:\n    description: Defang\n    useCase: ApplicationOnAwsCompute\n    secret: {name: defang-aws}\n";
    let env = start_env("defang", None).await;
    apply_preset(&env, "defang", spec, "arn:aws:iam::aws:policy/AdministratorAccess").await;
}

pub(crate) async fn cdk_preset_needs_ten_lines() {
    // The preset contains the ARN of a policy, and so an account id.
    let env = start_env("cdk", Some(DEFAULT_ACCOUNT_ID)).await;
    let arn =
        env.aws.manual_changes().create_policy("cdk-deploy", &cdk_policy(DEFAULT_ACCOUNT_ID)).await.expect("a policy");
    assert_eq!(arn, CDK_POLICY);
    let spec = "  accessKey:\n    description: CDK\n    useCase: CommandLineInterface\n    secret: {name: cdk-aws}\n";
    apply_preset(&env, "cdk", spec, CDK_POLICY).await;
}

/// The policy in values.yaml and `examples/classes/cdk.yaml`.
fn cdk_policy(account: &str) -> String {
    let roles = format!("arn:aws:iam::{account}:role/cdk-*");
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": roles}]})
        .to_string()
}

/// The documents of a folder of examples with their files, for the account of the test.
fn examples(folder: &str, account: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let text = fs::read_to_string(file).expect("an example").replace(DEFAULT_ACCOUNT_ID, account);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        found.extend(documents.into_iter().map(|document| (name.clone(), document)));
    }
    found
}

/// Applies every example of a namespace with the IAM policy of their classes only.
async fn apply_examples(namespace: &'static str, wanted: usize) {
    let env_options = EnvOptions {
        namespace: Some(namespace),
        arguments: vec!["--cluster-id=it"],
        own_classes_only: true,
        ..EnvOptions::default()
    };
    let env = TestEnv::with_options(env_options).await;
    let (manual_changes, account) = (env.aws.manual_changes(), env.account.id().to_owned());
    manual_changes.create_policy("cdk-deploy", &cdk_policy(&account)).await.expect("a policy");
    // The user and the consent tag that adopted.yaml needs.
    let create = Call::iam("CreateUser").with("UserName", "ci-deployer").with("Path", "/awsdeploy/");
    let consent = [("awsdeploy.dev/adoptable-by", format!("it/{namespace}/ci"))];
    manual_changes
        .call(&create.with_tags(consent.iter().map(|(key, value)| (*key, value))))
        .await
        .expect("an unmanaged user");
    // Class names are prefixed, as classes are shared with other tests.
    for (_, class) in examples("examples/classes", &account) {
        env.apply_class(class["metadata"]["name"].as_str().expect("a name"), class["spec"].clone()).await;
    }
    let mut applied = 0;
    for (file, user) in examples("examples", &account) {
        if user["kind"] != "AwsDeployUser" || user["metadata"]["namespace"] != namespace {
            continue;
        }
        let name = user["metadata"]["name"].as_str().expect("a name");
        let mut spec = user["spec"].clone();
        spec["className"] = json!(format!("{namespace}-{}", spec["className"].as_str().expect("a class")));
        env.apply(name, spec).await;
        let status = env.wait_ready(name).await.status.expect("a status");
        let iam = env.iam(&status.user.as_ref().expect("a user").name).await;
        assert!(!iam.attached.is_empty() || !iam.inline.is_empty(), "{file}: {iam:?}");
        let secret = status.secret_name.unwrap_or_else(|| format!("{name}-console"));
        assert!(env.secret_data(&secret).await.is_some_and(|data| !data.is_empty()), "{file}");
        applied += 1;
    }
    assert_eq!(applied, wanted);
}

pub(crate) async fn every_example_creates_its_user_and_secret() {
    apply_examples("deploy", 9).await;
    apply_examples("velero", 1).await;
}
