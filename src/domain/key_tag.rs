//! The tag of an IAM user that marks an access key as the operator's, and says in which time it was the newest one.
//!
//! Its value is an ISO 8601 interval, `2026-11-30T10:00:00Z/2026-12-30T10:00:00Z`, without an end while no newer key was
//! published. Only identities with rights in IAM can write it, so that a superseded key ends when it was announced, whatever
//! happens to the resource and its Secret.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;

use super::{
    current_state::IamUser,
    dates::{ceil, floor},
    owner::key_tag,
};

/// When a key was the newest published one, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTag {
    /// When the tag was set, directly after the publication of the key.
    pub published_at: Timestamp,
    /// When a newer key was published. `None`: not yet.
    pub superseded_at: Option<Timestamp>,
}

impl FromStr for KeyTag {
    type Err = jiff::Error;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let (start, end) = value.split_once('/').map_or((value, None), |(start, end)| (start, Some(end)));
        Ok(Self { published_at: start.parse()?, superseded_at: end.map(str::parse).transpose()? })
    }
}

impl fmt::Display for KeyTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", floor(self.published_at))?;
        self.superseded_at.map_or(Ok(()), |end| write!(formatter, "/{}", floor(end)))
    }
}

/// The tags to write when a key was published: its own, and those of the keys that it supersedes. A key that was superseded
/// before keeps the first date, unless it is that of an earlier publication of the same key.
#[must_use]
pub fn tags_after_publication(user: &IamUser, key_id: &str, now: Timestamp) -> BTreeMap<String, String> {
    let before = user.key_tag(key_id).map(|tag| tag.published_at);
    let superseded = user.keys.iter().filter(|key| key.id != key_id).filter_map(|key| {
        let tag = user.key_tag(&key.id)?;
        let is_new = tag.superseded_at.is_none_or(|at| Some(at) == before);
        is_new.then(|| (key_tag(&key.id), KeyTag { superseded_at: Some(ceil(now)), ..tag }))
    });
    let published = (key_tag(key_id), KeyTag { published_at: now, superseded_at: None });
    superseded.chain([published]).map(|(tag, value)| (tag, value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::current_state::AccessKey;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn user(tags: &[(&str, &str)]) -> IamUser {
        let key = |id: &str| AccessKey { id: id.into(), active: true, created_at: at(0) };
        IamUser {
            keys: vec![key("K1"), key("K2")],
            tags: tags.iter().map(|(id, value)| (key_tag(id), (*value).to_owned())).collect(),
            ..IamUser::default()
        }
    }

    #[test]
    fn value_is_an_interval_in_whole_seconds() {
        let open = KeyTag { published_at: at(0) + jiff::SignedDuration::from_millis(1_500), superseded_at: None };
        assert_eq!(open.to_string(), "1970-01-01T00:00:01Z");
        let closed = KeyTag { superseded_at: Some(at(60)), ..open };
        assert_eq!(closed.to_string(), "1970-01-01T00:00:01Z/1970-01-01T00:01:00Z");
        assert_eq!(closed.to_string().parse::<KeyTag>().unwrap(), KeyTag { published_at: at(1), ..closed });
        for value in ["", "/", "now", "1970-01-01T00:00:01Z/", "/1970-01-01T00:00:01Z"] {
            assert!(value.parse::<KeyTag>().is_err(), "{value}");
        }
    }

    #[test]
    fn publication_ends_the_time_of_the_other_key_once() {
        let written = |tags: &[(&str, &str)], second| {
            let tags = tags_after_publication(&user(tags), "K2", at(second));
            tags.into_iter().map(|(key, value)| format!("{}={value}", &key[key.len() - 2..])).collect::<Vec<_>>()
        };
        let (first, second) = ("1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z");
        assert_eq!(written(&[], 1), [format!("K2={first}")], "a foreign key gets no tag");
        assert_eq!(written(&[("K1", first)], 2), [format!("K1={first}/{second}"), format!("K2={second}")]);
        let closed = format!("{first}/{second}");
        assert_eq!(written(&[("K1", &closed)], 3), ["K2=1970-01-01T00:00:03Z"], "an earlier end stays");
        let again = written(&[("K1", &closed), ("K2", second)], 3);
        assert_eq!(again, ["K1=1970-01-01T00:00:01Z/1970-01-01T00:00:03Z", "K2=1970-01-01T00:00:03Z"]);
    }
}
