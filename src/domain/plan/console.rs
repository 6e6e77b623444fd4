//! Console access: brings the password and its Secret to what is declared.

use super::{Effect, not_writable, rules::Step};
use crate::{
    api::well_known,
    domain::{
        console::ConsoleSecret,
        current_state::{CurrentState, IamUser},
        desired::Desired,
    },
};

/// `None` if all is as declared.
pub(super) fn next_step(desired: &Desired, user: &IamUser, current: &CurrentState) -> Option<Step> {
    let has_password = user.login_profile == Some(true);
    if current.secrets_unread {
        let revokes = desired.credentials_revoked || desired.console.is_none();
        return (revokes && has_password).then_some(Step::Do(Effect::RemovePassword));
    }
    let Some(console) = &desired.console else {
        // The tag records that there was console access, so it is removed last.
        let (tag, _) = user.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(well_known::TAG_CONSOLE))?;
        return Some(Step::Do(match &current.console {
            _ if has_password => Effect::RemovePassword,
            ConsoleSecret::Ours(_) => Effect::DeleteConsoleSecret,
            ConsoleSecret::Missing | ConsoleSecret::Foreign(_) => Effect::UntagUser([tag.clone()].into()),
        }));
    };
    if desired.credentials_revoked {
        // The Secret is kept: the same password works again after the revocation.
        return has_password.then_some(Step::Do(Effect::RemovePassword));
    }
    match &current.console {
        ConsoleSecret::Foreign(owner) => {
            Some(Step::Hold(not_writable(&console.secret_name, owner, "no password is set", "spec.console.secretName")))
        }
        ConsoleSecret::Missing => Some(Step::Do(Effect::WritePassword)),
        ConsoleSecret::Ours(facts) => {
            let requested = console.reset_request.is_some() && console.reset_request != facts.reset_honoured;
            if !facts.intact || requested {
                Some(Step::Do(Effect::WritePassword))
            } else if !facts.applied || !has_password {
                Some(Step::Do(Effect::ApplyPassword))
            } else {
                None
            }
        }
    }
}
