//! Authentication and authorization of callers: signatures, sessions, permission checks.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::Account;
use crate::aws_proxy::call::{Call, Request};
use crate::aws_proxy::caller::{Caller, Identity};
use crate::aws_proxy::key::Secret;
use crate::aws_proxy::response::AwsError;
use crate::aws_proxy::sigv4::Authorization;

/// Checks the permission of a caller before a call is processed.
pub trait Authorizer: Send + Sync {
    /// The error is sent to the caller; use [`AwsError::access_denied`].
    fn check<'a>(&'a self, caller: &'a Caller, call: &'a Call) -> BoxFuture<'a, Result<(), AwsError>>;
}

impl Account {
    /// Trusts a key id that was not created through a proxy, with this secret or, for `None`, with any secret.
    pub fn trust(&self, key_id: &str, secret: Option<&str>) {
        self.state().trusted.insert(key_id.to_owned(), secret.map(Secret::new));
    }

    /// Stops trusting a key id.
    pub fn distrust(&self, key_id: &str) {
        self.state().trusted.remove(key_id);
    }

    /// Adds a permission check; all must pass.
    pub fn authorize_with(&self, authorizer: Arc<dyn Authorizer>) {
        self.authorizers.write().unwrap_or_else(PoisonError::into_inner).push(authorizer);
    }

    /// Authenticates the signer of a request, or returns the error of AWS. `aws_now` is the time on the clock of AWS.
    pub(in crate::aws_proxy) fn authenticate(
        &self,
        request: &Request,
        call: &Call,
        aws_now: Timestamp,
    ) -> Result<Caller, AwsError> {
        let Some(authorization) = Authorization::from_request(request) else {
            // These actions are unsigned: they carry a token as a parameter.
            if matches!(call.action.as_str(), "AssumeRoleWithWebIdentity" | "AssumeRoleWithSAML") {
                let account_ref = self.home().in_region(&call.region);
                return Ok(Caller { key_id: None, account_ref, identity: Identity::Anonymous });
            }
            return Err(AwsError::new(403, "MissingAuthenticationToken", "Request is missing Authentication Token"));
        };
        let settings = self.settings();
        let now = Instant::now();
        let key_id = authorization.access_key_id.clone();
        let mut state = self.state();
        let (secret, account_ref, identity) = if let Some(secret) = state.trusted.get(&key_id) {
            (secret.clone(), self.home(), Identity::Trusted)
        } else {
            let Some(key) = state.keys.get(&key_id) else {
                return Err(AwsError::invalid_client_token());
            };
            // AWS treats a session without its token, and an access key with a token, as unknown.
            let token = request.headers.get("x-amz-security-token").and_then(|value| value.to_str().ok());
            if !key.is_accepted(&settings, now) || key.token.as_ref().map(Secret::expose) != token {
                return Err(AwsError::invalid_client_token());
            }
            if key.expires.is_some_and(|expires| expires <= aws_now) {
                return Err(AwsError::new(
                    403,
                    "ExpiredToken",
                    "The security token included in the request is expired",
                ));
            }
            (Some(key.secret.clone()), key.account_ref.clone(), key.owner.clone())
        };
        if authorization.service != call.service.name() {
            return Err(AwsError::new(
                403,
                "SignatureDoesNotMatch",
                format!("Credential should be scoped to correct service: '{}'.", call.service.name()),
            ));
        }
        if let Some(secret) = secret
            && !authorization.is_made_with(secret.expose(), request)
        {
            return Err(AwsError::signature_does_not_match());
        }
        if settings.check_signature_age {
            check_age(request, aws_now)?;
        }
        if let Some(key) = state.keys.get_mut(&key_id) {
            key.record_use(&settings, now, &authorization.service, &authorization.region);
        }
        let account_ref = match identity {
            Identity::Trusted => account_ref.in_region(&authorization.region),
            _ => account_ref,
        };
        Ok(Caller { key_id: Some(key_id), account_ref, identity })
    }

    /// Runs the permission checks.
    pub(in crate::aws_proxy) async fn authorize(&self, caller: &Caller, call: &Call) -> Result<(), AwsError> {
        let authorizers = self.authorizers.read().unwrap_or_else(PoisonError::into_inner).clone();
        for authorizer in authorizers {
            authorizer.check(caller, call).await?;
        }
        Ok(())
    }

    /// The ARN of the caller, as in error messages.
    pub(in crate::aws_proxy) fn caller_arn(&self, caller: &Caller) -> String {
        match &caller.identity {
            Identity::User(name) => caller.account_ref.arn("iam", &format!("user/{name}")),
            Identity::Session { arn, .. } => arn.clone(),
            Identity::Administrator => caller.account_ref.arn("iam", "root"),
            Identity::Trusted | Identity::Anonymous => self
                .settings()
                .operator_arn
                .unwrap_or_else(|| caller.account_ref.arn("sts", "assumed-role/deploy-users/operator")),
        }
    }
}

fn check_age(request: &Request, aws_now: Timestamp) -> Result<(), AwsError> {
    const FORMAT: &str = "%Y%m%dT%H%M%SZ";
    let signed_at = request.headers.get("x-amz-date").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parsed = jiff::civil::DateTime::strptime(FORMAT, signed_at)
        .and_then(|signed| signed.to_zoned(jiff::tz::TimeZone::UTC))
        .map(|signed| signed.timestamp());
    let Ok(time) = parsed else {
        return Err(AwsError::new(
            400,
            "IncompleteSignature",
            format!("Date must be in ISO-8601 'basic format'. Got '{signed_at}'."),
        ));
    };
    if aws_now.duration_since(time).abs() > jiff::SignedDuration::from_mins(15) {
        return Err(AwsError::signature_expired(signed_at, &aws_now.strftime(FORMAT).to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::NewSession;
    use super::*;
    use crate::aws_proxy::caller::AccountRef;
    use crate::aws_proxy::key::KeyState;
    use crate::aws_proxy::sigv4;

    const SECRET: &str = "a-secret";
    const SEC: Duration = Duration::from_secs(1);

    fn signed(call: &Call, key_id: &str, secret: &str, at: Timestamp) -> Request {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("host", "127.0.0.1:1".parse().unwrap());
        let mut request = Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers,
            body: call.body().into_bytes(),
        };
        let timestamp = at.strftime("%Y%m%dT%H%M%SZ").to_string();
        sigv4::sign(&mut request, key_id, secret, "us-east-1", call.service.name(), &timestamp);
        request
    }

    fn identity(account: &Account, key_id: &str, secret: &str) -> Result<Identity, String> {
        let call = Call::sts("GetCallerIdentity");
        let now = Timestamp::now();
        account
            .authenticate(&signed(&call, key_id, secret, now), &call, now)
            .map(|caller| caller.identity)
            .map_err(|error| error.code)
    }

    fn rejected(code: &str) -> Result<Identity, String> {
        Err(code.to_owned())
    }

    #[test]
    fn known_keys_authenticate_with_their_secret_only() {
        let account = Account::new();
        account.import_key(account.home(), "u", "AKIA1", SECRET);
        assert_eq!(identity(&account, "AKIA1", SECRET), Ok(Identity::User("u".to_owned())));
        assert_eq!(identity(&account, "AKIA1", "wrong"), rejected("SignatureDoesNotMatch"));
        assert_eq!(identity(&account, "AKIA2", SECRET), rejected("InvalidClientTokenId"));
        assert_eq!(identity(&account, "testing", "anything"), Ok(Identity::Trusted));
        account.trust("operator", Some("its-secret"));
        assert_eq!(identity(&account, "operator", "its-secret"), Ok(Identity::Trusted));
        assert_eq!(identity(&account, "operator", "another"), rejected("SignatureDoesNotMatch"));
        account.distrust("testing");
        assert_eq!(identity(&account, "testing", "anything"), rejected("InvalidClientTokenId"));
    }

    #[test]
    fn inactive_and_deleted_keys_are_rejected() {
        let account = Account::new();
        account.import_key(account.home(), "u", "AKIA1", SECRET);
        account.record_key_state("AKIA1", KeyState::Inactive);
        assert_eq!(identity(&account, "AKIA1", SECRET), rejected("InvalidClientTokenId"));
        account.record_key_state("AKIA1", KeyState::Active);
        assert!(identity(&account, "AKIA1", SECRET).is_ok());
        account.record_key_state("AKIA1", KeyState::Deleted);
        assert_eq!(identity(&account, "AKIA1", SECRET), rejected("InvalidClientTokenId"));
        assert_eq!(account.key_state("AKIA1"), Some(KeyState::Deleted));
    }

    #[test]
    fn signature_is_valid_for_15_minutes_of_aws_time() {
        let account = Account::new();
        let call = Call::iam("GetUser");
        let signed_at = Timestamp::now();
        let request = signed(&call, "testing", "x", signed_at);
        let minutes = |n| signed_at + jiff::SignedDuration::from_mins(n);
        for n in [-14, 0, 14] {
            assert!(account.authenticate(&request, &call, minutes(n)).is_ok(), "{n}");
        }
        for (n, message) in [(-16, "not yet current"), (16, "expired")] {
            let error = account.authenticate(&request, &call, minutes(n)).unwrap_err();
            assert_eq!(error.code, "SignatureDoesNotMatch");
            assert!(error.message.contains(message), "{error}");
        }
    }

    #[test]
    fn missing_signature_or_other_service_is_rejected() {
        let account = Account::new();
        let now = Timestamp::now();
        let call = Call::iam("GetUser");
        let for_sts = signed(&Call::sts("GetCallerIdentity"), "testing", "x", now);
        assert_eq!(account.authenticate(&for_sts, &call, now).unwrap_err().code, "SignatureDoesNotMatch");
        let mut unsigned = signed(&call, "testing", "x", now);
        unsigned.headers.remove("authorization");
        assert_eq!(account.authenticate(&unsigned, &call, now).unwrap_err().code, "MissingAuthenticationToken");
        let web_identity = Call::sts("AssumeRoleWithWebIdentity");
        assert_eq!(account.authenticate(&unsigned, &web_identity, now).unwrap().identity, Identity::Anonymous);
    }

    #[test]
    fn session_needs_its_token_and_expires() {
        let account = Account::new();
        let expires = Timestamp::now() + jiff::SignedDuration::from_mins(1);
        account.configure(|settings| settings.activation_delay = 60 * SEC);
        account.record_session(NewSession {
            account_ref: AccountRef::aws("444455556666"),
            key_id: "ASIA1".to_owned(),
            secret: SECRET.to_owned(),
            token: Some("a-token".to_owned()),
            arn: "arn:aws:sts::444455556666:assumed-role/r/s".to_owned(),
            id: "AROA:s".to_owned(),
            expires: Some(expires),
        });
        let call = Call::iam("ListUsers");
        let now = Timestamp::now();
        let mut request = signed(&call, "ASIA1", SECRET, now);
        assert_eq!(account.authenticate(&request, &call, now).unwrap_err().code, "InvalidClientTokenId");
        request.headers.insert("x-amz-security-token", "a-token".parse().unwrap());
        assert_eq!(account.authenticate(&request, &call, now).unwrap().account_ref.account, "444455556666");
        let late = expires + jiff::SignedDuration::from_secs(1);
        assert_eq!(account.authenticate(&request, &call, late).unwrap_err().code, "ExpiredToken");
    }
}
