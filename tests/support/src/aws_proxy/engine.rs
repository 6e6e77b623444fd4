//! The way of a call: log, rules before, signature, permission, AWS, rules after, answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use super::account::Account;
use super::call::{Call, Request, Service};
use super::caller::{AccountRef, Caller, Identity};
use super::log::CallLog;
use super::pause::HoldOutcome;
use super::response::{AwsError, AwsResponse};
use super::rules::{Effect, Flags, Phase, Rewrite, RuleId, Rules, Seen};
use super::sigv4::Authorization;
use super::strict::Aws;

/// What goes back over the wire.
pub(super) enum Reply {
    /// This answer, dated by AWS's clock.
    Send(AwsResponse, Timestamp),
    /// Nothing: the connection is closed.
    Drop,
}

/// One proxy without its listener.
pub(super) struct Engine {
    pub(super) aws: Aws,
    pub(super) log: CallLog,
    pub(super) rules: Rules,
    // The last answer of each read, by question, for rules that serve stale ones.
    previous: Mutex<HashMap<String, (Instant, AwsResponse)>>,
}

/// How the rules of one phase ended.
enum Struck {
    Passed,
    Respond(AwsResponse),
    Drop,
}

/// What the rules know of a call, and what they have made of it so far.
struct Course<'a> {
    call: &'a Call,
    user: Option<String>,
    access_key: Option<String>,
    key_id: Option<String>,
    flags: Flags,
    rewrites: Vec<Rewrite>,
    rules: Vec<RuleId>,
}

impl Course<'_> {
    fn seen(&self) -> Seen<'_> {
        Seen {
            call: self.call,
            user: self.user.as_deref(),
            access_key: self.access_key.as_deref(),
            caller: self.key_id.as_deref(),
        }
    }
}

impl Engine {
    pub(super) fn new(aws: Aws) -> Self {
        Self { aws, log: CallLog::default(), rules: Rules::default(), previous: Mutex::default() }
    }

    pub(super) fn account(&self) -> &Arc<Account> {
        &self.aws.account
    }

    /// Works on one request to its end, whatever becomes of the connection it came on.
    pub(super) async fn serve(&self, request: Request) -> Reply {
        let authorization = Authorization::of(&request);
        let region = authorization.as_ref().map(|authorization| authorization.region.as_str());
        let call = match Call::parse(&request, region) {
            Ok(call) => call,
            Err(error) => {
                // Logged too: a client that speaks another protocol would otherwise be invisible.
                let call = Call::iam("Unparsable");
                self.log.open(&call, None, None).answered(error.status, Some(error.code.clone()));
                return Reply::Send(AwsResponse::error(Service::Iam, &error), Timestamp::now());
            }
        };
        let key_id = authorization.map(|authorization| authorization.access_key_id);
        let signer = || key_id.as_deref().and_then(|id| self.account().owner_of(id));
        let owner = || call.access_key_id().and_then(|id| self.account().owner_of(id));
        let user = call.user_name().map(str::to_owned).or_else(owner).or_else(signer);
        let open = self.log.open(&call, user.clone(), key_id.clone());
        let mut course = Course {
            call: &call,
            user,
            access_key: call.access_key_id().map(str::to_owned),
            key_id,
            flags: Flags::default(),
            rewrites: Vec::new(),
            rules: Vec::new(),
        };

        let mut struck = self.strike(Phase::Before, &mut course).await;
        if matches!(struck, Struck::Passed) {
            let answer = self.perform(&request, &mut course).await;
            let success = answer.is_success();
            open.note(|record| {
                // Not so if the emulator failed us halfway: then nobody knows, and status 502 says so.
                record.committed = success && record.mutating;
                record.access_key.clone_from(&course.access_key);
            });
            struck = Struck::Respond(answer);
            if success {
                match self.strike(Phase::AfterCommit, &mut course).await {
                    Struck::Passed => {}
                    instead => struck = instead,
                }
            }
        }
        open.note(|record| record.rules = course.rules.iter().map(|id| id.0).collect());
        match struck {
            Struck::Respond(mut answer) => {
                for rewrite in &course.rewrites {
                    rewrite(&call, &mut answer);
                }
                open.answered(answer.status, answer.error_code());
                Reply::Send(answer, Self::now(&course))
            }
            // The record ends as dropped.
            Struck::Passed | Struck::Drop => Reply::Drop,
        }
    }

    async fn strike(&self, phase: Phase, course: &mut Course<'_>) -> Struck {
        let effects = self.rules.consult(phase, course.seen());
        for (id, effect) in effects {
            if !course.rules.contains(&id) {
                course.rules.push(id);
            }
            let call = course.call;
            match effect {
                Effect::Drop => return Struck::Drop,
                Effect::Delay(time) => tokio::time::sleep(time).await,
                Effect::Respond(error) => return Struck::Respond(AwsResponse::error(call.service, &error)),
                Effect::Deny => return Struck::Respond(AwsResponse::error(call.service, &self.denial(course))),
                Effect::Html500 => return Struck::Respond(AwsResponse::html_500()),
                Effect::Pause(pause) => match pause.hold().await {
                    HoldOutcome::Proceed => {}
                    HoldOutcome::Abort => return Struck::Drop,
                },
                Effect::Rewrite(rewrite) => course.rewrites.push(rewrite),
                Effect::StaleRead(lag) => course.flags.stale_read = Some(lag),
                Effect::HideNewKeys(time) => course.flags.hide_new_keys = Some(time),
                Effect::ClockSkew(skew) => course.flags.clock_skew = skew,
                Effect::AllowThirdKey => course.flags.allow_third_key = true,
            }
        }
        Struck::Passed
    }

    fn denial(&self, course: &Course<'_>) -> AwsError {
        let call = course.call;
        let key = course.key_id.as_deref().and_then(|id| self.account().key(id));
        let (account_ref, identity) = match key {
            Some(key) => (key.account_ref, key.owner),
            None => (self.account().home().in_region(&call.region), Identity::Trusted),
        };
        let caller = Caller { key_id: course.key_id.clone(), account_ref, identity };
        let resource = resource_of(call, &caller.account_ref);
        AwsError::access_denied(&self.account().caller_arn(&caller), &call.iam_action(), &resource)
    }

    /// AWS's clock, as this call is to see it.
    fn now(course: &Course<'_>) -> Timestamp {
        let now = Timestamp::now();
        // A skew out of all range is none.
        now.checked_add(course.flags.clock_skew).unwrap_or(now)
    }

    async fn perform(&self, request: &Request, course: &mut Course<'_>) -> AwsResponse {
        let call = course.call;
        let aws_now = Self::now(course);
        let result = async {
            let caller = self.account().authenticate(request, call, aws_now)?;
            self.account().authorize(&caller, call).await?;
            let question =
                format!("{}/{} {}", caller.account_ref.partition, caller.account_ref.account, call.question());
            let is_read = !call.is_mutating() && call.service == Service::Iam;
            if let Some(lag) = course.flags.stale_read.filter(|_| is_read) {
                let previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, answer)) = previous.get(&question).filter(|(at, _)| at.elapsed() < lag) {
                    return Ok(answer.clone());
                }
            }
            let answer = self.aws.perform(call, &caller, course.flags).await?;
            // "Absent" is an answer too: a read that lags behind CreateUser says so. Later pages are not kept, as no
            // marker is used twice.
            let is_answer = answer.is_success() || answer.status == 404;
            if is_read && is_answer && call.param("Marker").is_none() {
                self.remember(question, &answer);
            }
            Ok(answer)
        };
        let answer = result.await.unwrap_or_else(|error| AwsResponse::error(call.service, &error));
        if call.action == "CreateAccessKey" && answer.is_success() {
            course.access_key = super::xml::text_in(&answer.body, "AccessKeyId");
        }
        answer
    }

    fn remember(&self, question: String, answer: &AwsResponse) {
        // Enough for every read of 5,000 users; what is beyond cannot be served stale, that is all.
        const QUESTIONS: usize = 50_000;
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        if previous.len() < QUESTIONS || previous.contains_key(&question) {
            previous.insert(question, (Instant::now(), answer.clone()));
        }
    }
}

/// The resource that `AccessDenied` names. Paths are left out: the proxy does not know them before the call.
pub(super) fn resource_of(call: &Call, account_ref: &AccountRef) -> String {
    if let Some(arn) = call.param("RoleArn") {
        return arn.to_owned();
    }
    if let Some(group) = call.param("GroupName") {
        return account_ref.arn("iam", &format!("group/{group}"));
    }
    match (call.user_name(), call.param("PolicyArn")) {
        (Some(user), _) => {
            let path = call.param("Path").unwrap_or("/");
            account_ref.arn("iam", &format!("user{path}{user}"))
        }
        (None, Some(policy)) => policy.to_owned(),
        (None, None) => "*".to_owned(),
    }
}
