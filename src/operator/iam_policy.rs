//! `iam-policy`: prints the IAM policy that the operator itself needs.

use std::path::Path;

use clap::Args;

use crate::{
    api::AwsDeployUserClass,
    domain::operator_policy::{Scope, operator_policy},
};

/// Arguments of `iam-policy`.
#[derive(Args, Clone, Debug)]
pub struct IamPolicyArguments {
    /// The AWS account: twelve digits.
    #[arg(long, value_parser = parse_account)]
    pub account: String,

    /// File with an `AwsDeployUserClass`, as `kubectl get awsdeployuserclass NAME -o yaml` writes it; `-` is the standard
    /// input. Path, boundary and groups are those of the class, and only what it allows can be granted. The operator needs
    /// the policies of all its classes.
    #[arg(long, conflicts_with_all = ["path", "boundary", "groups"])]
    pub class: Option<std::path::PathBuf>,

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
    ///
    /// # Errors
    /// When the class cannot be read, or is for another account.
    pub fn policy(&self) -> Result<String, String> {
        let scope = match &self.class {
            Some(file) => self.scope_of_class(file)?,
            None => Scope {
                partition: self.partition.clone(),
                account: self.account.clone(),
                path: self.path.clone(),
                boundary: self.boundary.clone(),
                groups: self.groups.clone(),
                policies: None,
                inline: true,
                console: true,
            },
        };
        Ok(format!("{:#}\n", operator_policy(&scope)))
    }

    fn scope_of_class(&self, file: &Path) -> Result<Scope, String> {
        let shown = file.display();
        let text = if file == Path::new("-") {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(file)
        };
        let text = text.map_err(|error| format!("--class {shown}: {error}"))?;
        let class: AwsDeployUserClass = serde_saphyr::from_str(&text)
            .map_err(|error| format!("--class {shown} holds no AwsDeployUserClass: {error}"))?;
        match &class.spec.account {
            Some(account) if account.id != self.account => {
                Err(format!("--class {shown} is for account {}, not {}", account.id, self.account))
            }
            _ => Ok(Scope::of_class(&class.spec, &self.account, &self.partition)),
        }
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
    fn the_policy_of_a_class_is_that_of_the_example() {
        let arguments = |account: &str| IamPolicyArguments {
            account: account.to_owned(),
            class: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/classes/cycle.yaml")),
            path: "/".to_owned(),
            boundary: None,
            groups: Vec::new(),
            partition: "aws".to_owned(),
        };
        let policy = arguments("123456789012").policy().unwrap();
        assert!(policy.contains("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), "{policy}");
        assert!(policy.contains(":user/awsdeploy/*"), "{policy}");
        let missing = IamPolicyArguments { class: Some("no-such-file".into()), ..arguments("123456789012") };
        assert!(missing.policy().unwrap_err().contains("no-such-file"));
    }

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
