//! Rotation, overlap, restarts and handover, and whether they are possible with two access keys per user.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::{
    api::{
        AwsDeployUser, duration,
        user::{AccessKeySpec, RestartTarget, RotationSpec},
        well_known,
    },
    domain::{
        desired::{DEFAULT_OVERLAP, DEFAULT_ROTATION_INTERVAL, DesiredKey},
        handover::{self, Consumer},
        schedule::{CronSchedule, RotationSchedule},
        secret,
        settings::Settings,
        window::{Window, Windows},
    },
};

/// Each workload costs a read per reconcile during its rollout, and space in the condition message.
const MAX_RESTARTS: usize = 10;

/// Each consumer is named in the condition message.
const MAX_CONSUMERS: usize = 8;

/// Longer rotate requests are replaced by their SHA-256.
const MAX_REQUEST_BYTES: usize = 1024;

pub(super) fn desired_key(
    user: &AwsDeployUser,
    declared: &AccessKeySpec,
    settings: &Settings,
    violate: &mut impl FnMut(&'static str, String),
) -> DesiredKey {
    let rotation = &declared.rotation;
    let schedule = desired_schedule(rotation, violate);
    let windows = desired_windows(rotation, violate);
    let overlap =
        rotation.overlap.as_ref().map_or(Ok(DEFAULT_OVERLAP), duration::HumanDuration::parse).unwrap_or_else(|error| {
            violate("accessKey.rotation.overlap", error.to_string());
            DEFAULT_OVERLAP
        });
    let hold_while_used = rotation.hold_while_used.as_ref().and_then(|text| {
        text.parse().map_err(|error| violate("accessKey.rotation.holdWhileUsed", error.to_string())).ok()
    });
    let rotate_request =
        user.metadata.annotations.as_ref().and_then(|all| all.get(well_known::ANNOTATION_ROTATE)).cloned();
    // The request is copied into an annotation of the Secret, whose total size is limited.
    let rotate_request =
        rotate_request.map(|request| if request.len() > MAX_REQUEST_BYTES { digest(&request) } else { request });
    let key = DesiredKey {
        description: declared.description.clone().filter(|text| !text.is_empty()),
        schedule,
        windows,
        overlap,
        hold_while_used,
        rotate_request,
        restart: desired_restart(&declared.restart, violate),
        handover: desired_handover(user, violate),
    };
    check_windows(&key, violate);
    check_gap(&key, rotation, settings, violate);
    key
}

fn desired_restart(
    declared: &[RestartTarget],
    violate: &mut impl FnMut(&'static str, String),
) -> BTreeSet<RestartTarget> {
    if declared.len() > MAX_RESTARTS {
        violate(
            "accessKey.restart",
            format!(
                "{} workloads are declared, {MAX_RESTARTS} are allowed; use a controller such as Reloader for the others, or let them read the key from files",
                declared.len()
            ),
        );
    }
    let mut targets = BTreeSet::new();
    for target in declared {
        if !targets.insert(target.clone()) {
            violate("accessKey.restart", format!("{target} is declared twice; remove one entry"));
        }
    }
    targets
}

fn desired_handover(user: &AwsDeployUser, violate: &mut impl FnMut(&'static str, String)) -> Vec<Consumer> {
    let declared: Vec<_> = handover::confirmations(user).collect();
    if declared.len() > MAX_CONSUMERS {
        violate(
            "accessKey.handover",
            format!(
                "{} consumers are declared, {MAX_CONSUMERS} are allowed; let one agent hand the key over to several and confirm once",
                declared.len()
            ),
        );
    }
    let mut consumers: Vec<Consumer> = Vec::new();
    for (consumer, confirmed) in declared {
        let name = &consumer.name;
        if consumers.iter().any(|other| other.name == *name) {
            violate("accessKey.handover", format!("{name} is declared twice; remove one entry"));
        }
        match consumer.within.parse() {
            Ok(within) => {
                consumers.push(Consumer { name: name.clone(), within, confirmed: confirmed.map(str::to_owned) });
            }
            Err(error) => violate("accessKey.handover", format!("within of {name}: {error}")),
        }
    }
    consumers
}

fn desired_schedule(rotation: &RotationSpec, violate: &mut impl FnMut(&'static str, String)) -> RotationSchedule {
    match (rotation.every.as_deref(), rotation.schedule.as_deref()) {
        (Some(_), Some(_)) => {
            violate("accessKey.rotation", "set either every or schedule, not both".to_owned());
            RotationSchedule::Never
        }
        (Some("Never"), None) => RotationSchedule::Never,
        (Some(text), None) => duration::HumanDuration::from(text).parse().map_or_else(
            |error| {
                violate("accessKey.rotation.every", error.to_string());
                RotationSchedule::Never
            },
            RotationSchedule::Every,
        ),
        (None, Some(text)) => CronSchedule::parse(text, rotation.time_zone.as_deref()).map_or_else(
            |error| {
                violate("accessKey.rotation.schedule", error.to_string());
                RotationSchedule::Never
            },
            |schedule| RotationSchedule::Cron(Box::new(schedule)),
        ),
        (None, None) => RotationSchedule::Every(DEFAULT_ROTATION_INTERVAL),
    }
}

fn desired_windows(rotation: &RotationSpec, violate: &mut impl FnMut(&'static str, String)) -> Windows {
    if rotation.every.as_deref() == Some("Never") && !rotation.windows.is_empty() {
        violate(
            "accessKey.rotation.windows",
            "windows apply to scheduled rotations only, and every: Never schedules none; remove windows or set another interval".to_owned(),
        );
    }
    let mut windows = Vec::new();
    for declared in &rotation.windows {
        let opens = CronSchedule::parse(&declared.schedule, declared.time_zone.as_deref());
        let opens = opens.map_err(|error| violate("accessKey.rotation.windows", error.to_string()));
        let duration =
            declared.duration.parse().map_err(|error| violate("accessKey.rotation.windows", error.to_string()));
        if let (Ok(opens), Ok(duration)) = (opens, duration) {
            windows.push(Window { opens, duration });
        }
    }
    Windows(windows)
}

fn check_windows(key: &DesiredKey, violate: &mut impl FnMut(&'static str, String)) {
    let Some(gap) = key.schedule.smallest_gap() else { return };
    if let Some(wait) = key.windows.wait_longer_than(gap) {
        violate(
            "accessKey.rotation.windows",
            format!(
                "no window opens for {}, but keys are rotated every {} and would become older than declared; declare windows that open at least once per interval, or a longer interval",
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
    if let Some(gap) = key.schedule.smallest_gap()
        && gap < settings.min_rotation_interval
    {
        violate(
            "accessKey.rotation",
            format!(
                "keys would be rotated every {}; the shortest interval of the operator is {} (--min-rotation-interval)",
                duration::humanize(gap),
                duration::humanize(settings.min_rotation_interval)
            ),
        );
    }
    let Some(gap) = key.windows.smallest_gap(&key.schedule) else { return };
    if key.overlap >= gap {
        let how = if rotation.overlap.is_some() { "overlap" } else { "the default overlap" };
        violate(
            "accessKey.rotation.overlap",
            format!(
                "{how} of {} must be shorter than the time between two rotations, {}: an IAM user can have two access keys, so the previous key must be deleted before the next rotation",
                duration::humanize(key.overlap),
                duration::humanize(gap)
            ),
        );
        return;
    }
    // They run at the same time, so each is checked alone.
    let within = key.handover.iter().map(|consumer| consumer.within).max();
    let extensions = [
        ("accessKey.rotation.holdWhileUsed", "holdWhileUsed", key.hold_while_used),
        ("accessKey.handover", "the longest within of handover", within),
    ];
    for (field, what, extension) in extensions {
        let Some(held) = extension.map(|extension| key.overlap.saturating_add(extension)) else { continue };
        if held >= gap {
            violate(
                field,
                format!(
                    "overlap plus {what}, {}, must be shorter than the time between two rotations, {}: an IAM user can have two access keys, so the previous key must be deleted before the next rotation",
                    duration::humanize(held),
                    duration::humanize(gap)
                ),
            );
        }
    }
}

fn digest(request: &str) -> String {
    format!("sha256:{}", secret::hex(&Sha256::digest(request)))
}
