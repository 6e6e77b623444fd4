//! `iam-policy`: prints the IAM policy that the operator itself needs.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    api::AwsDeployUserClass,
    domain::{
        operator_policy::{Home, Scope, operator_policy},
        policy,
    },
};

/// Characters of a managed policy, white space aside. It cannot be raised.
const MANAGED_LIMIT: usize = 6144;

/// Arguments of `iam-policy`.
#[derive(Args, Clone, Debug)]
pub struct IamPolicyArguments {
    /// The AWS account: twelve digits.
    #[arg(long, value_parser = parse_account)]
    pub account: String,

    /// File with an `AwsDeployUserClass` or a list of them, as `kubectl get awsdeployuserclass -o yaml` writes it; `-` is
    /// the standard input; can be given several times. Only what these classes allow can be granted. Name all classes of
    /// the account at once: the policies of two of them do not add up.
    #[arg(long = "class", conflicts_with_all = ["path", "boundary", "groups"])]
    pub classes: Vec<PathBuf>,

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
    /// When a class cannot be read, when none is for the account, or when AWS would not take the policy.
    pub fn policy(&self) -> Result<String, String> {
        let home = Home { partition: self.partition.clone(), account: self.account.clone() };
        let scopes = if self.classes.is_empty() { vec![self.scope()] } else { self.scopes_of_classes()? };
        let policy = operator_policy(&home, &scopes);
        let size = policy::size(&policy);
        if size > MANAGED_LIMIT {
            return Err(format!(
                "the policy has {size} characters, and a managed policy takes {MANAGED_LIMIT}: allow fewer policies and groups by name and more by patterns (policy/team/*), or serve some of the classes from an account of their own"
            ));
        }
        Ok(format!("{policy:#}\n"))
    }

    fn scope(&self) -> Scope {
        Scope {
            path: self.path.clone(),
            boundary: self.boundary.clone(),
            groups: self.groups.clone(),
            policies: None,
            administrators: true,
            inline: true,
            console: true,
        }
    }

    fn scopes_of_classes(&self) -> Result<Vec<Scope>, String> {
        let mut classes = Vec::new();
        for file in &self.classes {
            classes.extend(read_classes(file)?);
        }
        let here =
            |class: &&AwsDeployUserClass| class.spec.account.as_ref().is_none_or(|account| account.id == self.account);
        let scopes: Vec<Scope> = classes.iter().filter(here).map(|class| Scope::of_class(&class.spec)).collect();
        if scopes.is_empty() {
            return Err(format!("--class: none of {} classes is for account {}", classes.len(), self.account));
        }
        Ok(scopes)
    }
}

fn read_classes(file: &Path) -> Result<Vec<AwsDeployUserClass>, String> {
    let shown = file.display();
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| format!("--class {shown}: {error}"))?;
    let unreadable = |why: &dyn std::fmt::Display| format!("--class {shown} holds no AwsDeployUserClass: {why}");
    let mut value: serde_json::Value = serde_saphyr::from_str(&text).map_err(|error| unreadable(&error))?;
    let all = match value.get_mut("items").map(serde_json::Value::take) {
        Some(serde_json::Value::Array(items)) => items,
        _ => vec![value],
    };
    let class = |value: serde_json::Value| match value["kind"].as_str() {
        Some("AwsDeployUserClass") => serde_json::from_value(value).map_err(|error| unreadable(&error)),
        other => Err(unreadable(&format!("its kind is {}", other.unwrap_or("not told")))),
    };
    all.into_iter().map(class).collect()
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

    fn arguments(classes: &[PathBuf]) -> IamPolicyArguments {
        IamPolicyArguments {
            account: "123456789012".to_owned(),
            classes: classes.to_vec(),
            path: "/".to_owned(),
            boundary: None,
            groups: Vec::new(),
            partition: "aws".to_owned(),
        }
    }

    fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/classes").join(name)
    }

    #[test]
    fn the_policy_of_a_class_is_that_of_the_example() {
        let policy = arguments(&[example("cycle.yaml")]).policy().unwrap();
        assert!(policy.contains("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), "{policy}");
        assert!(policy.contains(":user/awsdeploy/*"), "{policy}");
        let missing = arguments(&["no-such-file".into()]);
        assert!(missing.policy().unwrap_err().contains("no-such-file"));
        let no_class = arguments(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cycle.yaml")]);
        assert!(no_class.policy().unwrap_err().contains("holds no AwsDeployUserClass"));
    }

    #[test]
    fn a_list_of_classes_is_one_policy_and_those_of_other_accounts_are_left_out() {
        let directory = std::env::temp_dir().join(format!("awsdeploy-iam-policy-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let class = |path: &str, account: &str| {
            serde_json::json!({
                "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass", "metadata": {"name": "x"},
                "spec": {"users": {"path": path}, "account": {"id": account}},
            })
        };
        let list = |classes: &[serde_json::Value]| {
            let file = directory.join("list.yaml");
            std::fs::write(&file, serde_json::json!({"kind": "List", "items": classes}).to_string()).unwrap();
            arguments(&[file, example("cycle.yaml")]).policy()
        };
        let policy = list(&[class("/a/", "123456789012"), class("/b/", "123456789013")]).unwrap();
        assert!(policy.contains(":user/a/*") && policy.contains(":user/awsdeploy/*"), "{policy}");
        assert!(!policy.contains("/b/"), "{policy}");
        let many: Vec<_> = (0..100).map(|number| class(&format!("/{number}/"), "123456789012")).collect();
        assert!(list(&many).unwrap_err().contains("a managed policy takes 6144"));
        let elsewhere = directory.join("elsewhere.yaml");
        std::fs::write(&elsewhere, class("/b/", "123456789013").to_string()).unwrap();
        assert!(arguments(&[elsewhere]).policy().unwrap_err().contains("none of 1 classes is for account"));
        std::fs::remove_dir_all(directory).unwrap();
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
