//! A parsed call of the AWS query protocol.

use std::collections::BTreeMap;
use std::fmt;

use hyper::HeaderMap;

use super::response::AwsError;

/// The services that the proxy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Identity and Access Management, API version 2010-05-08.
    Iam,
    /// Security Token Service, API version 2011-06-15.
    Sts,
}

impl Service {
    /// The name in a SigV4 credential scope and in IAM actions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Iam => "iam",
            Self::Sts => "sts",
        }
    }

    /// The API version, sent as parameter `Version`.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::Iam => "2010-05-08",
            Self::Sts => "2011-06-15",
        }
    }

    /// The XML namespace of responses.
    #[must_use]
    pub fn namespace(self) -> &'static str {
        match self {
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
        }
    }

    fn from_version(version: &str) -> Option<Self> {
        [Self::Iam, Self::Sts].into_iter().find(|service| service.version() == version)
    }
}

/// An HTTP request as received: the signature covers these bytes.
#[derive(Clone)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Path, not decoded.
    pub path: String,
    /// Query string without the question mark, not decoded.
    pub query: String,
    /// Headers, names in lower case.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

/// Whether the value of a parameter must not be logged.
fn is_sensitive(name: &str) -> bool {
    const SENSITIVE: [&str; 7] =
        ["Password", "OldPassword", "NewPassword", "PrivateKey", "WebIdentityToken", "SAMLAssertion", "TokenCode"];
    SENSITIVE.contains(&name) || name.contains("Secret") || name.starts_with("AuthenticationCode")
}

/// A call: service, action and parameters.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Service of the action.
    pub service: Service,
    /// The `Action`, for example `CreateAccessKey`.
    pub action: String,
    /// The region of the credential scope, which determines the partition.
    pub region: String,
    params: BTreeMap<String, String>,
}

// Not derived: a test failure or log line must not print a password.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{:?}", self.service.name(), self.action, self.public_params())
    }
}

impl Call {
    /// A call without parameters; add them with [`Call::with`].
    #[must_use]
    pub fn new(service: Service, action: impl Into<String>) -> Self {
        Self { service, action: action.into(), region: "us-east-1".to_owned(), params: BTreeMap::new() }
    }

    /// An IAM call.
    #[must_use]
    pub fn iam(action: impl Into<String>) -> Self {
        Self::new(Service::Iam, action)
    }

    /// An STS call.
    #[must_use]
    pub fn sts(action: impl Into<String>) -> Self {
        Self::new(Service::Sts, action)
    }

    /// Parses form body and query string: AWS accepts parameters in both.
    pub fn parse(request: &Request, region: Option<&str>) -> Result<Self, AwsError> {
        let mut params: BTreeMap<String, String> = form_urlencoded::parse(request.query.as_bytes())
            .chain(form_urlencoded::parse(&request.body))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let action = params.remove("Action").filter(|action| !action.is_empty());
        let Some(action) = action else {
            return Err(AwsError::new(400, "MissingAction", "The request must contain the parameter Action."));
        };
        // The action becomes part of element names and log lines.
        if !action.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(AwsError::new(400, "InvalidAction", "Could not find operation"));
        }
        let version = params.remove("Version").unwrap_or_default();
        let Some(service) = Service::from_version(&version) else {
            return Err(AwsError::new(
                400,
                "InvalidAction",
                format!("Could not find operation {action} for version {version}"),
            ));
        };
        Ok(Self { service, action, region: region.unwrap_or("us-east-1").to_owned(), params })
    }

    /// Sets a parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Removes a parameter.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.params.remove(name);
        self
    }

    /// Removes a list or structure parameter: all parameters below `prefix.`.
    #[must_use]
    pub fn without_list(mut self, prefix: &str) -> Self {
        let below = format!("{prefix}.");
        self.params.retain(|name, _| name != prefix && !name.starts_with(&below));
        self
    }

    /// Sets `Tags.member.N` for each pair.
    #[must_use]
    pub fn with_tags<K: AsRef<str>, V: AsRef<str>>(self, tags: impl IntoIterator<Item = (K, V)>) -> Self {
        tags.into_iter().enumerate().fold(self, |call, (index, (key, value))| {
            let member = format!("Tags.member.{}", index + 1);
            call.with(format!("{member}.Key"), key.as_ref()).with(format!("{member}.Value"), value.as_ref())
        })
    }

    /// The value of a parameter.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// The value of a required parameter, or the error of AWS for a missing one.
    pub fn required(&self, name: &str) -> Result<&str, AwsError> {
        self.param(name).ok_or_else(|| {
            let mut field = name.to_owned();
            if let Some(first) = field.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            AwsError::validation(format!(
                "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not \
                 be null"
            ))
        })
    }

    /// The values of a list parameter, `name.member.N`, in the order of N.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<&str> {
        let prefix = format!("{name}.member.");
        let mut members: Vec<(u32, &str)> = self
            .params
            .iter()
            .filter_map(|(param, value)| Some((param.strip_prefix(&prefix)?.parse().ok()?, value.as_str())))
            .collect();
        members.sort_unstable_by_key(|(index, _)| *index);
        members.into_iter().map(|(_, value)| value).collect()
    }

    /// The key and value of each `Tags.member.N`, in the order of N.
    #[must_use]
    pub fn tags(&self) -> Vec<(&str, &str)> {
        let mut tags: BTreeMap<u32, (&str, &str)> = BTreeMap::new();
        for (param, value) in &self.params {
            let Some((index, field)) = param.strip_prefix("Tags.member.").and_then(|rest| rest.split_once('.')) else {
                continue;
            };
            let Ok(index) = index.parse() else { continue };
            let tag = tags.entry(index).or_default();
            match field {
                "Key" => tag.0 = value,
                "Value" => tag.1 = value,
                _ => {}
            }
        }
        tags.into_values().collect()
    }

    /// The parameter `UserName`. Without it, a call refers to the calling user.
    #[must_use]
    pub fn user_name(&self) -> Option<&str> {
        self.param("UserName")
    }

    /// The parameter `AccessKeyId`.
    #[must_use]
    pub fn access_key_id(&self) -> Option<&str> {
        self.param("AccessKeyId")
    }

    /// Whether the action changes IAM. STS actions and the generation of reports count as reads.
    #[must_use]
    pub fn is_mutating(&self) -> bool {
        const READS: [&str; 5] = ["Get", "List", "Simulate", "Generate", "Validate"];
        self.service == Service::Iam && !READS.iter().any(|prefix| self.action.starts_with(prefix))
    }

    /// The action as policies spell it, for example `iam:CreateUser`.
    #[must_use]
    pub fn iam_action(&self) -> String {
        format!("{}:{}", self.service.name(), self.action)
    }

    /// The parameters, with sensitive values redacted.
    #[must_use]
    pub fn public_params(&self) -> BTreeMap<String, String> {
        self.params
            .iter()
            .map(|(name, value)| {
                let value = if is_sensitive(name) { "REDACTED" } else { value };
                (name.clone(), value.to_owned())
            })
            .collect()
    }

    /// The call as form body.
    #[must_use]
    pub fn body(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", &self.action)
            .append_pair("Version", self.service.version())
            .extend_pairs(&self.params)
            .finish()
    }

    /// Identifies equal reads.
    #[must_use]
    pub(super) fn request_key(&self) -> String {
        self.body()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Request {
        Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn form_body_round_trips() {
        let call = Call::parse(
            &request(
                "Action=CreateUser&Version=2010-05-08&UserName=a%2Bb&Path=%2Fp%2F&Tags.member.2.Key=b&\
                 Tags.member.2.Value=two+words&Tags.member.1.Key=a&Tags.member.1.Value=",
            ),
            None,
        )
        .unwrap();
        assert_eq!((call.service, call.action.as_str()), (Service::Iam, "CreateUser"));
        assert_eq!(call.user_name(), Some("a+b"));
        assert_eq!(call.tags(), [("a", ""), ("b", "two words")]);
        assert!(call.is_mutating());
        assert_eq!(Call::parse(&request(&call.body()), None).unwrap(), call);
    }

    #[test]
    fn list_parameters_are_ordered_by_index() {
        let call =
            (1..=11).fold(Call::iam("UntagUser"), |call, n| call.with(format!("TagKeys.member.{n}"), n.to_string()));
        assert_eq!(call.list("TagKeys").last(), Some(&"11"));
        assert!(call.without_list("TagKeys").list("TagKeys").is_empty());
    }

    #[test]
    fn malformed_calls_are_rejected() {
        for (body, code) in [
            ("", "MissingAction"),
            ("Action=CreateUser", "InvalidAction"),
            ("Action=CreateUser&Version=1999-01-01", "InvalidAction"),
            ("Action=<b>&Version=2010-05-08", "InvalidAction"),
        ] {
            assert_eq!(Call::parse(&request(body), None).unwrap_err().code, code, "{body}");
        }
    }

    #[test]
    fn mutating_actions_are_recognized() {
        for action in ["GetUser", "ListAccessKeys", "GenerateCredentialReport", "SimulatePrincipalPolicy"] {
            assert!(!Call::iam(action).is_mutating(), "{action}");
        }
        for action in ["CreateUser", "DeleteAccessKey", "TagUser", "PutUserPolicy", "AttachUserPolicy"] {
            assert!(Call::iam(action).is_mutating(), "{action}");
        }
        assert!(!Call::sts("AssumeRole").is_mutating());
    }

    #[test]
    fn debug_output_redacts_passwords() {
        let call = Call::iam("CreateLoginProfile")
            .with("UserName", "u")
            .with("Password", "hunter2-Hunter2")
            .with("PasswordResetRequired", "true");
        let printed = format!("{call:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("\"PasswordResetRequired\": \"true\""), "{printed}");
    }

    #[test]
    fn missing_parameter_error_names_the_field() {
        let error = Call::iam("TagUser").required("UserName").unwrap_err();
        assert!(error.message.contains("Value null at 'userName'"), "{error}");
    }
}
