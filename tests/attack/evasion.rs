//! A tenant that keeps a key, or makes keys, beyond what its class and the settings of the operator allow.

use awsdeploy::api::{AwsDeployUser, class::OnRevoked, well_known};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    arena::{Arena, class_for},
    tenant::{Kind, PAUSE},
};

fn revoking_class(arena: &Arena) -> Value {
    class_for(&[&arena.tenant.namespace], "Deactivate")
}

async fn wait_inactive(arena: &Arena, resource: &str) {
    let name = arena.user_name(resource);
    arena.env.wait_for_iam(&name, "without an Active key", |user| user.active_keys().is_empty()).await;
}

/// The claim is that of an installation that is gone, or of an actor that may write the status. A revocation needs no claim:
/// it removes the same things, whichever operator does it.
pub(crate) async fn foreign_claim_does_not_delay_a_revocation() {
    let arena = Arena::new().await;
    arena.env.apply_class("tenant", revoking_class(&arena)).await;
    arena.create("a").await;
    let claim = json!({"status": {"operatorNamespace": "nowhere"}});
    let claimed = arena.env.users().patch_status("a", &PatchParams::default(), &Patch::Merge(&claim)).await;
    claimed.expect("the status is written");
    arena.env.apply_class("tenant", class_for(&[], "Deactivate")).await;
    wait_inactive(&arena, "a").await;
}

/// The class that allowed the resource is deleted. Which class the resource names meanwhile changes nothing: one that is missing
/// too, that this version cannot read, or that is for another account.
pub(crate) async fn renamed_class_does_not_prolong_the_grace() {
    let arena = Arena::with_arguments(&["--class-absence-grace=6s"]).await;
    arena.env.apply_class("tenant", revoking_class(&arena)).await;
    arena.create("a").await;
    let revokes = |user: &AwsDeployUser| {
        let class = user.status.as_ref().and_then(|status| status.class.as_ref());
        class.is_some_and(|class| class.on_revoked == OnRevoked::Deactivate)
    };
    arena.env.wait_until("a", "allowed by the class that revokes", revokes).await;
    let params = kube::api::DeleteParams::default();
    let deep = (0..60).fold(json!("end"), |inner, _| json!([inner]));
    let template = json!({"name": "deep", "document": {"Version": "2012-10-17", "Statement": deep}});
    let unreadable = arena.env.apply_class("unreadable", json!({"policies": {"templates": [template]}})).await;
    let account = json!({"id": "999999999999", "roleArn": "arn:aws:iam::999999999999:role/r"});
    let mut elsewhere = revoking_class(&arena);
    elsewhere["account"] = account;
    let elsewhere = arena.env.apply_class("elsewhere", elsewhere).await;
    arena.env.classes().delete(&arena.class, &params).await.expect("a cluster admin deletes the class");
    let rename = async {
        for number in 0_usize.. {
            let names = [&unreadable, &format!("missing-{number}"), &elsewhere];
            let spec = json!({"spec": {"className": names[number % names.len()]}});
            let _ = arena.tenant.patch(Kind::User, "a", &spec).await;
            let _ = arena.tenant.annotate("a", well_known::ANNOTATION_RETRY, &number.to_string()).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = rename => {}
        () = wait_inactive(&arena, "a") => {}
    }
}
