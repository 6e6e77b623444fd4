//! Console access: written down first, then told to AWS; taken away in the order that forgets nothing.

use super::*;
use crate::{api::well_known, domain::desired::DesiredConsole};

fn declared(request: Option<&str>) -> Case {
    let console = DesiredConsole {
        secret_name: "cycle-console".into(),
        reset_required: true,
        reset_request: request.map(str::to_owned),
    };
    tagged_console(at_rest())
        .desired(|desired| {
            desired.tags.insert(well_known::TAG_CONSOLE.into(), "cycle-console".into());
            desired.console = Some(console);
        })
        .user(|user| user.login_profile = Some(false))
}

fn tagged_console(case: Case) -> Case {
    case.user(|user| _ = user.tags.insert(well_known::TAG_CONSOLE.into(), "cycle-console".into()))
}

fn secret(applied: bool) -> ConsoleSecret {
    ConsoleSecret::Ours(ConsoleFacts { intact: true, applied, reset_honoured: None })
}

#[test]
fn a_password_is_written_down_before_aws_is_told() {
    declared(None).does("WritePassword");
    declared(None).current(|current| current.console = secret(false)).does("ApplyPassword");
    let done =
        declared(None).current(|current| current.console = secret(true)).user(|user| user.login_profile = Some(true));
    done.does("nothing");
    // Crash after AWS was told: the same password once more, never another one.
    done.clone().current(|current| current.console = secret(false)).does("ApplyPassword");
    // Taken away by hand: put back.
    done.user(|user| user.login_profile = Some(false)).does("ApplyPassword");
}

#[test]
fn a_new_request_and_an_edited_secret_lead_to_a_new_password() {
    let done = |request| {
        declared(request).current(|current| current.console = secret(true)).user(|user| user.login_profile = Some(true))
    };
    done(Some("please")).does("WritePassword");
    let honoured = ConsoleFacts { intact: true, applied: true, reset_honoured: Some("please".into()) };
    done(Some("please")).current(|current| current.console = ConsoleSecret::Ours(honoured)).does("nothing");
    let edited = ConsoleFacts { intact: false, applied: true, reset_honoured: None };
    done(None).current(|current| current.console = ConsoleSecret::Ours(edited)).does("WritePassword");
}

#[test]
fn a_secret_of_somebody_else_is_left_alone_and_told() {
    let plan = declared(None).current(|current| current.console = ConsoleSecret::Foreign("theirs".into())).plan();
    assert_eq!(plan.effects, []);
    let note = plan.user.unwrap();
    assert_eq!(note.reason, Reason::SecretConflict);
    assert!(note.message.contains("spec.console.secretName"), "{}", note.message);
}

#[test]
fn what_is_no_longer_declared_goes_password_first_and_its_mark_last() {
    let mut case = tagged_console(at_rest())
        .user(|user| user.login_profile = Some(true))
        .current(|current| current.console = secret(true));
    case.does("RemovePassword");
    case = case.user(|user| user.login_profile = Some(false));
    case.does("DeleteConsoleSecret");
    case = case.current(|current| current.console = ConsoleSecret::Missing);
    case.does("UntagUser awsdeploy.dev/console");
}

#[test]
fn a_suspended_user_has_no_password_and_keeps_its_secret() {
    let case =
        declared(None).current(|current| current.console = secret(true)).user(|user| user.login_profile = Some(true));
    let verbs: Vec<_> = case.suspended().plan().effects.iter().map(Effect::verb).collect();
    assert!(verbs.contains(&"RemovePassword") && !verbs.contains(&"DeleteConsoleSecret"), "{verbs:?}");
}

#[test]
fn a_deletion_takes_the_password_before_the_keys_and_the_secret_after_the_user() {
    let case = tagged_console(at_rest())
        .user(|user| user.login_profile = Some(true))
        .current(|current| current.console = secret(true));
    case.leaves_by("RemovePassword");
    case.clone().user_absence().no_secret().leaves_by("DeleteConsoleSecret");
    case.leaving(DeletionPolicy::Retain).no_secret().leaves_by("ReleaseConsoleSecret");
}
