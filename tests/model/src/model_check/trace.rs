//! A path through the model as text.

use stateright::Path;

use crate::{
    Action, Protocol, State, canonical,
    state::{At, LIMIT, OVERLAP, RECOVERY},
};

/// The place of a step in the protocol, by the name of the call or of the effect.
pub(super) fn place(model: &Protocol, state: &State, action: Action) -> String {
    let Some(controller) = action.actor().map(|index| &state.controllers[index]) else {
        return "environment".to_owned();
    };
    match controller.at {
        At::Idle | At::ReadIam | At::ReadKeys | At::ReadSecret | At::ReadJournal => "observe".to_owned(),
        At::Create { .. } => "CreateAccessKey".to_owned(),
        At::Stage { .. } | At::Refused { .. } | At::ReadTag(_) | At::Undo(_) => "stage".to_owned(),
        At::CloseRefused(_) => "Close".to_owned(),
        At::SecondWrite(_) => "Publish".to_owned(),
        At::Ready => model
            .decide(controller)
            .map(|(step, _)| format!("{step:?}").chars().take_while(|letter| letter.is_alphabetic()).collect())
            .unwrap_or_default(),
    }
}

/// One line per step. Controllers keep their letters and keys their numbers along the path, although the model renumbers them
/// in every state.
pub(super) fn describe(model: &Protocol, path: &Path<State, Action>) -> String {
    let mut letters = ['A', 'B'];
    let mut numbers: Vec<u8> = (0..16).collect();
    let mut newest = 0;
    let mut lines = Vec::new();
    for (state, action) in path.clone().into_vec() {
        for key in state.keys.iter().map(|key| usize::from(key.id)) {
            newest = newest.max(numbers[key]);
        }
        let Some(action) = action else { break };
        let who = action.actor().map_or("  ".to_owned(), |index| format!("{}:", letters[index]));
        lines.push(format!("  {who} {}", describe_action(model, &state, action, &numbers)));
        let Some(mut after) = model.apply(&state, action) else { break };
        let known: Vec<u8> = after.keys.iter().map(|key| key.id).collect();
        let renamed = canonical(&mut after);
        let before = numbers.clone();
        for (old, new) in renamed.keys.iter().enumerate().filter(|(_, new)| **new != 0) {
            let is_new = state.keys.entry(u8::try_from(old).unwrap_or(0)).is_none()
                && known.iter().any(|id| usize::from(*id) == old);
            newest += u8::from(is_new);
            numbers[usize::from(*new)] = if is_new { newest } else { before[old] };
        }
        if renamed.swapped {
            letters.swap(0, 1);
        }
    }
    lines.join("\n")
}

fn describe_action(model: &Protocol, state: &State, action: Action, numbers: &[u8]) -> String {
    let number = |key: u8| format!("key {}", numbers[usize::from(key)]);
    let Some(controller) = action.actor().map(|index| &state.controllers[index]) else {
        return match action {
            Action::Leap(RECOVERY) => "a minute passes".to_owned(),
            Action::Leap(LIMIT) => "ten minutes pass".to_owned(),
            Action::Leap(OVERLAP) => "a day passes".to_owned(),
            Action::Leap(_) => "days pass".to_owned(),
            Action::Confirm(key) => format!("the consumer confirms {}", number(key)),
            Action::Request => "a rotation is requested".to_owned(),
            Action::AddKey => "a person creates a key".to_owned(),
            _ => "a person deletes the Secret".to_owned(),
        };
    };
    let doing = match controller.at {
        At::Idle | At::ReadIam => "reads IAM".to_owned(),
        At::ReadKeys => "lists the keys".to_owned(),
        At::ReadSecret => "reads the Secret".to_owned(),
        At::ReadJournal => "reads the journal".to_owned(),
        At::Create { .. } => "calls CreateAccessKey".to_owned(),
        At::CloseRefused(_) => "closes the journal: no slot was free".to_owned(),
        At::Stage { key, .. } => format!("writes {} into the journal", number(key)),
        At::Refused { key, .. } => format!("is refused, and reads the journal for {}", number(key)),
        At::ReadTag(key) => format!("reads whether {} is tagged", number(key)),
        At::Undo(key) => format!("deletes {}, which it has created", number(key)),
        At::SecondWrite(_) => "writes the value into the Secret".to_owned(),
        At::Ready => match model.decide(controller) {
            Some((_, true)) => "has to read IAM again".to_owned(),
            Some((step, false)) => {
                use crate::Do;
                match step {
                    Do::Verify(key) => format!("verifies {}", number(key)),
                    Do::Publish(key) => format!("publishes {}", number(key)),
                    Do::Tag(key) => format!("tags {}", number(key)),
                    Do::Deactivate(key) => format!("sets {} Inactive", number(key)),
                    Do::Delete(key) => format!("deletes {}", number(key)),
                    Do::CreateKey(_) => "starts an attempt: writes the journal".to_owned(),
                    Do::Abandon(..) => "abandons the attempt".to_owned(),
                    Do::Touch => "touches the Secret".to_owned(),
                    Do::Close => "deletes the journal".to_owned(),
                    Do::Untag(_) => "removes tags of deleted keys".to_owned(),
                    Do::ReadLastUsed => "reads which key was used last".to_owned(),
                }
            }
            None => "ends its reconcile".to_owned(),
        },
    };
    match action {
        Action::StartCached(_) => "starts a reconcile with cached IAM state".to_owned(),
        Action::StaleList(_) => format!("{doing}; the list lags"),
        Action::LoseAnswer(_) => format!("{doing}; the response is lost"),
        Action::LoseCall(_) => format!("{doing}; the call is lost"),
        Action::MakeRefusedKey(_) => format!("{doing}; AWS will never accept the key"),
        Action::NotAccepted(_) => format!("{doing}; not accepted yet"),
        Action::LastUsed(_, key) => format!("{doing}: {}", number(key)),
        Action::Crash(_) => format!("crashes before it {doing}"),
        _ => doing,
    }
}
