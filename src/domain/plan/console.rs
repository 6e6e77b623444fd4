//! Access to the console: the password and its Secret, brought to what is declared.

use super::{Effect, Note, cannot_be_written};
use crate::{
    api::well_known,
    domain::{
        console::ConsoleSecret,
        current_state::{CurrentState, IamUser},
        desired::Desired,
    },
};

/// The next effect, or what stands in its way; `None` if all is as declared.
pub(super) fn decide(desired: &Desired, user: &IamUser, current: &CurrentState) -> Option<Result<Effect, Note>> {
    let has_password = user.login_profile == Some(true);
    let Some(console) = &desired.console else {
        // The tag says that there was console access; it goes last, so that a crash forgets nothing.
        let (tag, _) = user.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(well_known::TAG_CONSOLE))?;
        return Some(Ok(match &current.console {
            _ if has_password => Effect::RemovePassword,
            ConsoleSecret::Ours(_) => Effect::DeleteConsoleSecret,
            ConsoleSecret::Missing | ConsoleSecret::Foreign(_) => Effect::UntagUser([tag.clone()].into()),
        }));
    };
    if desired.suspend {
        // The Secret stays: the same password comes back with the user.
        return has_password.then_some(Ok(Effect::RemovePassword));
    }
    match &current.console {
        ConsoleSecret::Foreign(whose) => {
            Some(Err(cannot_be_written(&console.secret_name, whose, "password is set", "spec.console.secretName")))
        }
        ConsoleSecret::Missing => Some(Ok(Effect::WritePassword)),
        ConsoleSecret::Ours(facts) => {
            let asked = console.reset_request.is_some() && console.reset_request != facts.reset_honoured;
            if !facts.intact || asked {
                Some(Ok(Effect::WritePassword))
            } else if !facts.applied || !has_password {
                Some(Ok(Effect::ApplyPassword))
            } else {
                None
            }
        }
    }
}
