//! `iam-policy`: prints the IAM policies that the operator itself needs.

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

/// Characters of a managed policy, white space aside. It cannot be raised.
const MANAGED_LIMIT: usize = 6144;

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
    /// The AWS account: twelve digits. Default: the one of the classes.
    #[arg(long, value_parser = parse_account, required_unless_present = "classes")]
    pub account: Option<String>,

    /// File with `AwsDeployUserClass`es, one document each or a list of them as `kubectl get awsdeployuserclass -o yaml` writes it; `-` is
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

    /// Partition of the account: aws, aws-cn, aws-us-gov, ... That of the role, if the class has one.
    #[arg(long, default_value = "aws")]
    pub partition: String,

    /// Only classes with this role (spec.account.roleArn). Default: those without one, else all if they have the same.
    #[arg(long, requires = "classes")]
    pub role_arn: Option<String>,

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
    /// When a class cannot be read, when none is for the account or the role, or when AWS would not take the policy.
    pub fn render(&self) -> Result<(String, Option<String>), String> {
        if self.classes.is_empty() {
            let (Some(account), PolicyDocument::Permissions) = (&self.account, self.document) else {
                return Err(
                    "--document trust and assume are for a --class with a role (spec.account.roleArn)".to_owned()
                );
            };
            let home = AwsAccount { partition: self.partition.clone(), id: account.clone() };
            return Ok((permissions(&home, &[self.scope()])?, None));
        }
        let served = self.served()?;
        let document = match (self.document, &served.role) {
            (PolicyDocument::Permissions, role) => {
                let partition = role.as_ref().and_then(|role| role.arn.split(':').nth(1)).unwrap_or(&self.partition);
                let home = AwsAccount { partition: partition.to_owned(), id: served.account };
                permissions(&home, &served.scopes)?
            }
            (_, None) => {
                return Err(
                    "--document trust and assume are for a --class with a role (spec.account.roleArn)".to_owned()
                );
            }
            (PolicyDocument::Assume, Some(role)) => format!("{:#}\n", assume_policy(&role.arn)),
            (PolicyDocument::Trust, Some(role)) => {
                let operator = self.operator_arn.as_deref().unwrap_or_default();
                format!("{:#}\n", trust_policy(operator, role.external_id.as_deref()))
            }
        };
        let note = served.role.filter(|_| self.document == PolicyDocument::Permissions).map(|role| {
            format!(
                "This is the policy of {}. Its trust policy: --document trust --operator-arn ARN. What the operator's own identity needs: --document assume",
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
            inline: true,
            console: true,
        }
    }

    /// The classes that one identity of the operator serves: a role, or its own.
    fn served(&self) -> Result<Served, String> {
        let mut classes = Vec::new();
        for file in &self.classes {
            classes.extend(read_classes(file)?);
        }
        let bound: BTreeSet<&str> =
            classes.iter().filter_map(|class| Some(class.spec.account.as_ref()?.id.as_str())).collect();
        let only = bound.first().copied().filter(|_| bound.len() == 1);
        let Some(account) = self.account.as_deref().or(only) else {
            return Err("the classes are for no account in particular, or for several: give --account".to_owned());
        };
        let role_of = |class: &AwsDeployUserClass| class.spec.account.as_ref().and_then(Role::from_class);
        let here = |class: &&AwsDeployUserClass| class.spec.account.as_ref().is_none_or(|found| found.id == account);
        let mut here: Vec<&AwsDeployUserClass> = classes.iter().filter(here).collect();
        if let Some(wanted) = &self.role_arn {
            here.retain(|class| role_of(class).is_some_and(|role| role.arn == *wanted));
        } else if here.iter().any(|class| role_of(class).is_none()) {
            // Served with the operator's own credentials; roles have policies of their own.
            here.retain(|class| role_of(class).is_none());
        }
        let roles: BTreeSet<Option<Role>> = here.iter().map(|class| role_of(class)).collect();
        let role = match (roles.first(), roles.len()) {
            (Some(role), 1) => role.clone(),
            (None, _) => return Err(format!("--class: none of {} classes is for account {account}", classes.len())),
            _ => {
                return Err(format!(
                    "the classes for account {account} have different roles or external ids: give --role-arn, or the classes of one of them"
                ));
            }
        };
        let scopes = here.iter().map(|class| PolicyScope::from_class(&class.spec)).collect();
        Ok(Served { account: account.to_owned(), role, scopes })
    }
}

/// What one identity of the operator serves.
struct Served {
    account: String,
    role: Option<Role>,
    scopes: Vec<PolicyScope>,
}

/// The policy, if AWS would take it.
fn permissions(home: &AwsAccount, scopes: &[PolicyScope]) -> Result<String, String> {
    let policy = operator_policy(home, scopes);
    let size = policy::counted_characters(&policy);
    if size > MANAGED_LIMIT {
        return Err(format!(
            "the policy has {size} characters, and a managed policy takes {MANAGED_LIMIT}: allow fewer policies and groups by name and more by patterns (policy/team/*), or serve some of the classes from an account of their own"
        ));
    }
    Ok(format!("{policy:#}\n"))
}

fn read_classes(file: &Path) -> Result<Vec<AwsDeployUserClass>, String> {
    let shown = file.display();
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| format!("--class {shown}: {error}"))?;
    let unreadable = |why: &dyn std::fmt::Display| format!("--class {shown} holds no AwsDeployUserClass: {why}");
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).map_err(|error| unreadable(&error))?;
    let mut documents = documents.into_iter().filter(|document| !document.is_null()).peekable();
    if documents.peek().is_none() {
        return Err(unreadable(&"it is empty"));
    }
    let all = documents.flat_map(|mut document| match document.get_mut("items").map(serde_json::Value::take) {
        Some(serde_json::Value::Array(items)) => items,
        _ => vec![document],
    });
    let class = |value: serde_json::Value| match value["kind"].as_str() {
        Some("AwsDeployUserClass") => serde_json::from_value(value).map_err(|error| unreadable(&error)),
        other => Err(unreadable(&format!("its kind is {}", other.unwrap_or("not told")))),
    };
    all.map(class).collect()
}

/// A session is not what a trust policy should name: it ends, and its ARN does not tell the path of the role.
fn parse_principal(text: &str) -> Result<String, String> {
    let kind = text.splitn(6, ':').nth(5).unwrap_or_default();
    let named = ["role/", "user/"].iter().any(|prefix| kind.strip_prefix(prefix).is_some_and(|name| !name.is_empty()));
    let (arn, service) = (text.starts_with("arn:aws"), text.split(':').nth(2) == Some("iam"));
    if arn && service && named && account_in_arn(text).is_some_and(|account| parse_account(account).is_ok()) {
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

    fn parsed(class: &str, more: &[&str]) -> IamPolicyArguments {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(class);
        let line = ["iam-policy", "--class", file.to_str().unwrap()];
        Line::parse_from(line.iter().chain(more)).arguments
    }

    #[test]
    fn a_class_with_a_role_is_served_by_three_documents() {
        let class = "examples/classes/other-account.yaml";
        let operator = "arn:aws:iam::111122223333:role/aws-deploy-user-operator";
        let (policy, note) = parsed(class, &[]).render().unwrap();
        assert!(policy.contains("arn:aws:iam::444455556666:user/awsdeploy/*"), "{policy}");
        assert!(!policy.contains("sts:AssumeRole"), "the role takes no other: {policy}");
        assert!(note.unwrap().contains("--document trust"));
        let (trust, _) = parsed(class, &["--document", "trust", "--operator-arn", operator]).render().unwrap();
        assert!(trust.contains(operator) && trust.contains("sts:ExternalId"), "{trust}");
        let (assume, _) = parsed(class, &["--document", "assume"]).render().unwrap();
        assert!(assume.contains("arn:aws:iam::444455556666:role/deploy-users"), "{assume}");
        let wrong = parsed(class, &["--account", "123456789012"]).render().unwrap_err();
        assert!(wrong.contains("none of 1 classes is for account 123456789012"), "{wrong}");
        let own = ["--document", "assume", "--account", "123456789012"];
        let without = parsed("examples/classes/cycle.yaml", &own).render().unwrap_err();
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
    fn the_policy_of_a_class_is_that_of_the_example() {
        let policy = arguments(&[example("cycle.yaml")]).render().unwrap().0;
        assert!(policy.contains("arn:aws:iam::aws:policy/AmazonEC2FullAccess"), "{policy}");
        assert!(policy.contains(":user/awsdeploy/*"), "{policy}");
        let missing = arguments(&["no-such-file".into()]);
        assert!(missing.render().unwrap_err().contains("no-such-file"));
        let no_class = arguments(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cycle.yaml")]);
        assert!(no_class.render().unwrap_err().contains("holds no AwsDeployUserClass"));
    }

    #[test]
    fn several_documents_are_as_good_as_a_list() {
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
        for (empty, told) in [("", "it is empty"), ("---\n", "it is empty"), ("a\n---\nb: [", "line ")] {
            let error = policy(empty).unwrap_err();
            assert!(error.contains("holds no AwsDeployUserClass") && error.contains(told), "{error}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
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
            arguments(&[file, example("cycle.yaml")]).render()
        };
        let (policy, _) = list(&[class("/a/", "123456789012"), class("/b/", "123456789013")]).unwrap();
        assert!(policy.contains(":user/a/*") && policy.contains(":user/awsdeploy/*"), "{policy}");
        assert!(!policy.contains("/b/"), "{policy}");
        let many: Vec<_> = (0..100).map(|number| class(&format!("/{number}/"), "123456789012")).collect();
        assert!(list(&many).unwrap_err().contains("a managed policy takes 6144"));
        let elsewhere = directory.join("elsewhere.yaml");
        std::fs::write(&elsewhere, class("/b/", "123456789013").to_string()).unwrap();
        assert!(arguments(&[elsewhere]).render().unwrap_err().contains("none of 1 classes is for account"));
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
