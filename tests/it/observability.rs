//! Metrics, logs and health endpoints.

use std::{process::Command, time::Duration};

use awsdeploy::api::{Reason, well_known};
use awsdeploy_testkit::{
    aws_proxy::Rule,
    pki::{CertificateAuthority, Identity},
    run_dir::RunDir,
    secret_mount::{AtomicDirectory, VolumeFiles},
    tls::TlsClient,
};
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::test_env::{EnvOptions, TestEnv, eventually};

/// The value of the metric whose line starts with `line`.
async fn metric(env: &TestEnv, line: &str) -> Option<f64> {
    let metrics = env.operator.metrics().await.expect("metrics");
    metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
}

async fn wait_for_metric(env: &TestEnv, line: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let probe = async || metric(env, line).await.filter(|value| wanted(*value));
    eventually(line, probe, || env.log()).await
}

pub(crate) async fn metrics_follow_a_resource_until_its_deletion() {
    let env = TestEnv::new().await;
    let labels = format!("{{namespace=\"{}\",name=\"x\"}} ", env.namespace);
    let spec = |every: &str| json!({"accessKey": {"rotation": {"every": every, "overlap": "1h"}}});
    env.apply("x", spec("30d")).await;
    env.wait_ready("x").await;
    wait_for_metric(&env, &format!("awsdeploy_ready{labels}"), |ready| ready > 0.5).await;
    let created = wait_for_metric(&env, &format!("awsdeploy_key_created_timestamp_seconds{labels}"), |_| true).await;
    let next = wait_for_metric(&env, &format!("awsdeploy_next_rotation_timestamp_seconds{labels}"), |_| true).await;
    let days = (next - created) / 86_400.0;
    assert!((29.9..30.1).contains(&days), "30 days later, not {days}");
    assert_eq!(metric(&env, "awsdeploy_leader ").await, Some(1.0));
    assert_eq!(env.metric_count(r#"awsdeploy_rotations_total{result="published"}"#).await, 1);
    assert_eq!(env.metric_count("awsdeploy_key_verification_seconds_count").await, 1);

    env.annotate("x", well_known::ANNOTATION_ROTATE, "now").await;
    wait_for_metric(&env, r#"awsdeploy_keys{state="Superseded"}"#, |keys| keys > 0.5).await;
    assert_eq!(env.metric_count(r#"awsdeploy_rotations_total{result="published"}"#).await, 2);
    env.apply("x", spec("Never")).await;
    let next = format!("awsdeploy_next_rotation_timestamp_seconds{labels}");
    let absent = async || metric(&env, &next).await.is_none().then_some(());
    eventually("no next rotation", absent, || env.log()).await;

    env.delete("x").await;
    env.wait_deleted("x").await;
    wait_for_metric(&env, "awsdeploy_resources ", |resources| resources < 0.5).await;
    let metrics = env.operator.metrics().await.expect("metrics");
    assert!(!metrics.contains(&labels), "no series of a deleted resource: {metrics}");
}

pub(crate) async fn throttled_calls_are_counted() {
    let env = TestEnv::new().await;
    env.aws.rules().add(Rule::on("GetUser").first(3).throttle());
    env.apply("x", json!({})).await;
    env.wait_ready("x").await;
    let line = format!("awsdeploy_aws_throttled_total{{account=\"{}\"}}", env.account.id());
    assert_eq!(env.metric_count(&line).await, 3, "every throttled attempt, not only the last of a call");
}

pub(crate) async fn every_json_log_line_names_its_reconcile() {
    let env = TestEnv::with_arguments(&["--log-format=json", "--metrics-per-resource=false"]).await;
    env.apply("x", json!({})).await;
    env.wait_ready("x").await;
    env.wait_for_event("x", Reason::Published).await;
    let lines: Vec<Value> = env
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let acting: Vec<&Value> = lines.iter().filter(|line| line["message"] == "executing effect").collect();
    assert!(acting.len() >= 5, "{acting:#?}");
    for line in &acting {
        assert_eq!(line["span"]["resource"], "x", "{line}");
        assert!(line["span"]["reconcile_id"].is_u64(), "{line}");
    }
    let metrics = env.operator.metrics().await.expect("metrics");
    assert!(metrics.contains("awsdeploy_resources 1") && !metrics.contains("namespace="), "{metrics}");
}

pub(crate) async fn unparsable_kubeconfig_is_not_quoted() {
    let run = RunDir::create().expect("a directory");
    let file = run.path().join("kubeconfig");
    std::fs::write(&file, "users:\n- name: a\n  user: [token: canary\n").expect("a file");
    let mut operator = Command::new(env!("CARGO_BIN_EXE_aws-deploy-user-operator"));
    let output = operator.env("KUBECONFIG", file).args(["--metrics-bind-address=127.0.0.1:0"]).output();
    let error = output.expect("the operator runs").stderr;
    let error = String::from_utf8_lossy(&error);
    assert!(error.contains("the kubeconfig cannot be parsed"), "{error}");
    assert!(!error.contains("canary"), "{error}");
}

pub(crate) async fn operator_process_writes_no_core_dump() {
    let env = TestEnv::new().await;
    let limits = format!("/proc/{}/limits", env.operator.process().id());
    let limits = std::fs::read_to_string(limits).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(line.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

pub(crate) async fn metrics_require_authorization_if_configured() {
    let env = TestEnv::with_arguments(&["--metrics-auth"]).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(env.client.clone(), &env.namespace);
    let prometheus = serde_json::from_value(json!({"metadata": {"name": "prometheus"}})).expect("an account");
    accounts.create(&PostParams::default(), &prometheus).await.expect("an account");
    let request = serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": []}})).expect("a request");
    let request = accounts.create_token_request("prometheus", &PostParams::default(), &request).await.expect("a token");
    let token = request.status.expect("a token").token;
    let status = async |token: Option<&str>| env.operator.metrics_with_token(token).await.expect("an answer");

    assert_eq!(status(None).await.0, 401);
    assert_eq!(status(Some("nonsense")).await.0, 401);
    let (forbidden, body) = status(Some(&token)).await;
    assert_eq!(forbidden, 403);
    let user = format!("system:serviceaccount:{}:prometheus", env.namespace);
    assert!(body.contains(&user) && body.contains("metrics-reader"), "{body}");

    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": format!("{}-prometheus", env.namespace)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aws-deploy-user-operator-metrics-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": env.namespace}],
    }))
    .expect("a binding");
    let bindings: Api<ClusterRoleBinding> = Api::all(env.client.clone());
    bindings.create(&PostParams::default(), &binding).await.expect("a binding");
    let read = async || {
        let (status, text) = env.operator.metrics_with_token(Some(&token)).await.expect("an answer");
        (status == 200).then_some(text)
    };
    let text = eventually("metrics with authorization", read, || env.log()).await;
    assert!(text.contains("awsdeploy_build_info"), "{text}");
    assert_eq!(status(None).await.0, 401, "only for the authorized account");
    assert!(!env.log().contains(&token), "no token is logged");
}

pub(crate) async fn endpoints_serve_tls_and_reload_their_certificate() {
    const NAME: &str = "operator-metrics.operators.svc";
    let authority = CertificateAuthority::new().expect("an authority");
    let identity = || authority.issue_server_certificate([NAME]).expect("a certificate");
    let files = |certificate: &Identity, key: &Identity| -> VolumeFiles {
        [("tls.crt".to_owned(), certificate.certificate.clone()), ("tls.key".to_owned(), key.key.clone())]
            .map(|(name, text)| (name, text.into_bytes()))
            .into()
    };
    let run = RunDir::create().expect("a directory");
    let mut mount = AtomicDirectory::new(run.path().join("tls")).expect("a mount");
    let (first, second) = (identity(), identity());
    mount.write(&files(&first, &first)).expect("a Secret is mounted");
    let path = |name: &str| run.path().join("tls").join(name).display().to_string();
    let client = TlsClient::new(authority.certificate(), NAME).expect("a client");
    let env = TestEnv::with_options(EnvOptions {
        arguments: vec!["--metrics-auth"],
        variables: vec![
            ("AWSDEPLOY_METRICS_TLS_CERT", path("tls.crt")),
            ("AWSDEPLOY_METRICS_TLS_KEY", path("tls.key")),
        ],
        tls: Some(client.clone()),
        ..EnvOptions::default()
    })
    .await;
    let address = env.operator.metrics_address();
    let connect = async || client.connect(address).await.expect("the certificate is valid");

    let shown = connect().await.certificate().to_vec();
    let status = async |path, token| connect().await.get(path, token).await.expect("an answer").0;
    assert_eq!(status("/livez", None).await, 200);
    assert_eq!(status("/metrics", None).await, 401);
    assert_eq!(status("/metrics", Some("nonsense")).await, 401);
    let other_authority = CertificateAuthority::new().expect("another authority");
    let other_authority = TlsClient::new(other_authority.certificate(), NAME).expect("a client");
    assert!(other_authority.connect(address).await.is_err(), "the certificate is signed by the test's CA");
    let plain = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let response = plain_http_response(plain).await;
    assert!(!response.starts_with(b"HTTP"), "no answer without TLS: {response:?}");

    // A certificate with the key of another one.
    mount.write(&files(&second, &first)).expect("the Secret is replaced");
    let warned = async || {
        assert_eq!(connect().await.certificate(), shown, "an invalid pair is not served");
        env.log().contains("is not the key of the certificate").then_some(())
    };
    eventually("a warning", warned, || env.log()).await;

    mount.write(&files(&second, &second)).expect("the Secret is renewed");
    let renewed = async || (connect().await.certificate() != shown).then_some(());
    eventually("the new certificate", renewed, || env.log()).await;
    assert_eq!(env.log().matches("is not the key").count(), 1, "an invalid pair is logged once: {}", env.log());
    assert!(!env.log().contains("PRIVATE KEY"), "{}", env.log());

    let _open = connect().await;
    let exit = env.operator.stop(Duration::from_secs(20)).await;
    assert!(exit.success(), "an open connection does not block the shutdown: {exit}");
}

async fn plain_http_response(mut connection: tokio::net::TcpStream) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    let mut response = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut response));
    let _ = read.await.expect("the connection is closed");
    response
}
