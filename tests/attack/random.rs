//! Random writes of a tenant by a seed: whatever it writes, the claim of [`Arena::check`] holds.
//!
//! | variable | |
//! |---|---|
//! | `ATTACK_SEED=<n>` | the seed (1) |
//! | `ATTACK_WRITES=<n>` | writes at most (300) |
//! | `ATTACK_SECONDS=<n>` | time at most (60) |

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use awsdeploy::api::well_known;
use awsdeploy_testkit::rng::{SeededRng, number};
use serde_json::{Value, json};

use crate::{
    arena::{ADMIN, Arena, POLICY},
    forged_records::{console_secret, journal, journal_names, labels, published},
    tenant::{Apply, CANARY, Kind, Refused, managed_in_year_10000, nested},
};

/// The last writes that a failure shows.
const SHOWN: usize = 20;
/// Writes between two checks of the claim.
const CHECK_EVERY: usize = 25;
const RESOURCES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Write {
    AllowedSpec,
    RandomSpec,
    Annotation,
    Finalizer,
    Status,
    Request,
    DeleteResource,
    DeepDocument,
    LargeDocument,
    PublishedSecret,
    Journal,
    ConsoleSecret,
    SecretEdit,
    SecretMetadata,
    DeleteSecret,
}

const WRITES: [Write; 15] = [
    Write::AllowedSpec,
    Write::RandomSpec,
    Write::Annotation,
    Write::Finalizer,
    Write::Status,
    Write::Request,
    Write::DeleteResource,
    Write::DeepDocument,
    Write::LargeDocument,
    Write::PublishedSecret,
    Write::Journal,
    Write::ConsoleSecret,
    Write::SecretEdit,
    Write::SecretMetadata,
    Write::DeleteSecret,
];

/// Names and keys that are not the tenant's, and texts that are none.
fn targets(arena: &Arena) -> Vec<String> {
    vec![
        ADMIN.to_owned(),
        arena.admin_key.clone(),
        arena.admin.id.clone(),
        arena.victim.name.clone(),
        arena.victim_key.clone(),
        "awsdeploy.dev/uid".to_owned(),
        "AKIA0000000000000000".to_owned(),
        CANARY.to_owned(),
        String::new(),
    ]
}

fn random_spec(arena: &Arena, rng: &mut SeededRng, target: &str) -> Value {
    let mut spec = arena.spec();
    let classes = [json!(arena.class), json!(arena.class), json!(arena.other_class), json!("none"), Value::Null];
    spec["className"] = rng.pick(&classes).clone();
    if rng.chance(30) {
        spec["userName"] = json!(target);
    }
    let policies = [POLICY, "AdministratorAccess", "IAMFullAccess", "arn:aws:iam::123456789012:policy/x"];
    spec["policies"] = json!({"managed": [rng.pick(&policies)]});
    if rng.chance(40) {
        spec["console"] = json!({});
    }
    if rng.chance(30) {
        spec["tags"] = json!({*rng.pick(&["cost", "Department", "awsdeploy.dev/uid"]): target});
    }
    if rng.chance(30) {
        spec["credentials"] = json!(if rng.chance(50) { "Revoked" } else { "Active" });
    }
    if rng.chance(20) {
        spec["groups"] = json!(["admins"]);
    }
    if rng.chance(20) {
        spec["adoption"] = json!("IfTagged");
    }
    let secret = [
        json!({"formats": ["CredentialsFile"]}),
        json!({"formats": ["Environment", "Csv", "ProcessJson"]}),
        json!({"formats": ["CredentialsFile"], "template": {"AWS_ACCESS_KEY_ID": target}}),
        json!({"labels": {"argocd.argoproj.io/secret-type": "cluster"}}),
        json!({"name": format!("{}-secret", rng.pick(&RESOURCES))}),
    ];
    spec["accessKey"]["secret"] = rng.pick(&secret).clone();
    spec
}

async fn write(arena: &Arena, rng: &mut SeededRng, kind: Write, resource: &str, target: &str) -> Result<(), Refused> {
    let tenant = &arena.tenant;
    let way = if rng.chance(50) { Apply::ClientSide } else { Apply::ServerSide };
    let owned_by = *rng.pick(&RESOURCES);
    let owners = tenant.owner_reference(if rng.chance(70) { resource } else { owned_by }).await;
    let owners = owners.filter(|_| rng.chance(85)).unwrap_or(Value::Null);
    let uid = tenant.uid(resource).await.unwrap_or_else(|| target.to_owned());
    match kind {
        Write::AllowedSpec => {
            let mut spec = arena.spec();
            spec["tags"] = json!({"cost": rng.below(9).to_string()});
            tenant.apply_as(way, Kind::User, resource, &json!({}), &json!({ "spec": spec })).await
        }
        Write::RandomSpec => {
            let spec = random_spec(arena, rng, target);
            let metadata = if rng.chance(20) { json!({"finalizers": [well_known::FINALIZER]}) } else { json!({}) };
            tenant.apply_as(way, Kind::User, resource, &metadata, &json!({ "spec": spec })).await
        }
        Write::Annotation => {
            let names = ["user-name", "account", "uid", "user-id", "class"];
            tenant.annotate(resource, &format!("awsdeploy.dev/{}", rng.pick(&names)), target).await
        }
        Write::Finalizer => {
            let finalizers = [json!([]), json!([well_known::FINALIZER]), json!(["example.com/mine"])];
            tenant.patch(Kind::User, resource, &json!({"metadata": {"finalizers": rng.pick(&finalizers)}})).await
        }
        Write::Status => {
            let user = json!({"name": target, "account": "123456789012", "id": arena.admin.id, "tagKeys": []});
            tenant.patch_status(resource, &json!({ "user": user })).await
        }
        Write::Request => {
            let names = [well_known::ANNOTATION_ROTATE, well_known::ANNOTATION_RESET_PASSWORD];
            tenant.annotate(resource, rng.pick::<&str>(&names), &rng.below(1000).to_string()).await
        }
        Write::DeleteResource => tenant.delete(Kind::User, resource).await,
        Write::DeepDocument | Write::LargeDocument => {
            let document = match kind {
                Write::DeepDocument => nested(rng.below(160)),
                _ => json!({"Statement": "x".repeat(rng.below(1_300_000))}),
            };
            let mut spec = arena.spec();
            spec["policies"]["documents"] = json!([{"name": "own", "document": document}]);
            tenant.apply_as(way, Kind::User, resource, &json!({}), &json!({ "spec": spec })).await
        }
        Write::PublishedSecret => {
            let (metadata, content) = published(resource, &owners, target, &"s".repeat(40));
            tenant.apply_as(way, Kind::Secret, resource, &metadata, &content).await
        }
        Write::Journal => {
            let mode = *rng.pick(&["Intent", "Keyed", "Abandoned", "Sharded"]);
            let metadata = json!({"labels": labels("journal", resource), "ownerReferences": owners});
            let data = json!({"journal": journal(mode, &[target.to_owned()]), "AWS_ACCESS_KEY_ID": target,
                "AWS_SECRET_ACCESS_KEY": "s".repeat(40)});
            let name = rng.pick(&journal_names(resource, &uid)).clone();
            let content = json!({"type": "Opaque", "stringData": data});
            tenant.apply_as(way, Kind::Secret, &name, &metadata, &content).await
        }
        Write::ConsoleSecret => {
            let (metadata, content) = console_secret(arena, resource, &uid, &owners, target);
            tenant.apply_as(way, Kind::Secret, &format!("{resource}-console"), &metadata, &content).await
        }
        Write::SecretEdit => {
            let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "credentials", "journal", "password"];
            tenant.patch(Kind::Secret, resource, &json!({"stringData": {*rng.pick(&names): target}})).await
        }
        Write::SecretMetadata => {
            let change = match rng.below(3) {
                0 => json!({"metadata": {"managedFields": managed_in_year_10000()}}),
                1 => json!({"metadata": {"annotations": {well_known::ANNOTATION_KEY_ID: target}}}),
                _ => json!({"metadata": {"ownerReferences": owners}}),
            };
            tenant.patch(Kind::Secret, resource, &change).await
        }
        Write::DeleteSecret => {
            let journal = rng.pick(&journal_names(resource, &uid)).clone();
            let name = if rng.chance(70) { resource.to_owned() } else { journal };
            tenant.delete(Kind::Secret, &name).await
        }
    }
}

pub(crate) async fn random_writes_of_a_tenant_stay_in_its_class() {
    let seed = number("ATTACK_SEED", 1);
    let limit = usize::try_from(number("ATTACK_WRITES", 300)).unwrap_or(usize::MAX);
    let time = Duration::from_secs(number("ATTACK_SECONDS", 60));
    println!("random writes: seed {seed}, at most {limit} writes and {time:?}");
    let arena = Arena::new().await;
    arena.create("a").await;
    let targets = targets(&arena);
    let mut rng = SeededRng::new(seed);
    let mut counts: BTreeMap<Write, (usize, usize)> = BTreeMap::new();
    let mut last = VecDeque::with_capacity(SHOWN);
    let (begun, mut writes) = (Instant::now(), 0);
    while writes < limit && begun.elapsed() < time {
        let (kind, resource) = (*rng.pick(&WRITES), *rng.pick(&RESOURCES));
        let target = rng.pick(&targets).clone();
        let outcome = write(&arena, &mut rng, kind, resource, &target).await;
        let count = counts.entry(kind).or_default();
        if outcome.is_ok() {
            count.0 += 1;
        } else {
            count.1 += 1;
        }
        let outcome = outcome.map_or_else(|refused| format!("{} {}", refused.code, refused.message), |()| "ok".into());
        last.truncate(SHOWN - 1);
        last.push_front(format!("{kind:?} {resource} {target:?}: {}", outcome.chars().take(200).collect::<String>()));
        writes += 1;
        if writes % CHECK_EVERY == 0
            && let Err(why) = arena.check().await
        {
            fail(&arena, seed, &last, &why);
        }
    }
    let accepted: usize = counts.values().map(|count| count.0).sum();
    for (kind, (accepted, refused)) in &counts {
        println!("  {kind:?}: {accepted} accepted, {refused} refused");
    }
    arena.serve_other("late").await;
    if let Err(why) = arena.check().await {
        fail(&arena, seed, &last, &why);
    }
    let log = arena.env.log();
    assert!(!log.contains(CANARY), "seed {seed}: the log has a text of a Secret or a document");
    assert!(accepted > writes / 4, "most writes were refused, so little was tried");
    println!(
        "attack: seed {seed}: {writes} writes ({accepted} accepted, {} refused), {} AWS calls within the class, {:.1?}",
        writes - accepted,
        arena.calls().len(),
        begun.elapsed()
    );
}

fn fail(arena: &Arena, seed: u64, last: &VecDeque<String>, why: &str) -> ! {
    let writes: Vec<&str> = last.iter().rev().map(String::as_str).collect();
    panic!(
        "ATTACK_SEED={seed}: {why}\nthe last writes:\n{}\n{}\n{}",
        writes.join("\n"),
        arena.env.aws.log().transcript(),
        arena.env.log()
    );
}
