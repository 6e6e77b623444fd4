//! The knobs of AWS's behaviour.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How pages are cut; AWS may return fewer items than asked for "even when there are more results available".
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

/// The knobs of AWS's behaviour. Defaults are AWS's rules with every delay at zero.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How long a new or re-activated key is still refused. Real keys took 5 to 15 seconds in the field reports
    /// (hashicorp/vault#687, 99designs/aws-vault#170, aws/aws-sdk-js#559).
    pub activation_delay: Duration,
    /// How long a deactivated or deleted key is still accepted; about 4 s were measured on AWS.
    pub revocation_lag: Duration,
    /// At most this many items on a page, whatever the caller asks for. Without it a page has 100, and with `MaxItems`
    /// up to 1,000.
    pub page_size: usize,
    /// How pages are cut.
    pub page_shape: PageShape,
    /// How late `GetAccessKeyLastUsed` hears of a use. Until then it says `N/A`.
    pub last_used_lag: Duration,
    /// Only the first use within this time is recorded; 15 minutes on AWS, zero here so that tests see each use.
    pub last_used_granularity: Duration,
    /// Users in an account; 5,000, not adjustable.
    pub users_quota: usize,
    /// Managed policies on a user; 10, which AWS raises to 20 on request.
    pub attached_policies_quota: usize,
    /// Minimum password length of the account.
    pub password_min_length: usize,
    /// Who the trusted keys are, as `GetCallerIdentity` and `AccessDenied` say. Default: a role of the home account.
    pub operator_arn: Option<String>,
    /// Whether a request must be signed within 15 minutes of AWS's clock.
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
            password_min_length: 8,
            operator_arn: None,
            check_signature_age: true,
        }
    }
}
