//! `iam-policy`: prints the IAM policies that the operator itself needs.

use std::path::Path;

use clap::{Args, ValueEnum};

use crate::{
    api::AwsDeployUserClass,
    domain::{
        account::{Role, account_of},
        operator_policy::{Scope, operator_policy},
        role_policy::{assume_policy, trust_policy},
    },
};

/// Which document is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PolicyDocument {
    /// What the operator may do: of the role of the class, if it has one, else of the operator's own identity.
    #[default]
    Permissions,
    /// Who may take the role of the class.
    Trust,
    /// That the operator's own identity may take the role of the class.
    Assume,
}

/// Arguments of `iam-policy`.
#[derive(Args, Clone, Debug)]
pub struct IamPolicyArguments {
    /// The AWS account: twelve digits. Default: the one of the class.
    #[arg(long, value_parser = parse_account, required_unless_present = "class")]
    pub account: Option<String>,

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

    /// Partition of the account: aws, aws-cn, aws-us-gov, ... That of the role, if the class has one.
    #[arg(long, default_value = "aws")]
    pub partition: String,

    /// Which document to print. A class with a role (spec.account.roleArn) needs all three: `permissions` and `trust` for the
    /// role, `assume` for the operator's own identity.
    #[arg(long, value_enum, default_value_t)]
    pub document: PolicyDocument,

    /// ARN of the operator's own role or user, for `--document trust`: `arn:aws:iam::111122223333:role/operator`
    #[arg(long, value_parser = parse_principal, required_if_eq("document", "trust"))]
    pub operator_arn: Option<String>,
}

impl IamPolicyArguments {
    /// The document as indented JSON, and what else is needed, for people.
    ///
    /// # Errors
    /// When the class cannot be read, is for another account, or has no role that the document could be for.
    pub fn policy(&self) -> Result<(String, Option<String>), String> {
        let class = self.class.as_deref().map(read).transpose()?;
        let account = class.as_ref().and_then(|class| class.spec.account.as_ref());
        let role = account.and_then(Role::of_class);
        let document = match (self.document, &role) {
            (PolicyDocument::Permissions, _) => operator_policy(&self.scope(class.as_ref(), role.as_ref())?),
            (_, None) => {
                return Err(
                    "--document trust and assume are for a --class with a role (spec.account.roleArn)".to_owned()
                );
            }
            (PolicyDocument::Assume, Some(role)) => assume_policy(&role.arn),
            (PolicyDocument::Trust, Some(role)) => {
                trust_policy(self.operator_arn.as_deref().unwrap_or_default(), role.external_id.as_deref())
            }
        };
        let note = role.filter(|_| self.document == PolicyDocument::Permissions).map(|role| {
            format!(
                "This is the policy of {}. Its trust policy: --document trust --operator-arn ARN. What the operator's own identity needs: --document assume",
                role.arn
            )
        });
        Ok((format!("{document:#}\n"), note))
    }

    fn scope(&self, class: Option<&AwsDeployUserClass>, role: Option<&Role>) -> Result<Scope, String> {
        let bound = class.and_then(|class| class.spec.account.as_ref()).map(|account| account.id.as_str());
        let account = match (self.account.as_deref(), bound) {
            (Some(asked), Some(bound)) if asked != bound => {
                return Err(format!("the class is for account {bound}, not {asked}"));
            }
            (None, None) => return Err("the class is for no account in particular: give --account".to_owned()),
            (asked, bound) => asked.or(bound).unwrap_or_default(),
        };
        Ok(match class {
            Some(class) => {
                let partition = role.and_then(|role| role.arn.split(':').nth(1)).unwrap_or(&self.partition);
                Scope::of_class(&class.spec, account, partition)
            }
            None => Scope {
                partition: self.partition.clone(),
                account: account.to_owned(),
                path: self.path.clone(),
                boundary: self.boundary.clone(),
                groups: self.groups.clone(),
                policies: None,
                inline: true,
                console: true,
            },
        })
    }
}

fn read(file: &Path) -> Result<AwsDeployUserClass, String> {
    let shown = file.display();
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| format!("--class {shown}: {error}"))?;
    serde_saphyr::from_str(&text).map_err(|error| format!("--class {shown} holds no AwsDeployUserClass: {error}"))
}

/// A session is not what a trust policy should name: it ends, and its ARN does not tell the path of the role.
fn parse_principal(text: &str) -> Result<String, String> {
    let kind = text.splitn(6, ':').nth(5).unwrap_or_default();
    let named = ["role/", "user/"].iter().any(|prefix| kind.strip_prefix(prefix).is_some_and(|name| !name.is_empty()));
    let (arn, service) = (text.starts_with("arn:aws"), text.split(':').nth(2) == Some("iam"));
    if arn && service && named && account_of(text).is_some_and(|account| parse_account(account).is_ok()) {
        return Ok(text.to_owned());
    }
    Err("this is the ARN of an IAM role or user, such as arn:aws:iam::111122223333:role/operator; for a session (arn:aws:sts::...:assumed-role/NAME/...) give the ARN of its role".to_owned())
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: IamPolicyArguments,
    }

    fn arguments(class: &str, more: &[&str]) -> IamPolicyArguments {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(class);
        let line = ["iam-policy", "--class", file.to_str().unwrap()];
        Line::parse_from(line.iter().chain(more)).arguments
    }

    #[test]
    fn a_class_with_a_role_is_served_by_three_documents() {
        let class = "examples/classes/other-account.yaml";
        let operator = "arn:aws:iam::111122223333:role/aws-deploy-user-operator";
        let (policy, note) = arguments(class, &[]).policy().unwrap();
        assert!(policy.contains("arn:aws:iam::444455556666:user/awsdeploy/*"), "{policy}");
        assert!(!policy.contains("sts:AssumeRole"), "the role takes no other: {policy}");
        assert!(note.unwrap().contains("--document trust"));
        let (trust, _) = arguments(class, &["--document", "trust", "--operator-arn", operator]).policy().unwrap();
        assert!(trust.contains(operator) && trust.contains("sts:ExternalId"), "{trust}");
        let (assume, _) = arguments(class, &["--document", "assume"]).policy().unwrap();
        assert!(assume.contains("arn:aws:iam::444455556666:role/deploy-users"), "{assume}");
        let wrong = arguments(class, &["--account", "123456789012"]).policy().unwrap_err();
        assert!(wrong.contains("for account 444455556666"), "{wrong}");
        let without = arguments("examples/classes/cycle.yaml", &["--document", "assume"]).policy().unwrap_err();
        assert!(without.contains("roleArn"), "{without}");
    }

    #[test]
    fn a_trust_policy_names_a_role_or_a_user_and_no_session() {
        for good in ["arn:aws:iam::111122223333:role/operator", "arn:aws-cn:iam::111122223333:user/a/b"] {
            assert!(parse_principal(good).is_ok(), "{good}");
        }
        for bad in [
            "*",
            "arn:aws:sts::111122223333:assumed-role/operator/session",
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::*:role/x",
        ] {
            assert!(parse_principal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_policy_of_a_class_is_that_of_the_example() {
        let arguments = arguments("examples/classes/cycle.yaml", &["--account", "123456789012"]);
        let (policy, note) = arguments.policy().unwrap();
        assert_eq!(note, None);
        assert!(policy.contains("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), "{policy}");
        assert!(policy.contains(":user/awsdeploy/*"), "{policy}");
        let missing = IamPolicyArguments { class: Some("no-such-file".into()), ..arguments };
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
