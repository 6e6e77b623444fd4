//! `iam-policy`: prints the IAM policy that the operator itself needs.

use clap::Args;

use super::settings::{parse_path, parse_policy_arn};
use crate::domain::operator_policy::{Scope, operator_policy};

/// Arguments of `iam-policy`.
#[derive(Args, Clone, Debug)]
pub struct IamPolicyArguments {
    /// The AWS account: twelve digits.
    #[arg(long, value_parser = parse_account)]
    pub account: String,

    /// Path of the IAM users, as the operator's --user-path.
    #[arg(long, default_value = "/awsdeploy/", value_parser = parse_path)]
    pub path: String,

    /// ARN of the permissions boundary, as the operator's --permissions-boundary. Recommended: without it the
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

fn parse_account(text: &str) -> Result<String, String> {
    let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { Ok(text.to_owned()) } else { Err("an AWS account id has twelve digits".to_owned()) }
}
