//! `iam-policy`: prints the IAM policy that the operator itself needs.

use clap::Args;

use crate::domain::operator_policy::{Scope, operator_policy};

/// Arguments of `iam-policy`.
#[derive(Args, Clone, Debug)]
pub struct IamPolicyArguments {
    /// The AWS account: twelve digits.
    #[arg(long, value_parser = parse_account)]
    pub account: String,

    /// Path of the IAM users, as the class has it (spec.users.path).
    #[arg(long, default_value = "/awsdeploy/", value_parser = parse_path)]
    pub path: String,

    /// ARN of the permissions boundary, as the class has it (spec.permissionsBoundary). Recommended: without it the
    /// operator can give its users any right of the account.
    #[arg(long, value_parser = parse_policy_arn)]
    pub boundary: Option<String>,

    /// A group that users may be put into, with its path if it has one; can be given several times.
    #[arg(long = "group")]
    pub groups: Vec<String>,

    /// Partition of the account: aws, aws-cn, aws-us-gov, ...
    #[arg(long, default_value = "aws")]
    pub partition: String,
}

impl IamPolicyArguments {
    /// The policy as indented JSON.
    #[must_use]
    pub fn policy(&self) -> String {
        let policy = operator_policy(&Scope {
            partition: self.partition.clone(),
            account: self.account.clone(),
            path: self.path.clone(),
            boundary: self.boundary.clone(),
            groups: self.groups.clone(),
        });
        format!("{policy:#}\n")
    }
}

/// A path as IAM takes it.
fn parse_path(text: &str) -> Result<String, String> {
    let printable = text.chars().all(|c| c.is_ascii_graphic());
    if text.starts_with('/') && text.ends_with('/') && !text.contains("//") && printable && text.len() <= 512 {
        return Ok(text.to_owned());
    }
    Err("a path begins and ends with / and has at most 512 characters, such as /awsdeploy/".to_owned())
}

/// The ARN of a managed policy.
fn parse_policy_arn(text: &str) -> Result<String, String> {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, rest) = (next(), next(), next(), next(), next(), next());
    let in_account = account == "aws" || (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()));
    let named = rest.strip_prefix("policy/").is_some_and(|name| !name.is_empty() && !name.ends_with('/'));
    if (arn, service, region) == ("arn", "iam", "") && partition.starts_with("aws") && in_account && named {
        return Ok(text.to_owned());
    }
    Err("this is the ARN of a managed policy, such as arn:aws:iam::123456789012:policy/deploy-boundary".to_owned())
}

fn parse_account(text: &str) -> Result<String, String> {
    let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { Ok(text.to_owned()) } else { Err("an AWS account id has twelve digits".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_boundary_are_checked_at_the_start() {
        for good in ["/", "/awsdeploy/", "/a/b/"] {
            assert!(parse_path(good).is_ok(), "{good}");
        }
        for bad in ["", "awsdeploy", "/awsdeploy", "//", "/a b/"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
        for good in ["arn:aws:iam::123456789012:policy/b", "arn:aws-cn:iam::aws:policy/team/b"] {
            assert!(parse_policy_arn(good).is_ok(), "{good}");
        }
        for bad in
            ["b", "arn:aws:iam::123456789012:user/b", "arn:aws:iam::12:policy/b", "arn:aws:iam::123456789012:policy/"]
        {
            assert!(parse_policy_arn(bad).is_err(), "{bad}");
        }
    }
}
