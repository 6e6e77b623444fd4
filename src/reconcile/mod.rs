//! One pass over one resource: observe -> validate -> plan -> act -> report.
//!
//! Assume that the last pass died at any await: nothing here relies on what an earlier pass did,
//! only on what this one finds.

mod act;
mod classes;
mod error;
mod gates;
mod memory;
mod observe;
mod report;
mod revoke;
mod rooms;
mod ruling;

use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tracing::{Instrument, Span};

pub use classes::report_on_classes;
pub use error::PassError;
use gates::Gates;
use memory::{Fingerprint, Memories, Memory};
use rooms::{Place, Rooms};
use ruling::{Ruling, Verdict};

use crate::{
    api::{AwsDeployUser, MANAGER, Reason},
    aws::{Accounts, AwsError, Iam, Identity},
    cluster::{ClusterError, ClusterErrorKind, Events, Resources, Rules, SecretAccess, Users},
    domain::{
        account::{self, Role},
        authorize,
        backoff::{self, ErrorClass},
        desired::{self, Desired, Target},
        journal::Journal,
        plan::{self, Effect, Facts, Leaving, Note, Plan, Revoked},
        schedule::spread_permille,
        settings::Settings,
        verdict::About,
        world::{IamUser, NoUser, World},
    },
    trace,
};

/// Effects that one pass may do. A pass of the longest kind, a deletion with every limit used up,
/// needs about thirty; more than this would be a loop.
const MOST_EFFECTS: usize = 64;

/// A pass is cut off after this long.
const DEADLINE: Duration = Duration::from_mins(3);

/// Told of what passes do; the metrics listen here.
pub trait PassObserver: Send + Sync {
    /// A pass has come to its end: `ok`, `waiting`, or the reason of its first failure.
    fn passed(&self, result: &'static str, took: Duration);
    /// An effect was done, or failed for a reason.
    fn acted(&self, verb: &'static str, failure: Option<Reason>);
    /// A key was published.
    fn rotated(&self);
    /// So long after it was made a key was published.
    fn verified(&self, took: Duration);
    /// Whether AWS quarantines the user of this resource.
    fn quarantined(&self, namespace: &str, name: &str, is: bool);
}

/// What passes need.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// IAM and STS of every account.
    pub accounts: Accounts,
    /// Events.
    pub events: Events,
    /// The operator's own rights.
    pub access: SecretAccess,
    /// Classes and labels of namespaces.
    pub rules: Rules,
    /// The resources themselves.
    pub resources: Resources,
    /// Id of the cluster, written into ownership tags.
    pub cluster_id: String,
    /// Times and limits.
    pub settings: PassSettings,
    /// Listener.
    pub observer: Arc<dyn PassObserver>,
    memories: Memories,
    rooms: Arc<Rooms>,
    gates: Gates,
    /// Another one in each process.
    chance: RandomState,
    /// Namespaces in which a resource waits for another one to go.
    crowded: Mutex<HashSet<String>>,
}

/// What the controller keeps by watching.
pub struct Watched {
    /// Classes and labels of namespaces.
    pub rules: Rules,
    /// The resources themselves.
    pub resources: Resources,
}

/// Settings of passes.
#[derive(Clone, Debug)]
pub struct PassSettings {
    /// What decisions depend on.
    pub protocol: Settings,
    /// How long IAM facts are believed; every resource is looked at anew this often.
    pub resync: Duration,
    /// How often the access keys of a user are listed.
    pub key_check: Duration,
    /// Whether users are compared by the details of their account, which tell of all of them together.
    pub account_details: bool,
    /// How often the published Secret is looked at.
    pub secret_check: Duration,
    /// Passes at the same time while one account is busy; several share them, and none has less than two.
    pub concurrency: usize,
}

impl Context {
    /// Everything passes need.
    #[must_use]
    pub fn new(
        client: Client,
        watched: Watched,
        accounts: Accounts,
        access: SecretAccess,
        cluster_id: String,
        settings: PassSettings,
        observer: Arc<dyn PassObserver>,
    ) -> Self {
        let rooms = Rooms::new(settings.concurrency.max(1));
        Self {
            events: Events::new(client.clone()),
            access,
            client,
            rules: watched.rules,
            resources: watched.resources,
            accounts,
            cluster_id,
            settings,
            observer,
            memories: Memories::default(),
            rooms,
            gates: Gates::default(),
            chance: RandomState::new(),
            crowded: Mutex::default(),
        }
    }

    /// Forgets what it remembers of resources other than these.
    pub fn keep_only(&self, uids: &HashSet<String>) {
        self.memories.keep(uids);
    }

    /// Drops the sessions of roles that no class and no resource leads to any more.
    pub fn keep_accounts(&self) {
        let classes = self.rules.classes();
        let accounts = classes.known().into_iter().filter_map(|known| known.class.ok()?.spec.account.as_ref());
        let mut wanted: HashSet<Role> = accounts.filter_map(Role::of_class).collect();
        self.resources.for_each(|user| wanted.extend(Role::remembered(user)));
        self.accounts.keep_only(&wanted);
        self.gates.keep_only(|role| wanted.contains(role));
    }

    /// Whom AWS takes us for in an account. When it does so again after it has not, all resources are looked at: those of
    /// the account have waited for it.
    async fn identity(&self, iam: &Iam, role: Option<&Role>) -> Result<Arc<Identity>, AwsError> {
        let identity = iam.identity().await;
        if self.gates.note(role, identity.is_ok()) {
            self.rules.nudge();
        }
        identity
    }

    /// A part of one, by chance for each process and the same for a resource all its life.
    fn chance_of(&self, uid: &str) -> f64 {
        const PARTS: u32 = 1 << 20;
        let part = u32::try_from(self.chance.hash_one(uid) % u64::from(PARTS)).unwrap_or_default();
        f64::from(part) / f64::from(PARTS)
    }

    /// No pass begins any more; those under way come to their end.
    pub fn close(&self) {
        self.rooms.close();
    }

    /// Notes who waits for room, and wakes them when there is some.
    fn keep_room(&self, target: &Target, waits: bool, left: bool) {
        let namespace = &target.owner.namespace;
        let mut crowded = self.crowded.lock().unwrap_or_else(PoisonError::into_inner);
        if waits {
            crowded.insert(namespace.clone());
        } else if left && crowded.remove(namespace) {
            self.rules.nudge();
        }
    }

    /// A refusal to read a Secret is told with the command that grants it.
    fn secret_error(&self, target: &Target, error: ClusterError) -> PassError {
        if error.kind == ClusterErrorKind::Forbidden {
            return PassError::SecretAccess(self.access.denied(&target.owner.namespace, "get"));
        }
        error.into()
    }
}

/// Looks after one resource and says when to look again. Never fails: a failure is reported in
/// the resource's status and turned into a time.
pub async fn reconcile(user: &AwsDeployUser, context: &Context) -> Duration {
    let mut user = Cow::Borrowed(user);
    let mut place: Option<Place> = None;
    loop {
        let Some(target) = Target::of(&user, &context.cluster_id) else { return Duration::MAX };
        let ruling = ruling::rule(&user, target, context);
        if let Some(rest) = rest(&user, &ruling, context) {
            return rest;
        }
        let room = ruling.way.room();
        if place.as_ref().is_some_and(|place| place.is_in(room)) {
            return Box::pin(pass(&user, &ruling, context)).await;
        }
        // A place in another room is given back first.
        drop(place.take());
        let Some((entered, waited)) = context.rooms.enter(room).await else { return Duration::MAX };
        place = Some(entered);
        if waited {
            // What was to be done may have changed meanwhile.
            let Some(now) = context.resources.get(&user) else { return Duration::MAX };
            user = Cow::Owned(now);
        }
    }
}

/// How long there is nothing to do, whoever has woken us.
fn rest(user: &AwsDeployUser, ruling: &Ruling, context: &Context) -> Option<Duration> {
    let uid = &ruling.target.owner.uid;
    let fingerprint = Fingerprint::of(user, ruling.digest);
    if let Some(left) = context.memories.quiet_for(uid, &fingerprint) {
        return Some(left);
    }
    let now = context.accounts.clock().now();
    if context.memories.is_new(uid)
        && ruling.is_as_recorded(user)
        && let Some(until) = report::rests_until(user, spread_permille(uid), now)
    {
        let wait = until_then(until, now);
        let quiet = memory::Quiet { seen: fingerprint, until: std::time::Instant::now() + wait };
        context.memories.put(uid, Memory { quiet: Some(quiet), ..Memory::default() });
        return Some(wait);
    }
    None
}

async fn pass(user: &AwsDeployUser, ruling: &Ruling, context: &Context) -> Duration {
    let target = &ruling.target;
    let uid = target.owner.uid.clone();
    let started = std::time::Instant::now();
    let mut memory = context.memories.take(&uid);
    memory.enter(ruling.way.room());
    let mut pass = Pass {
        context,
        iam: context.accounts.of(ruling.way.role.as_ref()),
        target,
        ruling,
        memory: &mut memory,
        errors: Vec::new(),
        desired: None,
        revoked: None,
    };
    let end = match tokio::time::timeout(DEADLINE, Box::pin(pass.run(user))).await {
        Ok(end) => end,
        Err(_) => pass.report_cut_off(user).await,
    };
    let result = pass.errors.first().map_or("ok", |(error, _)| error.reason().as_str());
    let span = Span::current();
    span.record("result", result);
    if let Some((error, _)) = pass.errors.first() {
        trace::failed(&span, result, error);
    }
    context.observer.passed(result, started.elapsed());
    let wait = until_then(end.next, context.accounts.clock().now());
    context.keep_room(target, ruling.waits_for_room, end.left);
    if !end.left {
        // A time out of all range: looked at again when the resource changes.
        let until = std::time::Instant::now().checked_add(wait);
        memory.looked = true;
        memory.quiet = until.map(|until| memory::Quiet { seen: Fingerprint::of(&end.user, ruling.digest), until });
        context.memories.put(&uid, memory);
    }
    wait
}

/// One pass under way.
struct Pass<'a> {
    context: &'a Context,
    /// The account of the resource.
    iam: Arc<Iam>,
    target: &'a Target,
    ruling: &'a Ruling,
    memory: &'a mut Memory,
    errors: Vec<(PassError, About)>,
    desired: Option<Desired>,
    /// How a resource is dealt with that is not allowed.
    revoked: Option<Revoked>,
}

/// How a pass ended.
struct End {
    user: AwsDeployUser,
    next: Timestamp,
    left: bool,
}

impl Pass<'_> {
    async fn run(&mut self, user: &AwsDeployUser) -> End {
        let deleting = user.metadata.deletion_timestamp.is_some();
        // IO once per account: which one and which partition this is.
        let span = trace::step("validate");
        let validated =
            async { if deleting { self.arrive(user).await.map(|_| None) } else { self.validate(user).await } };
        let validated = validated.instrument(span.clone()).await;
        if let Err((error, _)) = &validated {
            trace::failed(&span, error.reason().as_str(), error);
        }
        match validated {
            Ok(desired) => self.desired = desired,
            Err((error @ PassError::NotAllowed(_), about)) if has_finalizer(user) => {
                self.errors.push((error, about));
                return Box::pin(self.revoke(user)).await;
            }
            Err((error, about)) => {
                self.errors.push((error, about));
                return self.report(user.clone(), None, None, Vec::new(), false).await;
            }
        }
        let desired = self.desired.clone();
        // IO, reads only.
        let mut actor = match self.observe(user, desired.as_ref(), deleting).await {
            Ok(actor) => actor,
            Err(error) => {
                self.errors.push((error, About::Observation));
                return self.report(user.clone(), None, None, Vec::new(), false).await;
            }
        };
        if let Some(why) = self.out_of_path(&actor.observed.world) {
            self.desired = None;
            self.errors.push((PassError::NotAllowed(why), About::Authorization));
            return Box::pin(self.revoke(user)).await;
        }
        self.keep_waiting_out(&mut actor);
        let plan = self.act(user, &mut actor).await;
        let act::Actor { user, observed, news, left, .. } = actor;
        self.report(user, Some(&plan), Some(&observed.world), news, left).await
    }

    /// Pure but for the account, which is asked once per process: resource + class -> desired state, or all that is wrong with it.
    async fn validate(&self, user: &AwsDeployUser) -> Result<Option<Desired>, (PassError, About)> {
        let authorization = match &self.ruling.verdict {
            Verdict::Allowed(authorization) => authorization,
            Verdict::Refused(violations) => {
                return Err((PassError::NotAllowed(desired::tell(violations)), About::Authorization));
            }
            Verdict::Unreadable(why) => {
                return Err((PassError::UnreadableClass(why.clone()), About::Observation));
            }
        };
        if let Some(elsewhere) = &self.ruling.elsewhere {
            return Err((PassError::NotAllowed(elsewhere.clone()), About::Authorization));
        }
        let mut account = self.arrive(user).await?.account.clone();
        if user.spec.console.is_some() {
            let policy = self.iam.password_policy().await.map_err(|error| (error.into(), About::Observation))?;
            account.users_may_change_passwords = policy.users_may_change;
        }
        desired::validate(
            &authorization.user,
            self.target,
            &authorization.grant,
            &account,
            &self.context.settings.protocol,
        )
        .map(Some)
        .map_err(|violations| (PassError::Invalid(violations), About::Authorization))
    }

    /// Asks whom AWS takes us for. Before it has named the account of the resource nothing is read there, and nothing
    /// written.
    async fn arrive(&self, user: &AwsDeployUser) -> Result<Arc<Identity>, (PassError, About)> {
        let identity = self.context.identity(&self.iam, self.ruling.way.role.as_ref()).await;
        let identity = identity.map_err(|mut error| {
            if let Some(detour) = self.ruling.way.detour() {
                error.message = format!("{}; {detour}", error.message);
            }
            (error.into(), About::Observation)
        })?;
        let (way, found) = (&self.ruling.way, &identity.account.id);
        if way.account.as_ref().is_some_and(|wanted| wanted != found) {
            let told = account::astray(way, user, found);
            return Err((PassError::WrongAccount(told), About::Observation));
        }
        Ok(identity)
    }

    async fn observe<'b>(
        &mut self,
        user: &AwsDeployUser,
        desired: Option<&'b Desired>,
        deleting: bool,
    ) -> Result<act::Actor<'b>, PassError>
    where
        Self: 'b,
    {
        // A deletion is all about what cannot be undone.
        let wanted = if deleting { Facts::Live } else { Facts::Remembered };
        let observed = self.look(user, desired, wanted).await?;
        Ok(act::Actor {
            context: self.context,
            iam: Arc::clone(&self.iam),
            target: self.target,
            desired,
            user: user.clone(),
            observed,
            news: Vec::new(),
            left: false,
        })
    }

    async fn look(
        &mut self,
        user: &AwsDeployUser,
        desired: Option<&Desired>,
        wanted: Facts,
    ) -> Result<observe::Observed, PassError> {
        let span = trace::step("observe");
        let observed = observe::observe(self.context, &self.iam, user, self.target, desired, self.memory, wanted)
            .instrument(span.clone())
            .await;
        if let Err(error) = &observed {
            trace::failed(&span, error.reason().as_str(), error);
        }
        observed
    }

    /// Plans, does the first effect, learns, and plans again, until there is nothing to do now.
    async fn act(&mut self, user: &AwsDeployUser, actor: &mut act::Actor<'_>) -> Plan {
        for _ in 0..MOST_EFFECTS {
            let plan = self.plan(user, actor);
            let Some(effect) = plan.effects.first() else { return plan };
            let second_hand = actor.observed.second_hand;
            if second_hand || !effect.may_be_done_on(&actor.observed.world, &self.context.settings.protocol) {
                let wanted = if second_hand { Facts::Live } else { effect.needs() };
                match self.look_again(user, actor, wanted).await {
                    Ok(()) => continue,
                    Err(error) => {
                        self.errors.push((error, About::Observation));
                        return plan;
                    }
                }
            }
            tracing::debug!(%effect, "acting");
            let made_at = actor.observed.world.journal().and_then(Journal::keyed_at);
            let span = trace::effect(effect.verb(), effect);
            let result = actor.act(effect, self.memory).instrument(span.clone()).await;
            if let Err(error) = &result {
                trace::failed(&span, error.reason().as_str(), error);
            }
            let failure = result.as_ref().err().map(PassError::reason).or_else(|| actor.not_restarted(effect));
            self.context.observer.acted(effect.verb(), failure);
            if let (plan::Effect::Publish { .. }, Ok(()), Some(made_at)) = (effect, &result, made_at) {
                self.context.observer.verified(until_then(self.now(), made_at));
            }
            if actor.left {
                return plan;
            }
            if let Err(error) = result {
                tracing::warn!(%effect, reason = %error.reason(), %error, "an effect failed");
                if effect.is_user_sync() && actor.desired.is_some() {
                    // Keys are looked after all the same.
                    actor.observed.world.user_sync_failed = true;
                    let retry_at = self.now() + self.delay(&error, user);
                    self.memory.user_failure = Some((error.clone(), retry_at));
                    self.errors.push((error, About::User));
                    continue;
                }
                if matches!(effect, Effect::ReadLastUsed(_)) {
                    // Told, and waited for; the rest is looked after all the same.
                    actor.observed.world.last_used_failed = true;
                    self.errors.push((error, About::Key));
                    continue;
                }
                let about = if matches!(effect, Effect::CreateUser | Effect::Adopt(_) | Effect::DeleteUser) {
                    About::User
                } else {
                    About::Key
                };
                self.errors.push((error, about));
                return plan;
            }
        }
        tracing::error!(most = MOST_EFFECTS, "a pass did not come to rest; this is a defect of the operator");
        self.plan(user, actor)
    }

    fn plan(&self, user: &AwsDeployUser, actor: &act::Actor<'_>) -> Plan {
        let _span = trace::step("plan").entered();
        let (world, now, settings) = (&actor.observed.world, self.now(), &self.context.settings.protocol);
        match (actor.desired, &self.revoked) {
            (Some(desired), _) => plan::plan(desired, world, now, settings),
            (None, Some(revoked)) => plan::revoked(self.target, revoked, world, now, settings),
            (None, None) => {
                plan::cleanup(self.target, Leaving { policy: desired::deletion_policy(user) }, world, now, settings)
            }
        }
    }

    /// Reads what is wanted anew, in order, before something is done that cannot be undone.
    async fn look_again(
        &mut self,
        user: &AwsDeployUser,
        actor: &mut act::Actor<'_>,
        wanted: Facts,
    ) -> Result<(), PassError> {
        let (failed, silent) = (actor.observed.world.user_sync_failed, actor.observed.world.last_used_failed);
        let workloads = std::mem::take(&mut actor.observed.world.workloads);
        // The resource may have been written in this pass (its finalizer); its status has not.
        let finalizer = actor.observed.world.finalizer;
        let mut observed = self.look(user, actor.desired, wanted).await?;
        if actor.observed.world.no_user == Some(NoUser::Removed) {
            observed.world.no_user = Some(NoUser::Removed);
        }
        observed.world.user_sync_failed = failed;
        observed.world.last_used_failed = silent;
        observed.world.workloads = workloads;
        observed.world.finalizer = finalizer;
        actor.observed = observed;
        Ok(())
    }

    /// A change of the user that failed a moment ago is not tried again before its time, even if
    /// something else wakes the pass.
    fn keep_waiting_out(&mut self, actor: &mut act::Actor<'_>) {
        let now = self.now();
        let same = actor.observed.world.reported.failed_attempts > 0;
        match self.memory.user_failure.take() {
            Some((error, retry_at)) if same && now < retry_at => {
                actor.observed.world.user_sync_failed = true;
                self.memory.user_failure = Some((error, retry_at));
            }
            _ => {}
        }
    }

    async fn report_cut_off(&mut self, user: &AwsDeployUser) -> End {
        self.memory.iam = None;
        self.errors.push((PassError::Deadline(DEADLINE.as_secs()), About::Observation));
        self.report(user.clone(), None, None, Vec::new(), false).await
    }

    /// Writes status and Events and says when to look again.
    async fn report(
        &mut self,
        user: AwsDeployUser,
        plan: Option<&Plan>,
        world: Option<&World>,
        news: Vec<crate::cluster::News>,
        left: bool,
    ) -> End {
        Box::pin(self.tell(user, plan, world, news, left)).instrument(trace::step("report")).await
    }

    async fn tell(
        &mut self,
        user: AwsDeployUser,
        plan: Option<&Plan>,
        world: Option<&World>,
        news: Vec<crate::cluster::News>,
        left: bool,
    ) -> End {
        let now = self.now();
        let context = self.context;
        let drift = user.status.as_ref().is_some_and(|status| {
            status.observed_generation == user.metadata.generation && status.failed_attempts == 0
        });
        for piece in report::deeds(news, drift) {
            context.events.tell(&user, &piece).await;
        }
        // A deletion does not look at policies.
        if let Some(world) = world.filter(|_| self.desired.is_some() || self.revoked.is_some() || left) {
            let (owner, is) = (&self.target.owner, !left && world.user().is_some_and(IamUser::is_quarantined));
            context.observer.quarantined(&owner.namespace, &owner.name, is);
        }
        if left {
            return End { user, next: Timestamp::MAX, left };
        }
        // A verdict is no failure: it is the same however often it is asked for.
        let failed_now = self.errors.iter().any(|(error, _)| !matches!(error, PassError::NotAllowed(_)));
        let mut failures = report::failures(&self.errors);
        if self.errors.is_empty()
            && let Some((error, _)) = &self.memory.user_failure
        {
            failures.push(error.failure(About::User));
        }
        let class = match &self.ruling.verdict {
            Verdict::Allowed(authorization) if self.revoked.is_none() && self.ruling.elsewhere.is_none() => {
                Some(&authorization.class)
            }
            _ => None,
        };
        let allowed = class.map(|class| format!("class {} allows it", class.name)).unwrap_or_default();
        let status = report::status(&report::Account {
            user: &user,
            target: self.target,
            desired: self.desired.as_ref(),
            plan,
            world,
            failures,
            failed_now,
            class,
            authorization: Note::new(Reason::Allowed, allowed),
            now,
        });
        let mut next = self.next(plan, world, status.failed_attempts, now);
        let before = user.status.clone();
        if before.as_ref() == Some(&status) {
            return End { user, next, left };
        }
        let told = report::news(before.as_ref(), &status);
        let written =
            Users::new(context.client.clone(), &self.target.owner.namespace).write_status(&user, status).await;
        let user = match written {
            Ok(user) => user,
            Err(error) if error.kind == ClusterErrorKind::NotFound => {
                return End { user, next: Timestamp::MAX, left: true };
            }
            Err(error) => {
                // A status is a report. Somebody changed the resource meanwhile, or the API server
                // is away: the next pass reports.
                tracing::warn!(%error, manager = MANAGER, "the status could not be written");
                next = next.min(now + backoff::delay(ErrorClass::Conflict, 1, self.permille(), SignedDuration::ZERO));
                return End { user, next, left };
            }
        };
        for piece in told {
            context.events.tell(&user, &piece).await;
        }
        End { user, next, left }
    }

    /// When there is something to do even if nothing changes.
    fn next(&self, plan: Option<&Plan>, world: Option<&World>, failed_attempts: i32, now: Timestamp) -> Timestamp {
        let settings = &self.context.settings;
        let after = |duration: Duration| {
            now.checked_add(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
        };
        let mut times = vec![after(settings.resync)];
        times.extend(plan.and_then(|plan| plan.wake_at));
        times.extend(self.errors.iter().map(|(error, _)| now + self.delay_after(error, failed_attempts)));
        times.extend(self.memory.user_failure.as_ref().map(|(_, retry_at)| *retry_at));
        if self.errors.is_empty() && world.is_some_and(|world| world.published().is_some() || world.user().is_some()) {
            times.push(after(settings.secret_check));
        }
        if let Some(seen) = self.memory.iam.as_ref().filter(|_| self.errors.is_empty()) {
            times.push(after(settings.ends_in(seen, &self.target.owner.uid)));
            times.push(after(settings.key_check.saturating_sub(seen.keys_read_at.elapsed())));
        }
        times.into_iter().min().unwrap_or(now)
    }

    fn delay(&self, error: &PassError, user: &AwsDeployUser) -> SignedDuration {
        let failed = user.status.as_ref().map_or(0, |status| status.failed_attempts);
        self.delay_after(error, failed.saturating_add(1))
    }

    fn delay_after(&self, error: &PassError, failed_attempts: i32) -> SignedDuration {
        let failures = u32::try_from(failed_attempts).unwrap_or(1).max(1);
        let slow = SignedDuration::try_from(self.context.settings.resync).unwrap_or(SignedDuration::MAX);
        backoff::delay(error.class(), failures, self.permille(), slow)
    }

    fn permille(&self) -> i32 {
        spread_permille(&self.target.owner.uid)
    }

    fn now(&self) -> Timestamp {
        self.context.accounts.clock().now()
    }
}

fn has_finalizer(user: &AwsDeployUser) -> bool {
    user.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == crate::api::mark::FINALIZER)
}

/// The time from now to then, never zero: a pass that has to come at once comes in a moment.
fn until_then(then: Timestamp, now: Timestamp) -> Duration {
    const LEAST: Duration = Duration::from_millis(10);
    Duration::try_from(then.duration_since(now)).unwrap_or(LEAST).max(LEAST)
}
