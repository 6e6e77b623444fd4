//! Every rule is needed: without it an invariant is violated, keys are wasted, or another step follows.

use super::{
    simulation::{Event, Pause, Scenario, outcome},
    *,
};
use crate::{
    api::{class::OnRevoked, user::Credentials},
    domain::{
        authorize::Revocation,
        desired::OnQuarantine,
        plan::{
            RevocationPolicy,
            rules::{Mode, RuleInput, Step, first_step},
        },
    },
};

/// What shows that a rule is needed.
enum Evidence {
    /// A property of the model check in `tests/model` fails without it.
    Model,
    /// Without it the auditor of the simulation finds a violation, or more keys are created.
    Simulation(Scenario),
    /// The next effect by all rules, and by the others.
    Effect { case: Box<Case>, mode: DesiredMode, with: &'static str, without: &'static str },
}

type DesiredMode = fn(&Desired) -> Mode<'_>;

fn effect(case: Case, mode: DesiredMode, with: &'static str, without: &'static str) -> Evidence {
    Evidence::Effect { case: Box::new(case), mode, with, without }
}

fn evidence() -> Vec<(&'static str, Evidence)> {
    use Evidence::{Model, Simulation};
    let revoked = || Simulation(scenario([Event::Nothing, Event::SetCredentials(Credentials::Revoked)]));
    let quarantined = scenario([Event::Nothing, Event::Quarantine]);
    let with_password = idle().inactive("K1").user(|user| user.login_profile = Some(true));
    let unread = idle().no_secret().current(|current| current.secrets_unread = true);
    let retained = idle().desired(|desired| desired.retain = true);
    let owned = retained.current(|current| current.secret_has_owner = true);
    let creates = "CreateKey beside K1";
    vec![
        ("revoked and undeclared keys are Inactive", revoked()),
        (
            "a revoked user has no console password",
            effect(with_password, |_| Mode::Revoked(&DEACTIVATED), "RemovePassword", "nothing"),
        ),
        (
            "a revoked user loses its policies and groups",
            effect(not_deletable(), |_| Mode::Revoked(&DELETED), "DetachPolicy P", "nothing"),
        ),
        ("a published key is tagged, never before it is published", Model),
        ("a superseded key is Inactive after its overlap", Model),
        (
            "the start of a quarantine is recorded on the user",
            Simulation(Scenario { on_quarantine: OnQuarantine::Rotate, ..quarantined }),
        ),
        ("without its Secrets and journal, a user only loses access", effect(unread, live, "nothing", creates)),
        (
            "a journal of unknown format blocks what follows",
            effect(idle().no_secret().unknown_journal(), live, "nothing", creates),
        ),
        ("a paused publisher of an abandoned key is fenced off", Model),
        ("orphans are deleted behind the fence", Model),
        ("an attempt that is over is closed", Model),
        ("a staged key that AWS accepts is published", Model),
        ("an attempt that cannot be finished is abandoned", Model),
        ("a staged key is verified", Model),
        (
            "a retained user loses its ownership tags and nothing else",
            effect(idle(), |_| Mode::Deleting(DeletionPolicy::Retain), "ReleaseSecret", "nothing"),
        ),
        (
            "a deleted user loses its keys first",
            effect(idle(), |_| Mode::Deleting(DeletionPolicy::Delete), "DeactivateKey K1 (Cleanup)", "nothing"),
        ),
        ("the Secrets of a retained user have no owner", effect(owned, live, "ReleaseSecret", "nothing")),
        ("a user whose keys must not work gets none", revoked()),
        (
            "a Secret without a valid MAC is signed again if AWS accepts its key",
            Simulation(scenario([Event::Nothing, Event::DropMac])),
        ),
        (
            "workloads are restarted for a new key until they are rolled out",
            effect(restart::owed(mins(1)), live, "ReadWorkloads Deployment a, Deployment b", "nothing"),
        ),
        ("tags of deleted keys are removed", Model),
        ("a superseded key is deleted after the deletion delay", Model),
        ("a key that is due is replaced", Model),
        ("the Secret matches the spec", Simulation(scenario([Event::Nothing, Event::Region(true)]))),
    ]
}

/// These events, a day apart.
fn scenario(events: impl IntoIterator<Item = Event>) -> Scenario {
    Scenario {
        lag: 20,
        accepts_after: 10,
        events: events.into_iter().map(|event| (event, Pause::Days(1))).collect(),
        deletion_policy: DeletionPolicy::Delete,
        on_quarantine: OnQuarantine::Alert,
    }
}

fn live(desired: &Desired) -> Mode<'_> {
    Mode::Live { desired, user_ready: true, conflict: None }
}

static DEACTIVATED: RevocationPolicy = revoked(OnRevoked::Deactivate);
static DELETED: RevocationPolicy = revoked(OnRevoked::Delete);

const fn revoked(action: OnRevoked) -> RevocationPolicy {
    RevocationPolicy {
        revocation: Revocation { action, reason: None, until: None },
        on_quarantine: OnQuarantine::Alert,
        credentials_revoked: false,
    }
}

/// A foreign key blocks the deletion of the user.
fn not_deletable() -> Case {
    idle().inactive("K1").key("F", days(1)).user(|user| _ = user.grants.as_mut().unwrap().attached.insert("P".into()))
}

/// The effect of the first of these rules that applies.
fn effect_by(rules: &[Rule], case: &Case, mode: Mode<'_>) -> String {
    let Case { desired, current, settings, .. } = case;
    let user = current.user().unwrap();
    match first_step(rules, &RuleInput { target: &desired.target, mode, current, user, now: now(), settings }) {
        Step::Do(effect) => effect_text(&effect),
        Step::Wait(..) | Step::Hold(_) | Step::Idle => "nothing".to_owned(),
    }
}

#[test]
fn every_rule_is_needed() {
    let evidence = evidence();
    assert_eq!(evidence.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names());
    for (name, evidence) in evidence {
        let others: Vec<Rule> = RULES.iter().copied().filter(|(other, _)| *other != name).collect();
        match evidence {
            Evidence::Model => {}
            Evidence::Simulation(scenario) => {
                let (violation, creates) = outcome(RULES, &scenario);
                assert_eq!(violation, None, "by all rules");
                let (violation, more) = outcome(&others, &scenario);
                eprintln!("without the rule {name:?}: {violation:?}, {more} keys instead of {creates}");
                assert!(violation.is_some() || more > creates, "{name:?} prevents nothing in {scenario:?}");
            }
            Evidence::Effect { case, mode, with, without } => {
                assert_eq!(effect_by(RULES, &case, mode(&case.desired)), with, "{name:?}");
                assert_eq!(effect_by(&others, &case, mode(&case.desired)), without, "without {name:?}");
            }
        }
    }
}

#[test]
fn documentation_lists_the_rules_in_order() {
    let page = include_str!("../../../../docs/rotation.md");
    let section = page.split("\n## ").find(|section| section.starts_with("The rules, in order\n")).unwrap();
    let listed: Vec<&str> = section.lines().filter_map(|line| line.split_once(". **")?.1.split("**").next()).collect();
    assert_eq!(listed, names());
}

fn names() -> Vec<&'static str> {
    RULES.iter().map(|(name, _)| *name).collect()
}
