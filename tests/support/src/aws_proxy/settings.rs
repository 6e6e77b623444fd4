//! Settings of the simulated AWS.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The sizes of list pages. AWS may return fewer items than requested "even when there are more results available".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageShape {
    /// Every page is full.
    #[default]
    Full,
    /// Every second page is half full.
    Fewer,
    /// Every second page is half full, and every third is empty although more follow.
    WithEmpty,
}

/// Settings of the simulated AWS. The defaults are the quotas of AWS with every delay at zero.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Time until a new or re-activated key is accepted. Reports for AWS name 5 to 15 seconds (hashicorp/vault#687,
    /// 99designs/aws-vault#170, aws/aws-sdk-js#559).
    pub activation_delay: Duration,
    /// Time until a deactivated or deleted key is rejected; about 4 s in measurements on AWS.
    pub revocation_lag: Duration,
    /// Upper limit of items per page. A page has 100 items by default and up to 1,000 with `MaxItems`.
    pub page_size: usize,
    /// Sizes of list pages.
    pub page_shape: PageShape,
    /// Time until `GetAccessKeyLastUsed` reports a use; `N/A` until then.
    pub last_used_lag: Duration,
    /// Only the first use within this time is recorded: 15 minutes on AWS, zero by default so that tests see each use.
    pub last_used_granularity: Duration,
    /// Users per account; AWS: 5,000, not adjustable.
    pub users_quota: usize,
    /// Managed policies per user; AWS: 10, adjustable up to 20.
    pub attached_policies_quota: usize,
    /// Customer managed policies per account; AWS: 1,500, adjustable up to 5,000.
    pub policies_quota: usize,
    /// Time until calls other than `CreatePolicy` see a new customer managed policy.
    pub policy_visibility_lag: Duration,
    /// Minimum password length of the account's password policy.
    pub password_min_length: usize,
    /// ARN of the trusted keys in `GetCallerIdentity` and `AccessDenied`. Default: a role of the home account.
    pub operator_arn: Option<String>,
    /// Whether the signature must be within 15 minutes of the clock of AWS.
    pub check_signature_age: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            activation_delay: Duration::ZERO,
            revocation_lag: Duration::ZERO,
            page_size: 1000,
            page_shape: PageShape::Full,
            last_used_lag: Duration::ZERO,
            last_used_granularity: Duration::ZERO,
            users_quota: 5000,
            attached_policies_quota: 10,
            policies_quota: 1500,
            policy_visibility_lag: Duration::ZERO,
            password_min_length: 8,
            operator_arn: None,
            check_signature_age: true,
        }
    }
}
