//! The validate step: what is declared, made whole and checked, so that later steps cannot fail on it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde_json::Value;

use super::{
    owner::Owner,
    policy,
    schedule::{CronSchedule, Rhythm},
    secret,
    settings::Settings,
    window::{Window, Windows},
};
pub use crate::api::class::OnQuarantine;
use crate::api::{
    AwsDeployUser, Reason, SecretFormat, duration, mark,
    user::{AccessKeySpec, Adoption, AwsDeployUserSpec, DeletionPolicy, RotationSpec},
};

/// Rotation interval when nothing is declared. CIS 1.14 asks for 90 days or less.
pub const DEFAULT_EVERY: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Overlap when nothing is declared.
pub const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// Tags per user (IAM quota).
const TAG_LIMIT: usize = 50;
/// Characters of a tag's value (IAM limit).
const TAG_VALUE_LIMIT: usize = 256;
/// Tags that the operator needs beside the declared ones: ownership, use case, console and quarantine, and for two
/// keys and a third in its last moments the ownership tag and the console's description.
const TAGS_OF_OUR_OWN: usize = 7 + 3 * 2;
/// Characters of a user name (IAM limit).
const NAME_LIMIT: usize = 64;

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

    check_name(target, &mut violate);
    let tags = desired_tags(spec, target, &mut violate);
    let console = desired_console(user, target);
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
    let inline: BTreeMap<String, Value> =
        spec.policies.inline.iter().map(|inline| (inline.name.clone(), inline.document.clone())).collect();
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

    check_groups(spec, &mut violate);
    let key = spec.programmatic().map(|key| desired_key(user, key, settings, &mut violate));
    let secret = desired_secret(spec, target, account, &mut violate);
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

fn check_name(target: &Target, violate: &mut impl FnMut(&'static str, String)) {
    let length = target.user_name.chars().count();
    if length > NAME_LIMIT {
        violate(
            "userName",
            format!(
                "the IAM user name {:?} has {length} characters, IAM allows {NAME_LIMIT}; set spec.userName",
                target.user_name
            ),
        );
    }
    if let Some(wrong) = target.user_name.chars().find(|c| !(c.is_ascii_alphanumeric() || "+=,.@_-".contains(*c))) {
        violate(
            "userName",
            format!(
                "the IAM user name {:?} holds {wrong:?}; IAM allows letters, digits and + = , . @ _ -",
                target.user_name
            ),
        );
    }
}

fn desired_tags(
    spec: &AwsDeployUserSpec,
    target: &Target,
    violate: &mut impl FnMut(&'static str, String),
) -> BTreeMap<String, String> {
    let mut tags = spec.tags.clone();
    let mut seen = BTreeMap::new();
    for key in spec.tags.keys() {
        if let Some(other) = seen.insert(key.to_lowercase(), key) {
            violate("tags", format!("tag keys {other:?} and {key:?} differ only in case; IAM treats them as one"));
        }
    }
    let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    // The schema refuses these too; but the marks of ownership and consent hang on it.
    let reserved = |key: &str| ["aws:", mark::TAG_PREFIX].iter().any(|prefix| key.to_lowercase().starts_with(prefix));
    for key in spec.tags.keys().filter(|key| reserved(key)) {
        violate(
            "tags",
            format!("tag key {key:?} begins with aws: (reserved by AWS) or awsdeploy.dev/ (used by this operator)"),
        );
    }
    for key in spec.tags.keys().filter(|key| !key.chars().all(allowed)) {
        violate(
            "tags",
            format!(
                "tag key {key:?} holds a character that IAM does not allow; allowed are letters, digits, spaces and _ . : / = + - @"
            ),
        );
    }
    if spec.tags.len() + TAGS_OF_OUR_OWN > TAG_LIMIT {
        violate(
            "tags",
            format!(
                "{} tags are declared; IAM allows {TAG_LIMIT} per user, {TAGS_OF_OUR_OWN} are needed by the operator, {} are left",
                spec.tags.len(),
                TAG_LIMIT - TAGS_OF_OUR_OWN
            ),
        );
    }
    tags.extend(target.owner.tags());
    if let Some(name) = console_secret(&target.owner.name, spec) {
        tags.insert(mark::TAG_CONSOLE.to_owned(), name);
    }
    if let Some(use_case) = spec.programmatic().and_then(|key| key.use_case) {
        tags.insert(mark::TAG_USE_CASE.to_owned(), use_case.as_str().to_owned());
    }
    tags
}

fn check_groups(spec: &AwsDeployUserSpec, violate: &mut impl FnMut(&'static str, String)) {
    for (number, group) in spec.groups.iter().enumerate() {
        // IAM compares names of groups without regard to case.
        if let Some(other) = spec.groups[..number].iter().find(|other| other.eq_ignore_ascii_case(group)) {
            violate(
                "groups",
                format!("the groups {other:?} and {group:?} differ at most in case; IAM treats them as one"),
            );
        }
    }
}

fn desired_console(user: &AwsDeployUser, target: &Target) -> Option<DesiredConsole> {
    let annotations = user.metadata.annotations.as_ref();
    Some(DesiredConsole {
        secret_name: console_secret(&target.owner.name, &user.spec)?,
        reset_required: user.spec.console.as_ref()?.password_reset_required,
        reset_request: annotations.and_then(|all| all.get(mark::ANNOTATION_RESET)).cloned(),
    })
}

/// Name of the Secret for the console password, if console access is declared.
#[must_use]
pub fn console_secret(name: &str, spec: &AwsDeployUserSpec) -> Option<String> {
    spec.console.as_ref().map(|console| console.secret_name.clone().unwrap_or_else(|| format!("{name}-console")))
}

fn desired_key(
    user: &AwsDeployUser,
    declared: &AccessKeySpec,
    settings: &Settings,
    violate: &mut impl FnMut(&'static str, String),
) -> DesiredKey {
    let rotation = &declared.rotation;
    let rhythm = desired_rhythm(rotation, violate);
    let windows = desired_windows(rotation, violate);
    let overlap =
        rotation.overlap.as_ref().map_or(Ok(DEFAULT_OVERLAP), duration::HumanDuration::parse).unwrap_or_else(|error| {
            violate("accessKey.rotation.overlap", error.to_string());
            DEFAULT_OVERLAP
        });
    let hold_while_used = rotation.hold_while_used.as_ref().and_then(|text| {
        text.parse().map_err(|error| violate("accessKey.rotation.holdWhileUsed", error.to_string())).ok()
    });
    let annotations = user.metadata.annotations.as_ref();
    let key = DesiredKey {
        description: declared.description.clone().filter(|text| !text.is_empty()),
        rhythm,
        windows,
        overlap,
        hold_while_used,
        rotate_request: annotations.and_then(|all| all.get(mark::ANNOTATION_ROTATE)).cloned(),
    };
    check_windows(&key, violate);
    check_gap(&key, rotation, settings, violate);
    key
}

fn desired_rhythm(rotation: &RotationSpec, violate: &mut impl FnMut(&'static str, String)) -> Rhythm {
    match (rotation.every.as_deref(), rotation.schedule.as_deref()) {
        (Some(_), Some(_)) => {
            violate("accessKey.rotation", "give either every or schedule, not both".to_owned());
            Rhythm::Never
        }
        (Some("Never"), None) => Rhythm::Never,
        (Some(text), None) => duration::HumanDuration::from(text).parse().map_or_else(
            |error| {
                violate("accessKey.rotation.every", error.to_string());
                Rhythm::Never
            },
            Rhythm::Every,
        ),
        (None, Some(text)) => CronSchedule::parse(text, rotation.time_zone.as_deref()).map_or_else(
            |error| {
                violate("accessKey.rotation.schedule", error.to_string());
                Rhythm::Never
            },
            |schedule| Rhythm::Cron(Box::new(schedule)),
        ),
        (None, None) => Rhythm::Every(DEFAULT_EVERY),
    }
}

fn desired_windows(rotation: &RotationSpec, violate: &mut impl FnMut(&'static str, String)) -> Windows {
    if rotation.every.as_deref() == Some("Never") && !rotation.windows.is_empty() {
        violate(
            "accessKey.rotation.windows",
            "windows say when scheduled rotations may begin; with every: Never there are none, and a rotation on request begins at once".to_owned(),
        );
    }
    let mut windows = Vec::new();
    for declared in &rotation.windows {
        let opens = CronSchedule::parse(&declared.schedule, declared.time_zone.as_deref());
        let opens = opens.map_err(|error| violate("accessKey.rotation.windows", error.to_string()));
        let lasts = declared.duration.parse().map_err(|error| violate("accessKey.rotation.windows", error.to_string()));
        if let (Ok(opens), Ok(duration)) = (opens, lasts) {
            windows.push(Window { opens, duration });
        }
    }
    Windows(windows)
}

fn check_windows(key: &DesiredKey, violate: &mut impl FnMut(&'static str, String)) {
    let Some(gap) = key.rhythm.smallest_gap() else { return };
    if let Some(wait) = key.windows.longest_wait_beyond(gap) {
        violate(
            "accessKey.rotation.windows",
            format!(
                "no window opens for {} at a time, and keys are to be rotated every {}: they would become older than declared. Give windows that open at least once per interval, or a longer interval",
                duration::humanize(wait),
                duration::humanize(gap)
            ),
        );
    }
}

fn check_gap(
    key: &DesiredKey,
    rotation: &RotationSpec,
    settings: &Settings,
    violate: &mut impl FnMut(&'static str, String),
) {
    if let Some(gap) = key.rhythm.smallest_gap()
        && gap < settings.min_rotation_interval
    {
        violate(
            "accessKey.rotation",
            format!(
                "keys would be rotated every {}, the operator allows {} at the shortest (--min-rotation-interval)",
                duration::humanize(gap),
                duration::humanize(settings.min_rotation_interval)
            ),
        );
    }
    let Some(gap) = key.windows.smallest_gap(&key.rhythm) else { return };
    if key.overlap >= gap {
        let how = if rotation.overlap.is_some() { "overlap" } else { "the default overlap" };
        violate(
            "accessKey.rotation.overlap",
            format!(
                "{how} of {} must be shorter than the time between two rotations, {}: an IAM user has two key slots, so the old key has to go before the next one comes",
                duration::humanize(key.overlap),
                duration::humanize(gap)
            ),
        );
    } else if let Some(hold) = key.hold_while_used
        && key.overlap.saturating_add(hold) >= gap
    {
        violate(
            "accessKey.rotation.holdWhileUsed",
            format!(
                "overlap and holdWhileUsed together, {}, must be shorter than the time between two rotations, {}: an IAM user has two key slots, and a key that is held must be gone before the next one comes",
                duration::humanize(key.overlap.saturating_add(hold)),
                duration::humanize(gap)
            ),
        );
    }
}

fn desired_secret(
    spec: &AwsDeployUserSpec,
    target: &Target,
    account: &Account,
    violate: &mut impl FnMut(&'static str, String),
) -> DesiredSecret {
    let key = spec.programmatic().cloned().unwrap_or_default();
    let mut labels = key.secret.labels.clone();
    labels.insert(mark::LABEL_MANAGED_BY.to_owned(), crate::api::MANAGER.to_owned());
    labels.insert(mark::LABEL_ROLE.to_owned(), "published".to_owned());
    // Label values end at 63 characters, names do not; the owner reference is the full truth.
    labels.insert(mark::LABEL_USER.to_owned(), label_value(&target.owner.name));
    let mut annotations = key.secret.annotations.clone();
    if let Some(use_case) = key.use_case {
        annotations.insert(mark::ANNOTATION_USE_CASE.to_owned(), use_case.as_str().to_owned());
    }
    if let Some(description) = &key.description {
        annotations.insert(mark::ANNOTATION_DESCRIPTION.to_owned(), description.clone());
    }
    let formats = &key.secret.formats;
    let secret = DesiredSecret {
        region: key.region.clone(),
        formats: if formats.is_empty() { SecretFormat::DEFAULT.into() } else { formats.iter().copied().collect() },
        templates: key.secret.template.clone(),
        user_name: target.user_name.clone(),
        account_id: account.id.clone(),
        labels,
        annotations,
    };
    for Violation { field, message } in secret::violations(&secret) {
        violate(field, message);
    }
    secret
}

/// A resource name as a label value: at most 63 characters that end with a letter or digit.
#[must_use]
pub fn label_value(name: &str) -> String {
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.', '_']).to_owned()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "json! in the call")]
    fn user(spec: serde_json::Value) -> AwsDeployUser {
        serde_json::from_value(json!({
            "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser",
            "metadata": {"name": "cycle", "namespace": "deploy", "uid": "u1"}, "spec": spec,
        }))
        .unwrap()
    }

    fn check(spec: serde_json::Value) -> Result<Desired, Vec<Violation>> {
        let user = user(spec);
        let target = Target::of(&user, "cluster").unwrap();
        let account = Account { partition: "aws".into(), id: "123456789012".into(), users_may_change_passwords: false };
        validate(&user, &target, &Grant::simplest(), &account, &Settings::default())
    }

    fn message(spec: serde_json::Value) -> String {
        tell(&check(spec).unwrap_err())
    }

    #[test]
    fn an_empty_spec_is_a_user_with_a_key_that_rotates_every_90_days() {
        let desired = check(json!({})).unwrap();
        assert_eq!(desired.target.user_name, "deploy-cycle");
        assert_eq!(desired.target.secret_name, "cycle");
        assert_eq!(desired.target.journal_name, "cycle.awsdeploy-journal");
        let key = desired.key.unwrap();
        assert_eq!((key.rhythm, key.overlap), (Rhythm::Every(DEFAULT_EVERY), DEFAULT_OVERLAP));
        assert_eq!(desired.tags.len(), 4);
    }

    #[test]
    fn console_alone_is_a_user_without_a_key_and_an_empty_access_key_asks_for_both() {
        assert!(check(json!({"console": {}})).unwrap().key.is_none());
        assert!(check(json!({"console": {}, "accessKey": {}})).unwrap().key.is_some());
        assert!(check(json!({"accessKey": {}})).unwrap().console.is_none());
        // Nothing of the Secret of a key is in the way of a name.
        assert!(check(json!({"console": {"secretName": "cycle"}})).is_ok());
        assert!(message(json!({"console": {"secretName": "cycle"}, "accessKey": {}})).contains("a name of its own"));
        let mut leaving = user(json!({"console": {"secretName": "old"}}));
        leaving.status =
            Some(crate::api::AwsDeployUserStatus { secret_name: Some("old".into()), ..Default::default() });
        let target = Target::of(&leaving, "cluster").unwrap();
        assert_eq!(target.secret_name, "old", "the Secret of an earlier key is looked for");
        let account = Account { partition: "aws".into(), id: "1".into(), users_may_change_passwords: false };
        let settings = Settings::default();
        assert!(validate(&leaving, &target, &Grant::simplest(), &account, &settings).is_err());
    }

    #[test]
    fn adoption_needs_the_consent_of_the_cluster_and_is_not_asked_for_by_default() {
        let consent = |spec, adoption| {
            let user = user(spec);
            let target = Target::of(&user, "cluster").unwrap();
            let account = Account { partition: "aws".into(), id: "1".into(), users_may_change_passwords: false };
            let grant = Grant { adoption, ..Grant::simplest() };
            validate(&user, &target, &grant, &account, &Settings::default()).unwrap().adoption
        };
        assert_eq!(consent(json!({}), true), Consent::NotAsked);
        assert_eq!(consent(json!({"adoption": "Never"}), true), Consent::NotAsked);
        assert_eq!(consent(json!({"adoption": "IfTagged"}), false), Consent::NotPermitted);
        assert_eq!(consent(json!({"adoption": "IfTagged"}), true), Consent::Permitted);
        let mut long = user(json!({"adoption": "IfTagged"}));
        long.metadata.name = Some("x".repeat(200));
        let target = Target::of(&long, &"c".repeat(50)).unwrap();
        let account = Account { partition: "aws".into(), id: "1".into(), users_may_change_passwords: false };
        let told = tell(&validate(&long, &target, &Grant::simplest(), &account, &Settings::default()).unwrap_err());
        assert!(told.contains("258 characters") && told.contains("IAM allows 256"), "{told}");
    }

    #[test]
    fn the_guides_are_expressed() {
        let desired = check(json!({
            "userName": "cycle-prod", "policies": {"managed": ["AmazonEC2FullAccess"]}, "tags": {"team": "payments"},
            "accessKey": {"useCase": "ThirdPartyService", "description": "Cycle hub", "region": "us-east-1"},
        }))
        .unwrap();
        assert_eq!(desired.attached, BTreeSet::from(["arn:aws:iam::aws:policy/AmazonEC2FullAccess".to_owned()]));
        assert_eq!(desired.tags[mark::TAG_USE_CASE], "ThirdPartyService");
        assert_eq!(desired.secret.annotations[mark::ANNOTATION_DESCRIPTION], "Cycle hub");
    }

    #[test]
    fn every_limit_is_named_with_its_number() {
        let long = "x".repeat(2048);
        for (spec, told) in [
            (json!({"userName": "a".repeat(65)}), "has 65 characters, IAM allows 64"),
            (json!({"userName": "a b"}), "' '"),
            (
                json!({"policies": {"managed": (0..11).map(|n| format!("P{n}")).collect::<Vec<_>>()}}),
                "11 managed policies are declared, the account allows 10",
            ),
            (json!({"policies": {"managed": ["AWSCompromisedKeyQuarantineV3"]}}), "cannot be declared"),
            (json!({"policies": {"inline": [{"name": "a", "document": {"x": long}}]}}), "IAM allows 2048"),
            (json!({"tags": {"team!": "a"}}), "letters, digits, spaces"),
            (json!({"tags": {"AwsDeploy.dev/adoptable-by": "a"}}), "used by this operator"),
            (json!({"tags": {"Team": "a", "team": "b"}}), "differ only in case"),
            (
                json!({"tags": (0..40).map(|n| (format!("t{n}"), "v".to_owned())).collect::<BTreeMap<_, _>>()}),
                "37 are left",
            ),
            (json!({"accessKey": {"secret": {"formats": ["Csv", "SesSmtp"]}}}), "SesSmtp needs accessKey.region"),
            (json!({"accessKey": {"secret": {"template": {"cloud": "{{ secretKey }}"}}}}), "is not a value"),
            (json!({"accessKey": {"rotation": {"every": "30m", "overlap": "5m"}}}), "--min-rotation-interval"),
            (json!({"accessKey": {"rotation": {"every": "12h"}}}), "the default overlap of 1d"),
            (json!({"accessKey": {"rotation": {"every": "12h", "overlap": "12h"}}}), "overlap of 12h must be shorter"),
            (
                json!({"accessKey": {"rotation": {"schedule": "0 3,5 * * *", "overlap": "3h"}}}),
                "between two rotations, 2h",
            ),
            (
                json!({"accessKey": {"rotation": {"every": "7d", "overlap": "1d", "holdWhileUsed": "6d"}}}),
                "together, 7d, must be shorter than the time between two rotations, 7d: an IAM user has two key slots",
            ),
            (json!({"accessKey": {"rotation": {"every": "7d", "holdWhileUsed": "0s"}}}), "is not a duration"),
            (json!({"accessKey": {"rotation": {"schedule": "nonsense", "overlap": "1h"}}}), "five fields"),
            (
                json!({"accessKey": {"rotation": {"schedule": "0 3 * * *", "timeZone": "Nowhere", "overlap": "1h"}}}),
                "IANA",
            ),
        ] {
            let message = message(spec);
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn windows_open_at_least_once_per_interval_and_need_a_schedule() {
        let rotation = |every: &str, windows: serde_json::Value| json!({"accessKey": {"rotation": {"every": every, "overlap": "1h", "windows": windows}}});
        let saturdays = || json!([{"schedule": "0 2 * * 6", "duration": "4h"}]);
        let desired = check(rotation("7d", saturdays())).unwrap();
        assert_eq!(desired.key.unwrap().windows.0[0].duration, SignedDuration::from_hours(4));
        for (spec, told) in [
            (rotation("2d", saturdays()), "no window opens for 7d at a time, and keys are to be rotated every 2d"),
            (rotation("Never", saturdays()), "a rotation on request begins at once"),
            (rotation("7d", json!([{"schedule": "0 2 * * 6", "duration": "0s"}])), "is not a duration"),
            (rotation("7d", json!([{"schedule": "Saturdays", "duration": "4h"}])), "five fields"),
            (rotation("7d", json!([{"schedule": "0 2 * * 6", "duration": "4h", "timeZone": "Bern"}])), "IANA"),
        ] {
            let message = message(spec);
            assert!(message.contains("accessKey.rotation.windows") && message.contains(told), "{message}");
        }
        // A window that lasts longer than until its next opening is always open.
        assert!(check(rotation("2d", json!([{"schedule": "0 * * * *", "duration": "2h"}]))).is_ok());
    }

    #[test]
    fn the_overlap_ends_before_the_next_rotation_also_where_windows_bring_two_nearer() {
        let spec = |overlap: &str| {
            json!({"accessKey": {"rotation": {"schedule": "0 12 1 * *", "overlap": overlap,
                "windows": [{"schedule": "0 2 14,25 * *", "duration": "4h"}, {"schedule": "0 11 1 2-12 *", "duration": "4h"}]}}})
        };
        assert!(check(spec("18d")).is_ok());
        // In January it has to wait for the 14th, in February it begins on the 1st.
        assert!(message(spec("19d")).contains("must be shorter than the time between two rotations, 18d 10h"));
    }

    #[test]
    fn all_violations_are_told_at_once() {
        let violations =
            check(json!({"userName": "a".repeat(65), "accessKey": {"rotation": {"schedule": "nonsense"}}}))
                .unwrap_err();
        assert_eq!(violations.len(), 2);
    }

    #[test]
    fn manual_rotation_has_no_interval_that_the_overlap_could_exceed() {
        let spec = json!({"accessKey": {"rotation": {"every": "Never", "overlap": "400d", "holdWhileUsed": "400d"}}});
        assert!(check(spec).is_ok());
    }
}
