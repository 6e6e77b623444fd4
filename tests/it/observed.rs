//! What the operator shows of itself: metrics and logs.

use std::time::Duration;

use awsdeploy::api::{Reason, mark};
use awsdeploy_testkit::{
    aws_proxy::Rule,
    mounted::{AtomicDirectory, Files},
    pki::{Authority, Identity},
    run_dir::RunDir,
    tls::TlsClient,
};
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::stage::{Stage, Wishes, eventually};

/// The value of the line of the metrics that begins with `line`.
async fn value(stage: &Stage, line: &str) -> Option<f64> {
    let metrics = stage.operator.metrics().await.expect("metrics");
    metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
}

async fn until(stage: &Stage, line: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let probe = async || value(stage, line).await.filter(|value| wanted(*value));
    eventually(line, probe, || stage.log()).await
}

pub(crate) async fn metrics_follow_a_resource_from_its_first_key_to_its_end() {
    let stage = Stage::new().await;
    let labels = format!("{{namespace=\"{}\",name=\"x\"}} ", stage.namespace);
    let spec = |every: &str| json!({"accessKey": {"rotation": {"every": every, "overlap": "1h"}}});
    stage.apply("x", spec("30d")).await;
    stage.ready("x").await;
    until(&stage, &format!("awsdeploy_ready{labels}"), |ready| ready > 0.5).await;
    let made = until(&stage, &format!("awsdeploy_key_created_timestamp_seconds{labels}"), |_| true).await;
    let next = until(&stage, &format!("awsdeploy_next_rotation_timestamp_seconds{labels}"), |_| true).await;
    let days = (next - made) / 86_400.0;
    assert!((29.9..30.1).contains(&days), "30 days later, not {days}");
    assert_eq!(value(&stage, "awsdeploy_leader ").await, Some(1.0));
    assert_eq!(stage.count(r#"awsdeploy_rotations_total{result="published"}"#).await, 1);
    assert_eq!(stage.count("awsdeploy_key_verification_seconds_count").await, 1);

    stage.annotate("x", mark::ANNOTATION_ROTATE, "now").await;
    until(&stage, r#"awsdeploy_keys{state="Superseded"}"#, |keys| keys > 0.5).await;
    assert_eq!(stage.count(r#"awsdeploy_rotations_total{result="published"}"#).await, 2);
    stage.apply("x", spec("Never")).await;
    let next = format!("awsdeploy_next_rotation_timestamp_seconds{labels}");
    let absent = async || value(&stage, &next).await.is_none().then_some(());
    eventually("no next rotation", absent, || stage.log()).await;

    stage.delete("x").await;
    stage.gone("x").await;
    until(&stage, "awsdeploy_resources ", |resources| resources < 0.5).await;
    let metrics = stage.operator.metrics().await.expect("metrics");
    assert!(!metrics.contains(&labels), "nothing stays of a resource that is gone: {metrics}");
}

pub(crate) async fn throttled_calls_are_counted() {
    let stage = Stage::new().await;
    stage.aws.rules().add(Rule::on("GetUser").first(3).throttle());
    stage.apply("x", json!({})).await;
    stage.ready("x").await;
    let line = format!("awsdeploy_aws_throttled_total{{account=\"{}\"}}", stage.account.id());
    assert_eq!(stage.count(&line).await, 3, "each answer, not only the last of a call");
}

pub(crate) async fn every_line_of_a_json_log_names_its_pass() {
    let stage = Stage::with_arguments(&["--log-format=json", "--metrics-per-resource=false"]).await;
    stage.apply("x", json!({})).await;
    stage.ready("x").await;
    stage.event("x", Reason::Published).await;
    let lines: Vec<Value> = stage
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let acting: Vec<&Value> = lines.iter().filter(|line| line["message"] == "acting").collect();
    assert!(acting.len() >= 5, "{acting:#?}");
    for line in &acting {
        assert_eq!(line["span"]["resource"], "x", "{line}");
        assert!(line["span"]["reconcile_id"].is_u64(), "{line}");
    }
    let metrics = stage.operator.metrics().await.expect("metrics");
    assert!(metrics.contains("awsdeploy_resources 1") && !metrics.contains("namespace="), "{metrics}");
}

pub(crate) async fn metrics_are_for_those_who_may_read_them_where_that_is_asked_for() {
    let stage = Stage::with_arguments(&["--metrics-auth"]).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let prometheus = serde_json::from_value(json!({"metadata": {"name": "prometheus"}})).expect("an account");
    accounts.create(&PostParams::default(), &prometheus).await.expect("an account");
    let request = serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": []}})).expect("a request");
    let made = accounts.create_token_request("prometheus", &PostParams::default(), &request).await.expect("a token");
    let token = made.status.expect("a token").token;
    let status = async |token: Option<&str>| stage.operator.metrics_as(token).await.expect("an answer");

    assert_eq!(status(None).await.0, 401);
    assert_eq!(status(Some("nonsense")).await.0, 401);
    let (forbidden, told) = status(Some(&token)).await;
    assert_eq!(forbidden, 403);
    let user = format!("system:serviceaccount:{}:prometheus", stage.namespace);
    assert!(told.contains(&user) && told.contains("metrics-reader"), "{told}");

    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": format!("{}-prometheus", stage.namespace)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aws-deploy-user-operator-metrics-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": stage.namespace}],
    }))
    .expect("a binding");
    let bindings: Api<ClusterRoleBinding> = Api::all(stage.client.clone());
    bindings.create(&PostParams::default(), &binding).await.expect("a binding");
    let read = async || {
        let (status, text) = stage.operator.metrics_as(Some(&token)).await.expect("an answer");
        (status == 200).then_some(text)
    };
    let text = eventually("metrics for who may read them", read, || stage.log()).await;
    assert!(text.contains("awsdeploy_build_info"), "{text}");
    assert_eq!(status(None).await.0, 401, "for that one alone");
    assert!(!stage.log().contains(&token), "no token is ever logged");
}

pub(crate) async fn the_endpoints_speak_tls_and_follow_their_certificate() {
    const NAME: &str = "operator-metrics.operators.svc";
    let authority = Authority::new().expect("an authority");
    let identity = || authority.server_for([NAME]).expect("a certificate");
    let files = |certificate: &Identity, key: &Identity| -> Files {
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
    let stage = Stage::with(Wishes {
        arguments: vec!["--metrics-auth"],
        variables: vec![
            ("AWSDEPLOY_METRICS_TLS_CERT", path("tls.crt")),
            ("AWSDEPLOY_METRICS_TLS_KEY", path("tls.key")),
        ],
        tls: Some(client.clone()),
        ..Wishes::default()
    })
    .await;
    let address = stage.operator.metrics_address();
    let connect = async || client.connect(address).await.expect("the certificate is good");

    let shown = connect().await.certificate().to_vec();
    let status = async |path, token| connect().await.get(path, token).await.expect("an answer").0;
    assert_eq!(status("/livez", None).await, 200);
    assert_eq!(status("/metrics", None).await, 401);
    assert_eq!(status("/metrics", Some("nonsense")).await, 401);
    let stranger = Authority::new().expect("another authority");
    let stranger = TlsClient::new(stranger.certificate(), NAME).expect("a client");
    assert!(stranger.connect(address).await.is_err(), "the certificate is of our authority");
    let plain = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let said = plain_answer(plain).await;
    assert!(!said.starts_with(b"HTTP"), "no answer without TLS: {said:?}");

    // Its key would be another one.
    mount.write(&files(&second, &first)).expect("the Secret is replaced");
    let warned = async || {
        assert_eq!(connect().await.certificate(), shown, "what is broken is not served");
        stage.log().contains("is not the key of the certificate").then_some(())
    };
    eventually("a warning", warned, || stage.log()).await;

    // It is asked all along: a connection that says nothing for ten seconds is closed.
    let standing = Mutex::new(connect().await);
    let stands = async || {
        let (status, _) =
            standing.lock().await.get("/readyz", None).await.expect("a connection stands through a renewal");
        assert_eq!(status, 200);
    };
    stands().await;
    mount.write(&files(&second, &second)).expect("the Secret is renewed");
    let renewed = async || {
        stands().await;
        (connect().await.certificate() != shown).then_some(())
    };
    eventually("the new certificate", renewed, || stage.log()).await;
    stands().await;
    assert_eq!(stage.log().matches("is not the key").count(), 1, "a broken pair is told once: {}", stage.log());
    assert!(!stage.log().contains("PRIVATE KEY"), "{}", stage.log());

    let ended = stage.operator.stop(Duration::from_secs(20)).await;
    assert!(ended.success(), "a connection that stands keeps no operator from its end: {ended}");
}

async fn plain_answer(mut connection: tokio::net::TcpStream) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut said));
    let _ = read.await.expect("the connection is closed");
    said
}
