//! Whether an installed operator can serve resources, from what the API server says about it.

use super::conditions;
use crate::api::{ConditionType, Reason};

/// What was read. An error is a message: a check that cannot be made is a problem too.
#[derive(Clone, Debug)]
pub struct InstallationFacts {
    /// Plural names of the resources that the API server serves.
    pub served: Result<Vec<String>, String>,
    /// The answer to a trial `AwsDeployUser`, which is not stored.
    pub trial: Result<TrialAnswer, String>,
    /// Whether any class exists.
    pub has_classes: Result<bool, String>,
    /// `None`: the Deployment does not exist.
    pub deployment: Result<Option<DeploymentFacts>, String>,
    /// Pods of the Deployment.
    pub pods: Result<Vec<PodFacts>, String>,
    /// Holder of the Lease, empty if there is none. `None`: there is no leader election.
    pub leader: Option<Result<String, String>>,
    /// Classes that were asked for.
    pub classes: Vec<(String, Result<Option<ClassReadiness>, String>)>,
}

/// The answer to a trial resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialAnswer {
    Accepted,
    /// By admission, with its message.
    Refused(String),
}

/// Progress of the rollout of the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeploymentFacts {
    pub wanted: i32,
    /// Available pods of the latest version.
    pub available: i32,
}

/// A pod of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    pub name: String,
    /// Its hostname, with which the identity of a leader begins.
    pub host: String,
    pub ready: bool,
    /// Why it is not, as Kubernetes reports it.
    pub problem: Option<String>,
}

/// Condition `Ready` of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassReadiness {
    pub ready: bool,
    pub message: String,
}

/// A check with its problem, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub problem: Option<Problem>,
}

/// What is missing, and who provides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub fix: String,
}

/// Evaluates all checks, in the order in which their problems have to be fixed.
#[must_use]
pub fn evaluate(facts: &InstallationFacts) -> Vec<Check> {
    let check = |name: &str, problem| Check { name: name.to_owned(), problem };
    let classes = facts.classes.iter().map(|(name, class)| check(&format!("class {name}"), class_problem(class)));
    [
        check("resource types", served_problem(&facts.served)),
        check("operator", operator_problem(facts)),
        check("leader", leader_problem(facts)),
        check("admission", admission_problem(facts)),
    ]
    .into_iter()
    .chain(classes)
    .collect()
}

#[allow(clippy::unnecessary_wraps, reason = "checks return it as it is")]
fn problem(what: impl Into<String>, fix: &str) -> Option<Problem> {
    Some(Problem { what: what.into(), fix: fix.to_owned() })
}

const UNREADABLE: &str = "Run it with the ServiceAccount of the chart's start-up check, or as a cluster admin";

fn served_problem(served: &Result<Vec<String>, String>) -> Option<Problem> {
    let fix = "A cluster admin installs the CRDs: the chart with crds.enabled, or kubectl apply -f crds/";
    match served {
        Err(error) => problem(error, fix),
        Ok(served) => {
            let missing: Vec<&str> = ["awsdeployusers", "awsdeployuserclasses"]
                .into_iter()
                .filter(|name| !served.iter().any(|other| other == name))
                .collect();
            if missing.is_empty() {
                None
            } else {
                problem(format!("the API server does not serve {}", missing.join(", ")), fix)
            }
        }
    }
}

fn operator_problem(facts: &InstallationFacts) -> Option<Problem> {
    let deployment = match &facts.deployment {
        Err(error) => return problem(error, UNREADABLE),
        Ok(None) => {
            return problem(
                "the Deployment of the operator does not exist",
                "A cluster admin installs the chart, or sets --namespace and --deployment",
            );
        }
        Ok(Some(deployment)) => deployment,
    };
    if deployment.wanted == 0 {
        return problem("the Deployment of the operator has no replicas", "A cluster admin sets replicaCount");
    }
    if deployment.available > 0 {
        return None;
    }
    let pods = match &facts.pods {
        Err(error) => return problem(error, UNREADABLE),
        Ok(pods) => pods,
    };
    let causes: Vec<String> =
        pods.iter().filter_map(|pod| Some(format!("{}: {}", pod.name, pod.problem.as_ref()?))).collect();
    let what = if causes.is_empty() { "no pod of the operator is ready yet".to_owned() } else { causes.join("; ") };
    problem(what, "A cluster admin reads kubectl describe pod and the log of the operator")
}

/// A standby replica is ready too, so that the rollout of the Deployment says nothing about a leader. The holder of the Lease begins
/// with the hostname of its pod; one that has ended may still hold it.
fn leader_problem(facts: &InstallationFacts) -> Option<Problem> {
    let (holder, pods) = match (facts.leader.as_ref()?, &facts.pods) {
        (Err(error), _) | (_, Err(error)) => return problem(error, UNREADABLE),
        (Ok(holder), Ok(pods)) => (holder, pods),
    };
    let leads = |pod: &&PodFacts| holder.strip_prefix(&pod.host).is_some_and(|rest| rest.starts_with('-'));
    if pods.iter().filter(leads).any(|pod| pod.ready) {
        return None;
    }
    let what = if holder.is_empty() {
        "no replica is the leader yet".to_owned()
    } else {
        format!("the Lease is held by {holder}, which is no ready pod of the operator")
    };
    problem(what, "It resolves itself when the Lease expires; otherwise a cluster admin reads the log of the operator")
}

/// After the first installation the API server refuses every resource until it has loaded the parameter type of the policy and the
/// classes.
fn admission_problem(facts: &InstallationFacts) -> Option<Problem> {
    let message = match &facts.trial {
        Err(error) => return problem(error, UNREADABLE),
        Ok(TrialAnswer::Accepted) => return None,
        Ok(TrialAnswer::Refused(message)) => message,
    };
    let has_classes = match &facts.has_classes {
        Err(error) => return problem(error, UNREADABLE),
        Ok(has_classes) => *has_classes,
    };
    let is_loading = message.contains("paramKind") || (has_classes && message.contains("no params found"));
    if !is_loading {
        return None;
    }
    problem(
        format!("the API server has not loaded the admission policy of classes yet: {message}"),
        "It resolves itself within half a minute",
    )
}

fn class_problem(class: &Result<Option<ClassReadiness>, String>) -> Option<Problem> {
    match class {
        Err(error) => problem(error, UNREADABLE),
        Ok(None) => problem("it does not exist", "A cluster admin applies it"),
        Ok(Some(class)) if class.ready => None,
        Ok(Some(class)) => problem(
            class.message.clone(),
            "kubectl describe aduc has the conditions; the reference of reasons says who can fix each",
        ),
    }
}

/// The condition `Ready` of a class that was observed at this generation.
#[must_use]
pub fn class_readiness(class: &crate::api::AwsDeployUserClass) -> ClassReadiness {
    let status = class.status.as_ref().filter(|status| status.observed_generation == class.metadata.generation);
    let ready = status.and_then(|status| conditions::find(&status.conditions, ConditionType::Ready));
    match ready {
        None => ClassReadiness {
            ready: false,
            message: format!("{}: the operator has not observed it yet", Reason::Pending),
        },
        Some(found) => {
            ClassReadiness { ready: found.status == "True", message: format!("{}: {}", found.reason, found.message) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> InstallationFacts {
        let pod =
            PodFacts { name: "operator-7d9f-abcde".to_owned(), host: "node-1".to_owned(), ready: true, problem: None };
        InstallationFacts {
            served: Ok(vec!["awsdeployusers".to_owned(), "awsdeployuserclasses".to_owned()]),
            trial: Ok(TrialAnswer::Accepted),
            has_classes: Ok(true),
            deployment: Ok(Some(DeploymentFacts { wanted: 2, available: 1 })),
            pods: Ok(vec![pod]),
            leader: Some(Ok("node-1-1-1700000000000".to_owned())),
            classes: vec![("c".to_owned(), Ok(Some(ClassReadiness { ready: true, message: String::new() })))],
        }
    }

    /// Names of the checks with a problem, and all texts.
    fn problems(facts: &InstallationFacts) -> (Vec<String>, String) {
        let failed: Vec<Check> = evaluate(facts).into_iter().filter(|check| check.problem.is_some()).collect();
        let text = failed.iter().filter_map(|check| check.problem.as_ref());
        let text: Vec<String> = text.map(|problem| format!("{}. {}.", problem.what, problem.fix)).collect();
        (failed.into_iter().map(|check| check.name).collect(), text.concat())
    }

    #[test]
    fn complete_installation_has_no_problem() {
        assert_eq!(problems(&good()).0, Vec::<String>::new());
        assert_eq!(evaluate(&good()).len(), 5);
        assert_eq!(problems(&InstallationFacts { leader: None, ..good() }).0, Vec::<String>::new(), "no election");
    }

    #[test]
    fn each_missing_part_is_named_with_its_fix() {
        let error = || "get Deployment o/o: forbidden".to_owned();
        let pod = |problem: Option<&str>| {
            vec![PodFacts {
                name: "p".to_owned(),
                host: "node-1".to_owned(),
                ready: false,
                problem: problem.map(str::to_owned),
            }]
        };
        let starting = |problem| InstallationFacts {
            deployment: Ok(Some(DeploymentFacts { wanted: 2, available: 0 })),
            pods: Ok(pod(problem)),
            leader: None,
            ..good()
        };
        let class = |class| InstallationFacts { classes: vec![("c".to_owned(), class)], ..good() };
        let unready = ClassReadiness { ready: false, message: "BoundaryNotFound: none".to_owned() };
        for (facts, name, part) in [
            (
                InstallationFacts { served: Ok(vec!["awsdeployusers".to_owned()]), ..good() },
                "resource types",
                "does not serve awsdeployuserclasses",
            ),
            (InstallationFacts { served: Err(error()), ..good() }, "resource types", "crds.enabled"),
            (InstallationFacts { deployment: Ok(None), ..good() }, "operator", "does not exist"),
            (InstallationFacts { deployment: Err(error()), ..good() }, "operator", "get Deployment o/o: forbidden"),
            (
                InstallationFacts { deployment: Ok(Some(DeploymentFacts::default())), ..good() },
                "operator",
                "replicaCount",
            ),
            (starting(None), "operator", "no pod of the operator is ready yet"),
            (starting(Some("ImagePullBackOff")), "operator", "p: ImagePullBackOff"),
            (InstallationFacts { leader: Some(Ok(String::new())), ..good() }, "leader", "no replica is the leader"),
            (InstallationFacts { leader: Some(Ok("gone-1-2".to_owned())), ..good() }, "leader", "held by gone-1-2"),
            (InstallationFacts { pods: Ok(pod(None)), ..good() }, "leader", "no ready pod"),
            (class(Ok(None)), "class c", "does not exist"),
            (class(Ok(Some(unready))), "class c", "BoundaryNotFound: none"),
            (class(Err(error())), "class c", "forbidden"),
        ] {
            let (names, text) = problems(&facts);
            assert_eq!(names, [name], "{text}");
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn admission_that_is_still_loading_is_waited_for() {
        let of = |message: &str, has_classes: bool| {
            let trial = Ok(TrialAnswer::Refused(message.to_owned()));
            problems(&InstallationFacts { trial, has_classes: Ok(has_classes), ..good() }).0
        };
        let kind =
            "failed to configure policy: failed to find resource referenced by paramKind: 'awsdeploy.dev/v1alpha1'";
        let params =
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
        assert_eq!(of(kind, false), ["admission"]);
        assert_eq!(of(kind, true), ["admission"]);
        assert_eq!(of(params, true), ["admission"], "its classes are not loaded");
        assert_eq!(of(params, false), Vec::<String>::new(), "nothing is allowed without a class");
        assert_eq!(of("class c allows no policy", true), Vec::<String>::new(), "the policy decides");
        let unread = InstallationFacts { trial: Err("create AwsDeployUser: forbidden".to_owned()), ..good() };
        assert_eq!(problems(&unread).0, ["admission"]);
    }
}
