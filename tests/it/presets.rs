//! What the repository gives people to start from: the chart's presets and the examples, played to their end.

use std::{collections::BTreeSet, fs, path::Path};

use awsdeploy::api::{AwsDeployUser, Reason};
use awsdeploy_testkit::aws_proxy::{Call, DEFAULT_ACCOUNT_ID};
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::stage::{CDK_POLICY, PRESET, Stage, Wishes};

/// With the preset, the guide of the tool is this manifest.
fn manifest(preset: &str, spec: &str) -> String {
    format!(
        "
apiVersion: awsdeploy.dev/v1alpha1
kind: AwsDeployUser
metadata: {{name: {preset}, namespace: {PRESET}{preset}}}
spec:
  className: {preset}
{spec}"
    )
}

/// Applies the manifest, and looks for user, policy and Secret.
async fn play(stage: &Stage, preset: &str, spec: &str, policy: &str) {
    let manifest = manifest(preset, spec);
    assert!(manifest.trim().lines().count() <= 10);
    let user: AwsDeployUser = serde_saphyr::from_str(&manifest).expect("a manifest");
    stage.users().create(&PostParams::default(), &user).await.expect("it is taken");
    stage.ready(preset).await;
    let iam = stage.iam(&format!("{PRESET}{preset}-{preset}")).await;
    assert_eq!(iam.attached, BTreeSet::from([policy.to_owned()]), "the policy is the class's default");
    assert!(iam.inline.is_empty() && iam.groups.is_empty(), "{iam:?}");
    let secret = stage.secret(&format!("{preset}-aws")).await.expect("the Secret is there");
    assert!(stage.account.secret_matches(&iam.keys[0].id, &secret["AWS_SECRET_ACCESS_KEY"]));
}

/// A stage in the namespace of a preset, whose operator has the IAM policy of that class alone.
async fn stage(preset: &'static str, account: Option<&'static str>) -> Stage {
    let namespace = match preset {
        "cycle" => "preset-cycle",
        "defang" => "preset-defang",
        _ => "preset-cdk",
    };
    let wishes = Wishes { namespace: Some(namespace), account, own_classes_only: true, ..Wishes::default() };
    let stage = Stage::with(wishes).await;
    let class = stage.classes().get(preset).await.expect("the preset's class");
    stage.grant(preset, &serde_json::to_value(class.spec).expect("JSON"));
    stage
}

pub(crate) async fn the_cycle_preset_needs_ten_lines() {
    let spec =
        "  accessKey:\n    description: Cycle hub\n    useCase: ThirdPartyService\n    secret: {name: cycle-aws}\n";
    let stage = stage("cycle", None).await;
    play(&stage, "cycle", spec, "arn:aws:iam::aws:policy/AmazonEC2FullAccess").await;
    stage.apply("more", json!({"className": "cycle", "policies": {"managed": ["AmazonS3FullAccess"]}})).await;
    let told = stage.event("more", Reason::NotAllowed).await;
    assert!(told.contains("it allows: AmazonEC2FullAccess"), "{told}");
}

pub(crate) async fn the_defang_preset_needs_ten_lines() {
    let spec =
        "  accessKey:\n    description: Defang\n    useCase: ApplicationOnAwsCompute\n    secret: {name: defang-aws}\n";
    let stage = stage("defang", None).await;
    play(&stage, "defang", spec, "arn:aws:iam::aws:policy/AdministratorAccess").await;
}

pub(crate) async fn the_cdk_preset_needs_ten_lines() {
    // The preset names a policy, and so an account.
    let stage = stage("cdk", Some(DEFAULT_ACCOUNT_ID)).await;
    let arn = stage.aws.human().create_policy("cdk-deploy", &take_roles(DEFAULT_ACCOUNT_ID)).await.expect("a policy");
    assert_eq!(arn, CDK_POLICY);
    let spec = "  accessKey:\n    description: CDK\n    useCase: CommandLineInterface\n    secret: {name: cdk-aws}\n";
    play(&stage, "cdk", spec, CDK_POLICY).await;
}

/// The policy of values.yaml and of `examples/classes/cdk.yaml`.
fn take_roles(account: &str) -> String {
    let roles = format!("arn:aws:iam::{account}:role/cdk-*");
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": roles}]})
        .to_string()
}

/// The documents of `examples` that are ours and are for a namespace, by file; in the account of the test.
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

/// Every example of a namespace, with the class that it names, under the IAM policy of these classes alone.
async fn play_examples(namespace: &'static str, wanted: usize) {
    let wishes = Wishes {
        namespace: Some(namespace),
        arguments: vec!["--cluster-id=it"],
        own_classes_only: true,
        ..Wishes::default()
    };
    let stage = Stage::with(wishes).await;
    let (human, account) = (stage.aws.human(), stage.account.id().to_owned());
    human.create_policy("cdk-deploy", &take_roles(&account)).await.expect("a policy");
    // What an AWS admin does for adopted.yaml.
    let create = Call::iam("CreateUser").with("UserName", "ci-deployer").with("Path", "/awsdeploy/");
    let consent = [("awsdeploy.dev/adoptable-by", format!("it/{namespace}/ci"))];
    human.call(&create.with_tags(consent.iter().map(|(key, value)| (*key, value)))).await.expect("somebody's user");
    // Names of classes are shared with the other tests.
    for (_, class) in examples("examples/classes", &account) {
        stage.class(class["metadata"]["name"].as_str().expect("a name"), class["spec"].clone()).await;
    }
    let mut played = 0;
    for (file, user) in examples("examples", &account) {
        if user["kind"] != "AwsDeployUser" || user["metadata"]["namespace"] != namespace {
            continue;
        }
        let name = user["metadata"]["name"].as_str().expect("a name");
        let mut spec = user["spec"].clone();
        spec["className"] = json!(format!("{namespace}-{}", spec["className"].as_str().expect("a class")));
        stage.apply(name, spec).await;
        let status = stage.ready(name).await.status.expect("a status");
        let iam = stage.iam(&status.user.as_ref().expect("a user").name).await;
        assert!(!iam.attached.is_empty() || !iam.inline.is_empty(), "{file}: {iam:?}");
        let secret = status.secret_name.unwrap_or_else(|| format!("{name}-console"));
        assert!(stage.secret(&secret).await.is_some_and(|data| !data.is_empty()), "{file}");
        played += 1;
    }
    assert_eq!(played, wanted);
}

pub(crate) async fn every_example_comes_to_its_user_and_secret() {
    play_examples("deploy", 9).await;
    play_examples("velero", 1).await;
}
