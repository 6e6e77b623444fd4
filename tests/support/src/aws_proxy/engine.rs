//! Processes a call: log, fault rules before, signature, permissions, AWS, fault rules after, response.

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
use super::rules::{Effect, Flags, MatchInput, Phase, Rewrite, RuleId, Rules};
use super::sigv4::Authorization;
use super::strict::Aws;

/// The reply to a request.
pub(super) enum Reply {
    /// A response, dated by the clock of AWS.
    Send(AwsResponse, Timestamp),
    /// No response: the connection is closed.
    Drop,
}

/// The proxy without its listener.
pub(super) struct Engine {
    pub(super) aws: Aws,
    pub(super) log: CallLog,
    pub(super) rules: Rules,
    // The last response of each read, by request key, for rules that serve stale reads.
    previous: Mutex<HashMap<String, (Instant, AwsResponse)>>,
}

/// Result of the fault rules of one phase.
enum RuleOutcome {
    Continue,
    Respond(AwsResponse),
    Drop,
}

/// What rules match on, and what the matching rules have requested so far.
struct CallContext<'a> {
    call: &'a Call,
    user: Option<String>,
    access_key: Option<String>,
    key_id: Option<String>,
    flags: Flags,
    rewrites: Vec<Rewrite>,
    rules: Vec<RuleId>,
}

impl CallContext<'_> {
    fn match_input(&self) -> MatchInput<'_> {
        MatchInput {
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

    /// Processes one request.
    pub(super) async fn serve(&self, request: Request) -> Reply {
        let authorization = Authorization::from_request(&request);
        let region = authorization.as_ref().map(|authorization| authorization.region.as_str());
        let call = match Call::parse(&request, region) {
            Ok(call) => call,
            Err(error) => {
                // Logged too: otherwise a test would not see a client that uses another protocol.
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
        let mut context = CallContext {
            call: &call,
            user,
            access_key: call.access_key_id().map(str::to_owned),
            key_id,
            flags: Flags::default(),
            rewrites: Vec::new(),
            rules: Vec::new(),
        };

        let mut outcome = self.apply_rules(Phase::Before, &mut context).await;
        if matches!(outcome, RuleOutcome::Continue) {
            let response = self.perform(&request, &mut context).await;
            let success = response.is_success();
            open.update(|record| {
                // If the connection to the emulator breaks, the outcome is unknown: the status is 502.
                record.committed = success && record.mutating;
                record.access_key.clone_from(&context.access_key);
            });
            outcome = RuleOutcome::Respond(response);
            if success {
                match self.apply_rules(Phase::AfterCommit, &mut context).await {
                    RuleOutcome::Continue => {}
                    overriding => outcome = overriding,
                }
            }
        }
        open.update(|record| record.rules = context.rules.iter().map(|id| id.0).collect());
        match outcome {
            RuleOutcome::Respond(mut response) => {
                for rewrite in &context.rewrites {
                    rewrite(&call, &mut response);
                }
                open.answered(response.status, response.error_code());
                Reply::Send(response, Self::now(&context))
            }
            // Dropping `open` records the call as dropped.
            RuleOutcome::Continue | RuleOutcome::Drop => Reply::Drop,
        }
    }

    async fn apply_rules(&self, phase: Phase, context: &mut CallContext<'_>) -> RuleOutcome {
        for (id, effect) in self.rules.consult(phase, context.match_input()) {
            if !context.rules.contains(&id) {
                context.rules.push(id);
            }
            let call = context.call;
            match effect {
                Effect::Drop => return RuleOutcome::Drop,
                Effect::Delay(time) => tokio::time::sleep(time).await,
                Effect::Respond(error) => return RuleOutcome::Respond(AwsResponse::error(call.service, &error)),
                Effect::Deny => return RuleOutcome::Respond(AwsResponse::error(call.service, &self.denial(context))),
                Effect::Substitute(response) => return RuleOutcome::Respond(response),
                Effect::Pause(pause) => match pause.hold().await {
                    HoldOutcome::Proceed => {}
                    HoldOutcome::Abort => return RuleOutcome::Drop,
                },
                Effect::Rewrite(rewrite) => context.rewrites.push(rewrite),
                Effect::StaleRead(lag) => context.flags.stale_read = Some(lag),
                Effect::HideNewKeys(time) => context.flags.hide_new_keys = Some(time),
                Effect::ClockSkew(skew) => context.flags.clock_skew = skew,
                Effect::AllowThirdKey => context.flags.allow_third_key = true,
            }
        }
        RuleOutcome::Continue
    }

    fn denial(&self, context: &CallContext<'_>) -> AwsError {
        let call = context.call;
        let key = context.key_id.as_deref().and_then(|id| self.account().key(id));
        let (account_ref, identity) = match key {
            Some(key) => (key.account_ref, key.owner),
            None => (self.account().home().in_region(&call.region), Identity::Trusted),
        };
        let caller = Caller { key_id: context.key_id.clone(), account_ref, identity };
        let resource = resource_of(call, &caller.account_ref);
        AwsError::access_denied(&self.account().caller_arn(&caller), &call.iam_action(), &resource)
    }

    /// The clock of AWS for this call, including a clock skew.
    fn now(context: &CallContext<'_>) -> Timestamp {
        let now = Timestamp::now();
        // Ignore a skew that is out of the range of timestamps.
        now.checked_add(context.flags.clock_skew).unwrap_or(now)
    }

    async fn perform(&self, request: &Request, context: &mut CallContext<'_>) -> AwsResponse {
        let call = context.call;
        let aws_now = Self::now(context);
        let result = async {
            let caller = self.account().authenticate(request, call, aws_now)?;
            self.account().authorize(&caller, call).await?;
            let request_key =
                format!("{}/{} {}", caller.account_ref.partition, caller.account_ref.account, call.request_key());
            let is_read = !call.is_mutating() && call.service == Service::Iam;
            if let Some(lag) = context.flags.stale_read.filter(|_| is_read) {
                let previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, response)) = previous.get(&request_key).filter(|(at, _)| at.elapsed() < lag) {
                    return Ok(response.clone());
                }
            }
            let response = self.aws.perform(call, &caller, context.flags).await?;
            // Cache NoSuchEntity too: a stale read after CreateUser returns it. Later pages are not cached, as a marker
            // is never used twice.
            let is_cacheable = response.is_success() || response.status == 404;
            if is_read && is_cacheable && call.param("Marker").is_none() {
                self.cache_response(request_key, &response);
            }
            Ok(response)
        };
        let response = result.await.unwrap_or_else(|error| AwsResponse::error(call.service, &error));
        if call.action == "CreateAccessKey" && response.is_success() {
            context.access_key = super::xml::text_in(&response.body, "AccessKeyId");
        }
        response
    }

    fn cache_response(&self, request_key: String, response: &AwsResponse) {
        // Enough for every read of 5,000 users; reads beyond are never served stale.
        const MAX_CACHED_RESPONSES: usize = 50_000;
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        if previous.len() < MAX_CACHED_RESPONSES || previous.contains_key(&request_key) {
            previous.insert(request_key, (Instant::now(), response.clone()));
        }
    }
}

/// The resource that `AccessDenied` names, without the path: the call does not contain the path of an existing user.
fn resource_of(call: &Call, account_ref: &AccountRef) -> String {
    if let Some(arn) = call.param("RoleArn") {
        return arn.to_owned();
    }
    if let Some(group) = call.param("GroupName") {
        return account_ref.arn("iam", &format!("group/{group}"));
    }
    if let (None, Some(name)) = (call.user_name(), call.param("PolicyName")) {
        return account_ref.arn("iam", &format!("policy{}{name}", call.param("Path").unwrap_or("/")));
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
