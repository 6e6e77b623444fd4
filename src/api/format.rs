//! Formats of texts in the custom resources. A schema can only quote the regular expression that a text does not match; the
//! definitions have a CEL rule with a message instead.

/// Numbers with units, one of them above zero.
macro_rules! duration {
    () => {
        concat!(
            r"([0-9]+(\.[0-9]+)?(w|d|h|m|s))*",
            r"([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)(w|d|h|m|s)",
            r"([0-9]+(\.[0-9]+)?(w|d|h|m|s))*",
        )
    };
}

/// DNS subdomain: the format of the names of Secrets, classes and workloads.
pub(super) const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// DNS label: the format of the names of consumers.
pub(super) const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
pub(super) const IAM_NAME: &str = r"^[A-Za-z0-9+=,.@_-]+$";
/// Without `+`, which separates the name of the user from it in the name of a managed policy.
pub(super) const DOCUMENT_NAME: &str = r"^[A-Za-z0-9=,.@_-]+$";
pub(super) const TAG_VALUE: &str = r"^[\p{L}\p{Z}\p{N}_.:/=+@-]*$";
pub(super) const REGION: &str = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$";
pub(super) const INTERVAL: &str = concat!("^(Never|", duration!(), ")$");
pub(super) const DURATION: &str = concat!("^", duration!(), "$");
pub(super) const NAMESPACE: &str = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$";
pub(super) const POLICY_ARN: &str =
    r"^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,128}$";
pub(super) const IAM_NAME_PATTERN: &str = r"^[A-Za-z0-9+=,.@_*-]+$";
pub(super) const WORKLOAD_PATTERN: &str = r"^[A-Za-z*]+(/[a-z0-9.*-]+)?$";
pub(super) const TAG_KEY_PATTERN: &str = r"^[\p{L}\p{Z}\p{N}_.:/=+@*-]+$";
pub(super) const ACCOUNT_ID: &str = r"^[0-9]{12}$";
pub(super) const ROLE_ARN: &str =
    r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,64}$";
pub(super) const EXTERNAL_ID: &str = r"^[A-Za-z0-9_+=,.@:/-]+$";
pub(super) const PATH: &str = r"^/([\x21-\x2e\x30-\x7e]+/)*$";
pub(super) const NAME_TEMPLATE: &str = r"^([A-Za-z0-9+=,.@_-]|\{namespace\}|\{name\}|\{hash\})+$";
pub(super) const METADATA_KEY_PATTERN: &str = r"^[A-Za-z0-9._/*-]+$";
pub(super) const DATA_KEY_PATTERN: &str = r"^[A-Za-z0-9._*-]+$";
pub(super) const POLICY_PATTERN: &str = r"^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/)?[A-Za-z0-9+=,.@_/*-]+$";
pub(super) const POLICY: &str =
    r"^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/)?([A-Za-z0-9._+=,@-]+/)*[A-Za-z0-9+=,.@_-]{1,128}$";
pub(super) const TEMPLATE_NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
pub(super) const PARAMETER_NAME: &str = r"^[A-Za-z][A-Za-z0-9]*$";
pub(super) const PARAMETER_VALUE: &str = r"^[A-Za-z0-9 _.:/=+@,-]+$";

/// What a text of each format has to be, in place of its regular expression.
const MESSAGES: &[(&str, &str)] = &[
    (
        OBJECT_NAME,
        "a name has lower-case letters, digits, hyphens and dots, and begins and ends with a letter or a digit",
    ),
    (LABEL, "a name has lower-case letters, digits and hyphens, and begins and ends with a letter or a digit"),
    (IAM_NAME, "a name in IAM has letters, digits and + = , . @ _ - only, and no spaces"),
    (DOCUMENT_NAME, "the name of a document has letters, digits and = , . @ _ - only, and no spaces"),
    (TAG_VALUE, "AWS stores it in a tag, which has letters, digits, spaces and _ . : / = + @ - only, and no commas"),
    (REGION, "a Region is written with hyphens, such as us-east-1 or eu-central-1"),
    (
        INTERVAL,
        "an interval is a duration above zero without spaces such as 30d, 12h, 90m or 1h30m (units w, d, h, m and s), or Never",
    ),
    (
        DURATION,
        "a duration is above zero and written without spaces, such as 30d, 12h, 90m or 1h30m (units w, d, h, m and s)",
    ),
    (
        NAMESPACE,
        "a namespace has lower-case letters, digits and hyphens, and begins and ends with a letter or a digit; * alone is every namespace",
    ),
    (
        POLICY_ARN,
        "a permissions boundary is the ARN of a managed policy, such as arn:aws:iam::123456789012:policy/boundary",
    ),
    (IAM_NAME_PATTERN, "a name in IAM has letters, digits and + = , . @ _ - only; * matches any characters"),
    (WORKLOAD_PATTERN, "a workload is a kind and a name, such as Deployment/web; * matches any characters"),
    (TAG_KEY_PATTERN, "a tag key has letters, digits, spaces and _ . : / = + @ - only; * matches any characters"),
    (ACCOUNT_ID, "an account id has twelve digits"),
    (ROLE_ARN, "a role is given by its ARN, such as arn:aws:iam::123456789012:role/deploy-operator"),
    (EXTERNAL_ID, "an external id has letters, digits and _ + = , . @ : / - only"),
    (PATH, "a path begins and ends with /, such as /awsdeploy/, and has printable ASCII characters without spaces"),
    (
        NAME_TEMPLATE,
        "a name template has letters, digits, + = , . @ _ - and the placeholders {namespace}, {name} and {hash} only",
    ),
    (METADATA_KEY_PATTERN, "a key has letters, digits and . _ / - only; * matches any characters"),
    (DATA_KEY_PATTERN, "a data key has letters, digits and . _ - only; * matches any characters"),
    (
        POLICY_PATTERN,
        "a managed policy is a name such as AmazonEC2FullAccess, or an ARN such as arn:aws:iam::123456789012:policy/own; * matches any characters of the name",
    ),
    (
        POLICY,
        "a managed policy is a name such as AmazonEC2FullAccess, a path and a name such as job-function/ViewOnlyAccess, or an ARN such as arn:aws:iam::123456789012:policy/own",
    ),
    (
        TEMPLATE_NAME,
        "the name of a template has lower-case letters, digits, hyphens and dots, and begins and ends with a letter or a digit",
    ),
    (PARAMETER_NAME, "the name of a parameter is a letter followed by letters and digits"),
    (
        PARAMETER_VALUE,
        "the value of a parameter has letters, digits, spaces and _ . : / = + @ , - only: wildcards and variables belong to the template",
    ),
];

/// The message about a text that does not match the regular expression.
pub(super) fn message(pattern: &str) -> Option<&'static str> {
    MESSAGES.iter().find(|(known, _)| *known == pattern).map(|(_, message)| *message)
}
