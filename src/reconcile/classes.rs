//! Reports on classes: can the operator do for them what they promise.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Context, error::PassError, ruling::class_name};
use crate::{
    api::{AwsDeployUserClass, AwsDeployUserClassStatus},
    cluster::{ClassReports, ClusterErrorKind},
    domain::{
        authorize,
        class_verdict::{Findings, conditions},
        plan::Note,
    },
};

/// The numbers of users are brought up to date this often.
const PACE: Duration = Duration::from_secs(15);
/// What could not be told is asked again after this long.
const RETRY: Duration = Duration::from_mins(1);

/// Keeps the statuses of all classes up to date, until it is dropped. Costs one `GetPolicy` for each boundary and resync;
/// writes only what differs.
pub async fn report_on_classes(context: Arc<Context>) {
    let reports = ClassReports::new(context.client.clone());
    let mut boundaries = Boundaries::default();
    let mut changes = context.rules.changes();
    loop {
        changes.mark_unchanged();
        report_once(&context, &reports, &mut boundaries).await;
        // A closed channel would end every wait at once; it closes with the process.
        let _ = tokio::time::timeout(PACE, changes.changed()).await;
    }
}

async fn report_once(context: &Context, reports: &ClassReports, boundaries: &mut Boundaries) {
    let classes = context.rules.classes();
    let known = classes.known();
    let mut users: HashMap<String, i64> = HashMap::new();
    context.resources.for_each(|user| {
        if let Some(name) = class_name(user, &known) {
            *users.entry(name.to_owned()).or_default() += 1;
        }
    });
    for class in known.iter().filter_map(|known| known.class.ok()) {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let status = look_at(context, class, users.get(name).copied().unwrap_or_default(), boundaries).await;
        if class.status.as_ref() == Some(&status) {
            continue;
        }
        match reports.write(class, status).await {
            // Somebody has changed or deleted it meanwhile: next time.
            Err(error) if matches!(error.kind, ClusterErrorKind::Conflict | ClusterErrorKind::NotFound) => {}
            Err(error) => tracing::warn!(%error, "the status of a class could not be written"),
            Ok(()) => {}
        }
    }
}

async fn look_at(
    context: &Context,
    class: &AwsDeployUserClass,
    users: i64,
    boundaries: &mut Boundaries,
) -> AwsDeployUserClassStatus {
    let account = context.iam.identity().await.map(|identity| identity.account.id.clone()).map_err(note);
    let boundary = match &class.spec.permissions_boundary {
        None => None,
        Some(arn) => Some((arn.clone(), boundaries.exists(context, arn).await)),
    };
    let wanted_account = class.spec.account.as_ref().map(|account| account.id.clone());
    let templates = authorize::template::faults(&class.spec.policies.templates, wanted_account.is_some());
    let findings = Findings { account, wanted_account, boundary, templates };
    let before = class.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    AwsDeployUserClassStatus {
        observed_generation: class.metadata.generation,
        conditions: conditions(&findings, before, class.metadata.generation, context.iam.clock().now()),
        account: findings.account.ok(),
        users,
    }
}

fn note(error: crate::aws::AwsError) -> Note {
    let error = PassError::from(error);
    Note::new(error.reason(), error.to_string())
}

/// Boundaries that were asked for, and when.
#[derive(Default)]
struct Boundaries(HashMap<String, (Instant, Result<bool, Note>)>);

impl Boundaries {
    async fn exists(&mut self, context: &Context, arn: &str) -> Result<bool, Note> {
        if let Some((asked, answer)) = self.0.get(arn) {
            let keep = if answer == &Ok(true) { context.settings.resync } else { RETRY.min(context.settings.resync) };
            if asked.elapsed() < keep {
                return answer.clone();
            }
        }
        let answer = context.iam.policy_exists(arn).await.map_err(note);
        self.0.insert(arn.to_owned(), (Instant::now(), answer.clone()));
        answer
    }
}
