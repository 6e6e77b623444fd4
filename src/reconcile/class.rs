//! Reports on classes: can the operator do for them what they promise.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;

use super::{Context, class_decision::class_name, error::ReconcileError};
use crate::{
    api::{AwsDeployUserClass, AwsDeployUserClassStatus, Reason},
    aws::IamClient,
    cluster::{ClassStatusWriter, ClusterErrorKind},
    domain::{
        account::AccountRoute,
        authorize,
        class_conditions::{self, ClassFacts},
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
    let reports = ClassStatusWriter::new(context.client.clone());
    let boundaries = Boundaries::default();
    let mut changes = context.rules.changes();
    // A class whose account does not answer is looked at for long; the others are not kept waiting.
    let (mut looks, mut looked_at) = (FuturesUnordered::new(), HashSet::new());
    loop {
        changes.mark_unchanged();
        for (class, users) in classes(&context) {
            let name = class.metadata.name.clone().unwrap_or_default();
            if looked_at.insert(name.clone()) {
                let (context, reports, boundaries) = (&context, &reports, &boundaries);
                looks.push(async move {
                    report(context, reports, &class, users, boundaries).await;
                    name
                });
            }
        }
        // A closed channel would end every wait at once; it closes with the process.
        let mut pause = std::pin::pin!(tokio::time::timeout(PACE, changes.changed()));
        loop {
            tokio::select! {
                Some(name) = looks.next() => { looked_at.remove(&name); }
                _ = &mut pause => break,
            }
        }
    }
}

/// All classes that can be read, with the number of their resources.
fn classes(context: &Context) -> Vec<(AwsDeployUserClass, i64)> {
    let classes = context.rules.classes();
    let known = classes.entries();
    let mut users: HashMap<String, i64> = HashMap::new();
    context.resources.for_each(|user| {
        if let Some(name) = class_name(user, &known) {
            *users.entry(name.to_owned()).or_default() += 1;
        }
    });
    let number = |class: &AwsDeployUserClass| users.get(class.metadata.name.as_deref()?).copied();
    let readable = known.iter().filter_map(|known| known.class.ok());
    readable.map(|class| (class.clone(), number(class).unwrap_or_default())).collect()
}

async fn report(
    context: &Context,
    reports: &ClassStatusWriter,
    class: &AwsDeployUserClass,
    users: i64,
    boundaries: &Boundaries,
) {
    let status = look_at(context, class, users, boundaries).await;
    if class.status.as_ref() == Some(&status) {
        return;
    }
    match reports.write(class, status).await {
        // Somebody has changed or deleted it meanwhile: next time.
        Err(error) if matches!(error.kind, ClusterErrorKind::Conflict | ClusterErrorKind::NotFound) => {}
        Err(error) => tracing::warn!(%error, "the status of a class could not be written"),
        Ok(()) => {}
    }
}

async fn look_at(
    context: &Context,
    class: &AwsDeployUserClass,
    users: i64,
    boundaries: &Boundaries,
) -> AwsDeployUserClassStatus {
    let route = AccountRoute::from_class(class);
    let iam = context.accounts.client(route.role.as_ref());
    let account = context.identity(&iam, route.role.as_ref()).await;
    let account = account.map(|identity| identity.account.id.clone()).map_err(note);
    let boundary = match &class.spec.permissions_boundary {
        None => None,
        Some(arn) => Some((arn.clone(), boundaries.exists(context, &iam, &route, &account, arn).await)),
    };
    let expected_account = route.account;
    let templates = authorize::template::describe_faults(&class.spec.policies.templates, expected_account.is_some());
    let role = route.role.map(|role| role.arn);
    let facts = ClassFacts { account, expected_account, role, boundary, templates };
    let before = class.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    AwsDeployUserClassStatus {
        observed_generation: class.metadata.generation,
        conditions: class_conditions::evaluate(
            &facts,
            before,
            class.metadata.generation,
            context.accounts.clock().now(),
        ),
        account: facts.account.ok(),
        users,
    }
}

fn note(error: crate::aws::AwsError) -> Note {
    let error = ReconcileError::from(error);
    Note::new(error.reason(), error.to_string())
}

/// Boundaries that were asked for in an account, and when.
#[derive(Default)]
struct Boundaries(Mutex<HashMap<(AccountRoute, String), Answered>>);

/// When it was asked for, and what came of it.
type Answered = (Instant, Result<bool, Note>);

impl Boundaries {
    async fn exists(
        &self,
        context: &Context,
        iam: &IamClient,
        route: &AccountRoute,
        account: &Result<String, Note>,
        arn: &str,
    ) -> Result<bool, Note> {
        match (account, &route.account) {
            (Err(note), _) => return Err(note.clone()),
            (Ok(found), Some(wanted)) if found != wanted => {
                return Err(Note::new(Reason::WrongAccount, "nothing is asked in another account"));
            }
            (Ok(_), _) => {}
        }
        let about = (route.clone(), arn.to_owned());
        let known = self.0.lock().get(&about).cloned();
        if let Some((asked, answer)) = known {
            let keep = if answer == Ok(true) { context.settings.resync } else { RETRY.min(context.settings.resync) };
            if asked.elapsed() < keep {
                return answer;
            }
        }
        let answer = iam.policy_exists(arn).await.map_err(note);
        self.0.lock().insert(about, (Instant::now(), answer.clone()));
        answer
    }
}
