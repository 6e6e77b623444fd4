//! AWS managed policies that make their holder an administrator of the account.
//!
//! Documents are not evaluated: which permissions lead to administrator rights cannot be listed completely.

use super::pattern::{canonicalize, matches};

/// Patterns of AWS managed policies with administrator permissions. Matched without path and ignoring case.
pub const MANAGED_PATTERNS: [&str; 4] =
    ["AdministratorAccess*", "IAMFullAccess", "PowerUserAccess", "AWSOrganizationsFullAccess"];

/// Whether this AWS managed policy is equivalent to `AdministratorAccess`. The content of customer managed policies is unknown.
#[must_use]
pub fn is_admin_policy(declared: &str) -> bool {
    let name = canonicalize(declared);
    if name.starts_with("arn:") {
        return false;
    }
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    MANAGED_PATTERNS.iter().any(|known| matches(&known.to_ascii_lowercase(), &name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_policies_are_detected_ignoring_path_and_case() {
        for name in [
            "AdministratorAccess",
            "arn:aws-us-gov:iam::aws:policy/AdministratorAccess",
            "administratoraccess",
            "AdministratorAccess-Amplify",
            "IAMFullAccess",
            "PowerUserAccess",
        ] {
            assert!(is_admin_policy(name), "{name}");
        }
        for name in ["AmazonEC2FullAccess", "job-function/ViewOnlyAccess", "arn:aws:iam::123456789012:policy/own"] {
            assert!(!is_admin_policy(name), "{name}");
        }
    }
}
