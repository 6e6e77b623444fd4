//! Console access: the password is stored before it is set, and removed in an order that survives a crash.

use super::*;
use crate::{
    api::well_known,
    domain::{desired::DesiredConsole, plan::EffectVerb},
};

fn declared(request: Option<&str>) -> Case {
    let console = DesiredConsole {
        secret_name: "cycle-console".into(),
        reset_required: true,
        reset_request: request.map(str::to_owned),
    };
    tagged_console(idle())
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
fn password_is_stored_before_it_is_set_in_iam() {
    declared(None).does("WritePassword");
    declared(None).current(|current| current.console = secret(false)).does("ApplyPassword");
    let done =
        declared(None).current(|current| current.console = secret(true)).user(|user| user.login_profile = Some(true));
    done.does("nothing");
    // A crash after the password was set: the same password again, never another one.
    done.clone().current(|current| current.console = secret(false)).does("ApplyPassword");
    // Removed by hand: restored.
    done.user(|user| user.login_profile = Some(false)).does("ApplyPassword");
}

#[test]
fn new_request_or_edited_secret_creates_a_new_password() {
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
fn foreign_console_secret_is_reported_and_not_changed() {
    let plan = declared(None).current(|current| current.console = ConsoleSecret::Foreign("theirs".into())).plan();
    assert_eq!(plan.effects, []);
    let note = plan.user.unwrap();
    assert_eq!(note.reason, Reason::SecretConflict);
    assert!(note.message.contains("spec.console.secretName"), "{}", note.message);
}

#[test]
fn undeclared_console_loses_password_first_and_tag_last() {
    let mut case = tagged_console(idle())
        .user(|user| user.login_profile = Some(true))
        .current(|current| current.console = secret(true));
    case.does("RemovePassword");
    case = case.user(|user| user.login_profile = Some(false));
    case.does("DeleteConsoleSecret");
    case = case.current(|current| current.console = ConsoleSecret::Missing);
    case.does("UntagUser awsdeploy.dev/console");
}

#[test]
fn revoked_user_has_no_password_and_keeps_its_secret() {
    let case =
        declared(None).current(|current| current.console = secret(true)).user(|user| user.login_profile = Some(true));
    let verbs: Vec<_> = case.credentials_revoked().plan().effects.iter().map(Effect::verb).collect();
    assert!(
        verbs.contains(&EffectVerb::RemovePassword) && !verbs.contains(&EffectVerb::DeleteConsoleSecret),
        "{verbs:?}"
    );
}

#[test]
fn deletion_removes_password_first_and_its_secret_last() {
    let case = tagged_console(idle())
        .user(|user| user.login_profile = Some(true))
        .current(|current| current.console = secret(true));
    case.cleans_up_by("RemovePassword");
    case.clone().no_user().no_secret().cleans_up_by("DeleteConsoleSecret");
    case.leaving(DeletionPolicy::Retain).no_secret().cleans_up_by("ReleaseConsoleSecret");
}
