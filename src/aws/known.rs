//! What is known of all our users of an account, and for how long.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::domain::current_state::IamUser;

/// Our users as `GetAccountAuthorizationDetails` shows them: without access keys and passwords, which it does not know.
#[derive(Debug)]
pub struct AccountDetails {
    pub(super) read_at: Instant,
    /// By names in lower case: IAM's are unique ignoring case.
    pub(super) users: HashMap<String, IamUser>,
}

impl AccountDetails {
    /// When it was begun to be read.
    #[must_use]
    pub fn read_at(&self) -> Instant {
        self.read_at
    }

    /// The user of that name, if it is one of ours.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&IamUser> {
        self.users.get(&name.to_ascii_lowercase())
    }
}

/// Whether the details of the account are to be had.
#[derive(Clone)]
pub(super) enum Known {
    Read(Arc<AccountDetails>),
    /// Not before then.
    Not(Instant),
}

impl Known {
    pub(super) fn is_good(&self, since: Instant) -> bool {
        match self {
            Self::Read(details) => details.read_at > since,
            Self::Not(until) => Instant::now() < *until,
        }
    }

    pub(super) fn not_for(time: Duration) -> Self {
        Self::Not(Instant::now() + time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_good_for_whoever_has_changed_nothing_since() {
        let read_at = Instant::now();
        let answer = Known::Read(Arc::new(AccountDetails { read_at, users: HashMap::new() }));
        assert!(answer.is_good(read_at.checked_sub(Duration::from_millis(1)).unwrap()));
        assert!(!answer.is_good(read_at), "a change of the same moment may not be in them");
        assert!(!answer.is_good(read_at + Duration::from_millis(1)));
    }
}
