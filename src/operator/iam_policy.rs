//! Subcommand `iam-policy`: prints the IAM policies of the operator itself.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    api::AwsDeployUserClass,
    domain::{
        account::{Role, account_in_arn},
        operator_policy::{AwsAccount, PolicyScope, operator_policy},
        policy,
        role_policy::{assume_policy, trust_policy},
    },
};

/// IAM quota of a managed policy in characters without white space. AWS does not raise it.
const MAX_MANAGED_POLICY_CHARACTERS: usize = 6144;

/// Which policy document to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PolicyDocument {
    /// Permissions of the role of the class, or of the operator's own identity for a class without a role.
    #[default]
    Permissions,
    /// Trust policy of the role of the class.
    Trust,
    /// Permission of the operator's own identity to assume the role of the class.
    Assume,
}

#[derive(Args, Clone, Debug)]
pub struct IamPolicyArguments {
    /// AWS account id, twelve digits (default: the account of the classes).
    #[arg(long, value_parser = parse_account, required_unless_present = "classes")]
    pub account: Option<String>,

    /// File with `AwsDeployUserClass`es, as YAML documents or the list of `kubectl get awsdeployuserclass -o yaml`; `-` is
    /// standard input; may be repeated. The policy grants only what these classes allow. Give all classes of the account at
    /// once: policies printed for single classes do not add up.
    #[arg(long = "class", conflicts_with_all = ["path", "boundary", "groups"])]
    pub classes: Vec<PathBuf>,

    /// Path of the IAM users (spec.users.path of the class).
    #[arg(long, default_value = "/awsdeploy/", value_parser = parse_path)]
    pub path: String,

    /// ARN of the permissions boundary (spec.permissionsBoundary of the class). Recommended: without it the operator can grant
    /// its users every permission of the account.
    #[arg(long, value_parser = parse_policy_arn)]
    pub boundary: Option<String>,

    /// IAM group that users may be added to, with its path if it has one; may be repeated.
    #[arg(long = "group")]
    pub groups: Vec<String>,

    /// AWS partition: aws, aws-cn, aws-us-gov, ...; ignored for a class with a role.
    #[arg(long, default_value = "aws")]
    pub partition: String,

    /// Only classes with this role, spec.account.roleArn (default: classes without a role, else all if they share one role).
    #[arg(long, requires = "classes")]
    pub role_arn: Option<String>,

    /// Which document to print. A class with a role (spec.account.roleArn) needs all: `permissions` and `trust` for the role,
    /// `assume` for the operator's own identity.
    #[arg(long, value_enum, default_value_t)]
    pub document: PolicyDocument,

    /// For `--document trust`: ARN of the operator's own role or user, such as `arn:aws:iam::111122223333:role/operator`.
    #[arg(long, value_parser = parse_principal, required_if_eq("document", "trust"))]
    pub operator_arn: Option<String>,
}

impl IamPolicyArguments {
    /// The document as indented JSON, and a note about further documents that the class needs.
    ///
    /// # Errors
    /// When a class cannot be read, no class matches the account or the role, or the policy exceeds the IAM quota.
    pub fn render(&self) -> Result<(String, Option<String>), String> {
        if self.classes.is_empty() {
            let (Some(account), PolicyDocument::Permissions) = (&self.account, self.document) else {
                return Err("--document trust and assume need a --class with a role (spec.account.roleArn)".to_owned());
            };
            let account = AwsAccount { partition: self.partition.clone(), id: account.clone() };
            return Ok((permissions(&account, &[self.scope()])?, None));
        }
        let selected = self.select_classes()?;
        let document = match (self.document, &selected.role) {
            (PolicyDocument::Permissions, role) => {
                let partition = role.as_ref().and_then(|role| role.arn.split(':').nth(1)).unwrap_or(&self.partition);
                let account = AwsAccount { partition: partition.to_owned(), id: selected.account };
                permissions(&account, &selected.scopes)?
            }
            (_, None) => {
                return Err("--document trust and assume need a --class with a role (spec.account.roleArn)".to_owned());
            }
            (PolicyDocument::Assume, Some(role)) => format!("{:#}\n", assume_policy(&role.arn)),
            (PolicyDocument::Trust, Some(role)) => {
                let operator = self.operator_arn.as_deref().unwrap_or_default();
                format!("{:#}\n", trust_policy(operator, role.external_id.as_deref()))
            }
        };
        let note = selected.role.filter(|_| self.document == PolicyDocument::Permissions).map(|role| {
            format!(
                "This is the permissions policy of {}. Print its trust policy with --document trust --operator-arn ARN, and the policy of the operator's own identity with --document assume",
                role.arn
            )
        });
        Ok((document, note))
    }
}

impl IamPolicyArguments {
    fn scope(&self) -> PolicyScope {
        PolicyScope {
            path: self.path.clone(),
            boundary: self.boundary.clone(),
            groups: self.groups.clone(),
            policies: None,
            administrators: true,
            documents: true,
            console: true,
        }
    }

    /// Selects the classes of one identity: one role, or the operator's own credentials.
    fn select_classes(&self) -> Result<SelectedClasses, String> {
        let mut classes = Vec::new();
        for file in &self.classes {
            classes.extend(read_classes(file)?);
        }
        let accounts: BTreeSet<&str> =
            classes.iter().filter_map(|class| Some(class.spec.account.as_ref()?.id.as_str())).collect();
        let only_account = accounts.first().copied().filter(|_| accounts.len() == 1);
        let Some(account) = self.account.as_deref().or(only_account) else {
            return Err("the classes name no account, or several: set --account".to_owned());
        };
        let role_of = |class: &AwsDeployUserClass| class.spec.account.as_ref().and_then(Role::from_class);
        let matches_account =
            |class: &&AwsDeployUserClass| class.spec.account.as_ref().is_none_or(|declared| declared.id == account);
        let mut selected: Vec<&AwsDeployUserClass> = classes.iter().filter(matches_account).collect();
        if let Some(wanted) = &self.role_arn {
            selected.retain(|class| role_of(class).is_some_and(|role| role.arn == *wanted));
        } else if selected.iter().any(|class| role_of(class).is_none()) {
            // A policy is for one identity: classes with a role need a policy of their own.
            selected.retain(|class| role_of(class).is_none());
        }
        let roles: BTreeSet<Option<Role>> = selected.iter().map(|class| role_of(class)).collect();
        let role = match (roles.first(), roles.len()) {
            (Some(role), 1) => role.clone(),
            (None, _) => return Err(format!("--class: none of {} classes is for account {account}", classes.len())),
            _ => {
                return Err(format!(
                    "the classes of account {account} have different roles or external ids: set --role-arn, or give only the classes of one role"
                ));
            }
        };
        let scopes = selected.iter().map(|class| PolicyScope::from_class(&class.spec)).collect();
        Ok(SelectedClasses { account: account.to_owned(), role, scopes })
    }
}

struct SelectedClasses {
    account: String,
    role: Option<Role>,
    scopes: Vec<PolicyScope>,
}

/// # Errors
/// When the policy exceeds the IAM quota.
fn permissions(account: &AwsAccount, scopes: &[PolicyScope]) -> Result<String, String> {
    let policy = operator_policy(account, scopes);
    let size = policy::counted_characters(&policy);
    if size > MAX_MANAGED_POLICY_CHARACTERS {
        return Err(format!(
            "the policy has {size} characters, more than the {MAX_MANAGED_POLICY_CHARACTERS} of a managed policy: replace names of policies and groups in the classes by patterns (policy/team/*), or move some classes to another account"
        ));
    }
    Ok(format!("{policy:#}\n"))
}

fn read_classes(file: &Path) -> Result<Vec<AwsDeployUserClass>, String> {
    let path = file.display();
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| format!("--class {path}: {error}"))?;
    let invalid = |why: &dyn std::fmt::Display| format!("--class {path} contains no AwsDeployUserClass: {why}");
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).map_err(|error| invalid(&error))?;
    let mut documents = documents.into_iter().filter(|document| !document.is_null()).peekable();
    if documents.peek().is_none() {
        return Err(invalid(&"it is empty"));
    }
    let all = documents.flat_map(|mut document| match document.get_mut("items").map(serde_json::Value::take) {
        Some(serde_json::Value::Array(items)) => items,
        _ => vec![document],
    });
    let class = |value: serde_json::Value| match value["kind"].as_str() {
        Some("AwsDeployUserClass") => serde_json::from_value(value).map_err(|error| invalid(&error)),
        other => Err(invalid(&format!("its kind is {}", other.unwrap_or("missing")))),
    };
    all.map(class).collect()
}

/// Rejects session ARNs: a session expires, and its ARN lacks the path of the role.
fn parse_principal(text: &str) -> Result<String, String> {
    let kind = text.splitn(6, ':').nth(5).unwrap_or_default();
    let named = ["role/", "user/"].iter().any(|prefix| kind.strip_prefix(prefix).is_some_and(|name| !name.is_empty()));
    let (arn, service) = (text.starts_with("arn:aws"), text.split(':').nth(2) == Some("iam"));
    if arn && service && named && account_in_arn(text).is_some_and(|account| parse_account(account).is_ok()) {
        return Ok(text.to_owned());
    }
    Err("expected the ARN of an IAM role or user, such as arn:aws:iam::111122223333:role/operator; for a session (arn:aws:sts::...:assumed-role/NAME/...) use the ARN of its role".to_owned())
}

fn parse_path(text: &str) -> Result<String, String> {
    let printable = text.chars().all(|c| c.is_ascii_graphic());
    if text.starts_with('/') && text.ends_with('/') && !text.contains("//") && printable && text.len() <= 512 {
        return Ok(text.to_owned());
    }
    Err("a path starts and ends with / and has at most 512 characters, such as /awsdeploy/".to_owned())
}

fn parse_policy_arn(text: &str) -> Result<String, String> {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, rest) = (next(), next(), next(), next(), next(), next());
    let in_account = account == "aws" || (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()));
    let named = rest.strip_prefix("policy/").is_some_and(|name| !name.is_empty() && !name.ends_with('/'));
    if (arn, service, region) == ("arn", "iam", "") && partition.starts_with("aws") && in_account && named {
        return Ok(text.to_owned());
    }
    Err("expected the ARN of a managed policy, such as arn:aws:iam::123456789012:policy/deploy-boundary".to_owned())
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
    struct CommandLine {
        #[command(flatten)]
        arguments: IamPolicyArguments,
    }

    fn parsed(class: &str, more: &[&str]) -> IamPolicyArguments {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(class);
        let line = ["iam-policy", "--class", file.to_str().unwrap()];
        CommandLine::parse_from(line.iter().chain(more)).arguments
    }

    #[test]
    fn class_with_a_role_needs_three_documents() {
        let class = "examples/classes/other-account.yaml";
        let operator = "arn:aws:iam::111122223333:role/aws-deploy-user-operator";
        let (policy, note) = parsed(class, &[]).render().unwrap();
        assert!(policy.contains("arn:aws:iam::444455556666:user/awsdeploy/*"), "{policy}");
        assert!(!policy.contains("sts:AssumeRole"), "the role assumes no other role: {policy}");
        assert!(note.unwrap().contains("--document trust"));
        let (trust, _) = parsed(class, &["--document", "trust", "--operator-arn", operator]).render().unwrap();
        assert!(trust.contains(operator) && trust.contains("sts:ExternalId"), "{trust}");
        let (assume, _) = parsed(class, &["--document", "assume"]).render().unwrap();
        assert!(assume.contains("arn:aws:iam::444455556666:role/deploy-users"), "{assume}");
        let mismatch = parsed(class, &["--account", "123456789012"]).render().unwrap_err();
        assert!(mismatch.contains("none of 1 classes is for account 123456789012"), "{mismatch}");
        let own_identity = ["--document", "assume", "--account", "123456789012"];
        let no_role = parsed("examples/classes/cycle.yaml", &own_identity).render().unwrap_err();
        assert!(no_role.contains("roleArn"), "{no_role}");
    }

    #[test]
    fn trust_policy_accepts_roles_and_users_but_no_session() {
        for valid in ["arn:aws:iam::111122223333:role/operator", "arn:aws-cn:iam::111122223333:user/a/b"] {
            assert!(parse_principal(valid).is_ok(), "{valid}");
        }
        for invalid in [
            "*",
            "arn:aws:sts::111122223333:assumed-role/operator/session",
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::*:role/x",
        ] {
            assert!(parse_principal(invalid).is_err(), "{invalid}");
        }
    }

    fn arguments(classes: &[PathBuf]) -> IamPolicyArguments {
        IamPolicyArguments {
            account: Some("123456789012".to_owned()),
            classes: classes.to_vec(),
            path: "/".to_owned(),
            boundary: None,
            groups: Vec::new(),
            partition: "aws".to_owned(),
            role_arn: None,
            document: PolicyDocument::Permissions,
            operator_arn: None,
        }
    }

    fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/classes").join(name)
    }

    #[test]
    fn policy_is_printed_for_an_example_class() {
        let policy = arguments(&[example("cycle.yaml")]).render().unwrap().0;
        assert!(policy.contains("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), "{policy}");
        assert!(policy.contains(":user/awsdeploy/*"), "{policy}");
        let missing = arguments(&["no-such-file".into()]);
        assert!(missing.render().unwrap_err().contains("no-such-file"));
        let no_class = arguments(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cycle.yaml")]);
        assert!(no_class.render().unwrap_err().contains("contains no AwsDeployUserClass"));
    }

    #[test]
    fn yaml_stream_of_classes_is_one_policy() {
        let class = |policy: &str| {
            format!(
                "apiVersion: awsdeploy.dev/v1alpha1\nkind: AwsDeployUserClass\nmetadata: {{name: a}}\nspec: {{namespaces: {{names: [a]}}, policies: {{allowed: [{policy}]}}}}\n"
            )
        };
        let directory = std::env::temp_dir().join(format!("awsdeploy-iam-policy-documents-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let policy = |text: &str| {
            let file = directory.join("classes.yaml");
            std::fs::write(&file, text).unwrap();
            arguments(&[file]).render().map(|(policy, _)| policy)
        };
        let both = policy(&format!("---\n{}---\n# nothing\n---\n{}", class("One"), class("Two"))).unwrap();
        assert!(both.contains("policy/One") && both.contains("policy/Two"), "{both}");
        for (text, message) in [("", "it is empty"), ("---\n", "it is empty"), ("a\n---\nb: [", "line ")] {
            let error = policy(text).unwrap_err();
            assert!(error.contains("contains no AwsDeployUserClass") && error.contains(message), "{error}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn list_of_classes_is_one_policy_without_other_accounts() {
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
            arguments(&[file, example("cycle.yaml")]).render()
        };
        let (policy, _) = list(&[class("/a/", "123456789012"), class("/b/", "123456789013")]).unwrap();
        assert!(policy.contains(":user/a/*") && policy.contains(":user/awsdeploy/*"), "{policy}");
        assert!(!policy.contains("/b/"), "{policy}");
        let many: Vec<_> = (0..100).map(|number| class(&format!("/{number}/"), "123456789012")).collect();
        assert!(list(&many).unwrap_err().contains("more than the 6144 of a managed policy"));
        let other_account = directory.join("other-account.yaml");
        std::fs::write(&other_account, class("/b/", "123456789013").to_string()).unwrap();
        assert!(arguments(&[other_account]).render().unwrap_err().contains("none of 1 classes is for account"));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn path_and_boundary_arguments_are_validated() {
        for valid in ["/", "/awsdeploy/", "/a/b/"] {
            assert!(parse_path(valid).is_ok(), "{valid}");
        }
        for invalid in ["", "awsdeploy", "/awsdeploy", "//", "/a b/"] {
            assert!(parse_path(invalid).is_err(), "{invalid}");
        }
        for valid in ["arn:aws:iam::123456789012:policy/b", "arn:aws-cn:iam::aws:policy/team/b"] {
            assert!(parse_policy_arn(valid).is_ok(), "{valid}");
        }
        for invalid in
            ["b", "arn:aws:iam::123456789012:user/b", "arn:aws:iam::12:policy/b", "arn:aws:iam::123456789012:policy/"]
        {
            assert!(parse_policy_arn(invalid).is_err(), "{invalid}");
        }
    }
}
