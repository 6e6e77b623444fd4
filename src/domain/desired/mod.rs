//! The validate step: what is declared, made whole and checked, so that later steps cannot fail on it.

mod rotation;
mod secret;
#[cfg(test)]
mod tests;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde_json::Value;

pub use self::{secret::label_value, user::console_secret};
use super::{owner::Owner, policy, schedule::Rhythm, settings::Settings, window::Windows};
pub use crate::api::class::OnQuarantine;
use crate::api::{
    AwsDeployUser, Reason, SecretFormat, mark,
    user::{Adoption, DeletionPolicy, RestartTarget},
};

/// Rotation interval when nothing is declared. CIS 1.14 asks for 90 days or less.
pub const DEFAULT_EVERY: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Overlap when nothing is declared.
pub const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// Characters of a tag's value (IAM limit).
const TAG_VALUE_LIMIT: usize = 256;

/// The names a pass works on. They can be told from any resource, valid or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Marks of the resource.
    pub owner: Owner,
    /// Name of the IAM user.
    pub user_name: String,
    /// Name of the Secret that holds the key.
    pub secret_name: String,
    /// Name of the journal Secret.
    pub journal_name: String,
}

/// The cluster's side of the consent to take over an IAM user that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The resource does not ask for it.
    NotAsked,
    /// The resource asks, the cluster does not permit it.
    NotPermitted,
    /// The resource asks, the cluster permits it.
    Permitted,
}

/// What the cluster's rules grant to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Path of the IAM user.
    pub path: String,
    /// ARN of the policy that limits whatever the user is granted.
    pub boundary: Option<String>,
    /// IAM users that exist may be taken over, if AWS agrees too.
    pub adoption: bool,
    /// What follows when AWS quarantines the user.
    pub on_quarantine: OnQuarantine,
}

/// The AWS account that the user lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: String,
    /// Account id.
    pub id: String,
    /// Users may change their own password without a policy of their own.
    pub users_may_change_passwords: bool,
}

/// The desired state: complete and free of contradictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The names.
    pub target: Target,
    /// Path of the IAM user.
    pub path: String,
    /// Tags that the user must carry, ours among them.
    pub tags: BTreeMap<String, String>,
    /// ARNs of the managed policies.
    pub attached: BTreeSet<String>,
    /// Inline policies.
    pub inline: BTreeMap<String, Value>,
    /// Groups.
    pub groups: BTreeSet<String>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
    /// The access key and its rotation; `None` for a user who has access to the console only.
    pub key: Option<DesiredKey>,
    /// The Secret of the access key.
    pub secret: DesiredSecret,
    /// Console access.
    pub console: Option<DesiredConsole>,
    /// All our keys are to be Inactive.
    pub suspend: bool,
    /// Whether an IAM user that exists may be taken over.
    pub adoption: Consent,
    /// What follows when AWS quarantines the user.
    pub on_quarantine: OnQuarantine,
}

/// The access key and its rotation.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredKey {
    /// Description, stored where the console shows it.
    pub description: Option<String>,
    /// When keys are replaced.
    pub rhythm: Rhythm,
    /// When a scheduled replacement may begin.
    pub windows: Windows,
    /// How long an old key stays Active after a new one was published.
    pub overlap: SignedDuration,
    /// How much longer at most, while AWS sees it used. `None`: AWS is not asked.
    pub hold_while_used: Option<SignedDuration>,
    /// Value of the rotate annotation.
    pub rotate_request: Option<String>,
    /// Workloads that are restarted when a new key is published.
    pub restart: BTreeSet<RestartTarget>,
}

/// Console access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredConsole {
    /// Name of the Secret.
    pub secret_name: String,
    /// The password has to be changed at the first sign-in.
    pub reset_required: bool,
    /// Value of the reset annotation.
    pub reset_request: Option<String>,
}

/// The Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSecret {
    /// AWS Region that is written into it.
    pub region: Option<String>,
    /// Forms of the key.
    pub formats: BTreeSet<SecretFormat>,
    /// Further data keys, each with its template.
    pub templates: BTreeMap<String, String>,
    /// Name of the IAM user.
    pub user_name: String,
    /// Account id.
    pub account_id: String,
    /// Labels, ours among them.
    pub labels: BTreeMap<String, String>,
    /// Annotations, without those that speak of the key in it.
    pub annotations: BTreeMap<String, String>,
}

/// Something in the resource that cannot be done, told so that its writer can mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where in the resource.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Target {
    /// The names of this resource. `None` for one without namespace or UID, which the API server never hands out.
    #[must_use]
    pub fn of(user: &AwsDeployUser, cluster: &str) -> Option<Self> {
        let meta = &user.metadata;
        let (namespace, name, uid) = (meta.namespace.clone()?, meta.name.clone()?, meta.uid.clone()?);
        Some(Self {
            user_name: user.spec.user_name.clone().unwrap_or_else(|| format!("{namespace}-{name}")),
            secret_name: match user.spec.programmatic() {
                Some(key) => key.secret.name.clone().unwrap_or_else(|| name.clone()),
                // No key is declared: the Secret that is left of an earlier one, if there is one.
                None => earlier_secret(user).unwrap_or_else(|| name.clone()),
            },
            journal_name: format!("{name}{}", mark::JOURNAL_SUFFIX),
            owner: Owner { cluster: cluster.to_owned(), namespace, name, uid },
        })
    }

    /// With the name of the user as it was chosen when it was made, or as the template of its class has it. A user that
    /// exists keeps its name whatever becomes of the class.
    #[must_use]
    pub fn named(self, user: &AwsDeployUser, template: Option<&str>) -> Self {
        if user.spec.user_name.is_some() {
            return self;
        }
        let reported = user.status.as_ref().and_then(|status| status.user.as_ref()).map(|user| user.name.clone());
        let noted = || user.metadata.annotations.as_ref().and_then(|all| all.get(mark::ANNOTATION_USER_NAME)).cloned();
        let rendered = || template.map(|template| super::authorize::render_name(template, &self.owner));
        let user_name = reported.or_else(noted).or_else(rendered);
        Self { user_name: user_name.unwrap_or_else(|| self.user_name.clone()), ..self }
    }
}

fn earlier_secret(user: &AwsDeployUser) -> Option<String> {
    user.status.as_ref().and_then(|status| status.secret_name.clone())
}

impl Grant {
    /// What the simplest class grants: the usual path, and no limit. Tests and the model begin with it.
    #[must_use]
    pub fn simplest() -> Self {
        Self { path: "/awsdeploy/".to_owned(), boundary: None, adoption: false, on_quarantine: OnQuarantine::Alert }
    }
}

/// Checks a resource against IAM's limits and its own logic and makes it whole.
///
/// # Errors
/// All violations at once, so that a person mends them in one go.
pub fn validate(
    user: &AwsDeployUser,
    target: &Target,
    grant: &Grant,
    account: &Account,
    settings: &Settings,
) -> Result<Desired, Vec<Violation>> {
    let spec = &user.spec;
    let mut violations = Vec::new();
    let mut violate = |field, message: String| violations.push(Violation { field, message });

    user::check_name(target, &mut violate);
    let tags = user::desired_tags(spec, target, &mut violate);
    let console = user::desired_console(user, target);
    let mut attached: BTreeSet<String> =
        spec.policies.managed.iter().map(|declared| policy::managed_arn(declared, &account.partition)).collect();
    if console.as_ref().is_some_and(|console| console.reset_required) && !account.users_may_change_passwords {
        attached.insert(policy::managed_arn("IAMUserChangePassword", &account.partition));
    }
    // Without a key the target is a name that may be free, unless it is that of an earlier key.
    let key_secret =
        Some(&target.secret_name).filter(|_| spec.programmatic().is_some() || earlier_secret(user).is_some());
    if let Some(console) = &console
        && (Some(&console.secret_name) == key_secret || console.secret_name == target.journal_name)
    {
        violate(
            "console.secretName",
            format!(
                "{:?} is the name of another Secret of this resource; each needs a name of its own",
                console.secret_name
            ),
        );
    }
    if attached.len() > settings.max_attached_policies {
        violate(
            "policies.managed",
            format!(
                "{} managed policies are declared, the account allows {} per user (IAM quota PoliciesPerUser); merge some into a customer managed policy, or have the quota raised and start the operator with --max-attached-policies",
                attached.len(),
                settings.max_attached_policies
            ),
        );
    }
    for arn in attached.iter().filter(|arn| policy::is_quarantine(arn)) {
        violate(
            "policies.managed",
            format!("{arn} is attached by AWS to users with leaked keys; it cannot be declared"),
        );
    }
    let mut inline = BTreeMap::new();
    for declared in &spec.policies.inline {
        // Authorization has put documents in place of templates.
        match &declared.document {
            Some(document) => _ = inline.insert(declared.name.clone(), document.clone()),
            None => violate("policies.inline", format!("{} has no document", declared.name)),
        }
    }
    let size: usize = inline.values().map(policy::size).sum();
    if size > policy::INLINE_LIMIT {
        violate(
            "policies.inline",
            format!(
                "the inline policies have {size} characters together, IAM allows {} (white space not counted); use a customer managed policy",
                policy::INLINE_LIMIT
            ),
        );
    }

    user::check_groups(spec, &mut violate);
    let key = spec.programmatic().map(|key| rotation::desired_key(user, key, settings, &mut violate));
    let secret = secret::desired_secret(spec, target, account, &mut violate);
    if target.secret_name == target.journal_name {
        violate("accessKey.secret.name", format!("{:?} is the name of the operator's own journal", target.secret_name));
    }
    let consent = target.owner.adoptable_by().chars().count();
    if spec.adoption == Adoption::IfTagged && consent > TAG_VALUE_LIMIT {
        violate(
            "adoption",
            format!(
                "the consent of an AWS admin would have {consent} characters (cluster id, namespace and name), IAM allows {TAG_VALUE_LIMIT} in a tag; give the resource a shorter name"
            ),
        );
    }

    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(Desired {
        target: target.clone(),
        path: grant.path.clone(),
        tags,
        attached,
        inline,
        groups: spec.groups.iter().cloned().collect(),
        boundary: grant.boundary.clone(),
        key,
        secret,
        console,
        suspend: spec.suspend,
        adoption: match spec.adoption {
            Adoption::Never => Consent::NotAsked,
            Adoption::IfTagged if grant.adoption => Consent::Permitted,
            Adoption::IfTagged => Consent::NotPermitted,
        },
        on_quarantine: grant.on_quarantine,
    })
}

/// All violations in one message.
#[must_use]
pub fn tell(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(|violation| format!("spec.{}: {}", violation.field, violation.message))
        .collect::<Vec<_>>()
        .join("; ")
}

/// The reason under which violations are reported.
#[must_use]
pub fn reason(_: &[Violation]) -> Reason {
    Reason::InvalidSpec
}

/// The deletion policy of a resource.
#[must_use]
pub fn deletion_policy(user: &AwsDeployUser) -> DeletionPolicy {
    user.spec.deletion_policy
}
