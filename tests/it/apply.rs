//! The tools that the tests apply resources with write what the real ones write.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::test_env::{ApplyMethod, LAST_APPLIED, TestEnv};

fn spec(name: &str, tags: &Value) -> Value {
    json!({"userName": name, "tags": tags})
}

pub(crate) async fn every_tool_creates_edits_and_removes_fields() {
    let env = TestEnv::new().await;
    for (number, method) in ApplyMethod::ALL.into_iter().enumerate() {
        let name = format!("x{number}");
        env.apply_with(method, &name, spec(&name, &json!({"team": "payments", "stage": "test"}))).await;
        env.wait_ready(&name).await;
        let user = env.apply_with(method, &name, spec(&name, &json!({"team": "search"}))).await;
        assert_eq!(json!(user.spec.tags), json!({"team": "search"}), "{method:?}");
        let managers: Vec<_> = user.managed_fields().iter().filter_map(|fields| fields.manager.as_deref()).collect();
        assert!(managers.contains(&method.manager()), "{method:?}: {managers:?}");
        assert_eq!(user.annotations().contains_key(LAST_APPLIED), method == ApplyMethod::Kubectl, "{method:?}");
        let again = env.apply_with(method, &name, spec(&name, &json!({"team": "search"}))).await;
        assert_eq!(again.metadata.generation, user.metadata.generation, "{method:?}");
    }
}

pub(crate) async fn kubectl_finds_what_tests_applied_unchanged() {
    let env = TestEnv::new().await;
    env.apply_with(ApplyMethod::Kubectl, "x", spec("u", &json!({"team": "payments", "stage": "test"}))).await;
    let declared = spec("u", &json!({"team": "search"}));
    env.apply_with(ApplyMethod::Kubectl, "x", declared.clone()).await;
    let output = env.kubectl_apply("x", declared).await;
    assert!(output.contains("unchanged"), "{output}");
}
