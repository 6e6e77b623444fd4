//! Ownership tags of IAM users.

use std::{collections::BTreeMap, fmt};

use crate::api::well_known;

/// Quota of IAM for tags per user.
pub const MAX_TAGS_PER_USER: usize = 50;

/// Owner of an IAM user, as recorded in its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Cluster id: the UID of the namespace `kube-system`, or `--cluster-id`.
    pub cluster: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Ownership of an IAM user, from its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    Ours,
    /// The user has no ownership tag.
    Untagged,
    /// Another resource owns the user; the text names it if it is in the same namespace.
    Other(String),
}

impl Owner {
    /// The four ownership tags.
    #[must_use]
    pub fn tags(&self) -> BTreeMap<String, String> {
        [
            (well_known::TAG_CLUSTER, &self.cluster),
            (well_known::TAG_NAMESPACE, &self.namespace),
            (well_known::TAG_NAME, &self.name),
            (well_known::TAG_UID, &self.uid),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
    }

    /// Whether the tags name this cluster.
    #[must_use]
    pub fn is_in_same_cluster(&self, tags: &BTreeMap<String, String>) -> bool {
        tag_value(tags, well_known::TAG_CLUSTER) == Some(&self.cluster)
    }

    /// Name and UID of the other resource of the same namespace that the tags name.
    #[must_use]
    pub fn neighbour<'a>(&self, tags: &'a BTreeMap<String, String>) -> Option<(&'a str, &'a str)> {
        let is_in_namespace = tag_value(tags, well_known::TAG_NAMESPACE) == Some(&self.namespace);
        let uid = tag_value(tags, well_known::TAG_UID).filter(|uid| *uid != self.uid)?;
        (self.is_in_same_cluster(tags) && is_in_namespace)
            .then_some(())
            .and_then(|()| Some((tag_value(tags, well_known::TAG_NAME)?, uid)))
    }

    /// Value of the tag `awsdeploy.dev/adoptable-by` that lets this resource adopt a user. Namespaces and names contain no
    /// slash, so that a value identifies one resource of one cluster.
    #[must_use]
    pub fn adoptable_by(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.namespace, self.name)
    }

    /// Whether the tags of a user name this resource, see [`Self::classify`].
    #[must_use]
    pub fn owns(&self, tags: &BTreeMap<String, String>) -> bool {
        self.classify(tags) == Ownership::Ours
    }

    /// Determines the ownership of a user from its tags. All four tags must match: a user of another cluster, of an earlier
    /// resource of the same name, or with incomplete tags has another owner. Ignores the case of keys, as IAM does.
    #[must_use]
    pub fn classify(&self, tags: &BTreeMap<String, String>) -> Ownership {
        let get = |wanted: &str| tag_value(tags, wanted);
        let own_tags = self.tags();
        if own_tags.iter().all(|(key, value)| get(key) == Some(value)) {
            return Ownership::Ours;
        }
        if own_tags.keys().all(|key| get(key).is_none()) {
            return Ownership::Untagged;
        }
        let is_own = |key: &str, value: &str| get(key) == Some(value);
        let in_namespace =
            is_own(well_known::TAG_CLUSTER, &self.cluster) && is_own(well_known::TAG_NAMESPACE, &self.namespace);
        Ownership::Other(match (in_namespace, get(well_known::TAG_NAME)) {
            (true, Some(name)) if *name == self.name => {
                let uid = get(well_known::TAG_UID).unwrap_or("unknown");
                format!("an earlier AwsDeployUser {}/{name} (uid {uid})", self.namespace)
            }
            (true, Some(name)) => format!("AwsDeployUser {}/{name}", self.namespace),
            _ => "another owner".to_owned(),
        })
    }
}

/// Cluster, namespace, name and UID that the ownership tags name, for the operator's log. Authors of resources must not learn
/// who uses which user in other namespaces.
#[must_use]
pub fn named_owner(tags: &BTreeMap<String, String>) -> String {
    [well_known::TAG_CLUSTER, well_known::TAG_NAMESPACE, well_known::TAG_NAME, well_known::TAG_UID]
        .map(|wanted| tag_value(tags, wanted).unwrap_or("none"))
        .join("/")
}

/// Value of a tag. IAM ignores the case of keys.
pub(super) fn tag_value<'a>(tags: &'a BTreeMap<String, String>, wanted: &str) -> Option<&'a str> {
    tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a text has the form of an access key id. Text that tenants can write becomes part of tag keys and of calls only if
/// it has: `awsdeploy.dev/uid` is no key id.
#[must_use]
pub fn is_access_key_id(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// IAM tag of an access key that the operator created and published.
#[must_use]
pub fn key_tag(key_id: &str) -> String {
    format!("{}{key_id}", well_known::TAG_KEY_PREFIX)
}

/// Id of the access key that a tag of this name marks.
#[must_use]
pub fn tagged_key_id(tag: &str) -> Option<&str> {
    tag.strip_prefix(well_known::TAG_KEY_PREFIX)
}

/// Truncates a resource name to a valid label value: at most 63 characters, with a letter or digit at the end.
#[must_use]
pub fn label_value(name: &str) -> String {
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { cluster: "c".into(), namespace: "deploy".into(), name: "cycle".into(), uid: "u1".into() }
    }

    #[test]
    fn user_is_owned_only_if_all_four_tags_match() {
        let ours = owner();
        assert_eq!(ours.classify(&ours.tags()), Ownership::Ours);
        assert_eq!(ours.classify(&BTreeMap::new()), Ownership::Untagged);
        for (change, expected) in [
            (Owner { uid: "u0".into(), ..owner() }, "an earlier AwsDeployUser deploy/cycle (uid u0)"),
            (Owner { name: "other".into(), ..owner() }, "AwsDeployUser deploy/other"),
        ] {
            assert_eq!(ours.classify(&change.tags()), Ownership::Other(expected.to_owned()));
        }
    }

    #[test]
    fn owner_in_another_namespace_is_named_only_in_the_log() {
        let ours = owner();
        let secret = |name: &str| format!("their-{name}");
        for other in [
            Owner { namespace: secret("namespace"), ..owner() },
            Owner { namespace: secret("namespace"), name: secret("name"), uid: secret("uid"), ..owner() },
            Owner { cluster: secret("cluster"), uid: secret("uid"), ..owner() },
        ] {
            assert_eq!(ours.classify(&other.tags()), Ownership::Other("another owner".to_owned()));
            let named = named_owner(&other.tags());
            assert_eq!(named, [other.cluster, other.namespace, other.name, other.uid].join("/"));
        }
        assert_eq!(named_owner(&BTreeMap::new()), "none/none/none/none");
    }

    #[test]
    fn incomplete_tags_are_not_adoptable_and_case_is_ignored() {
        let ours = owner();
        for key in ours.tags().keys() {
            let mut tags = ours.tags();
            tags.remove(key);
            assert!(matches!(ours.classify(&tags), Ownership::Other(_)), "without {key}");
            assert!(matches!(
                ours.classify(&BTreeMap::from([(key.to_uppercase(), "x".to_owned())])),
                Ownership::Other(_)
            ));
        }
        let upper: BTreeMap<_, _> = ours.tags().into_iter().map(|(key, value)| (key.to_uppercase(), value)).collect();
        assert_eq!(ours.classify(&upper), Ownership::Ours);
    }

    #[test]
    fn only_texts_of_the_form_of_aws_are_access_key_ids() {
        for id in ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE", &"A".repeat(16), &"A".repeat(128)] {
            assert!(is_access_key_id(id), "{id}");
        }
        for text in ["", "AKIA", "awsdeploy.dev/uid", "akiaiosfodnn7example", "AKIAIOSFODNN7EXAMPLÉ", &"A".repeat(129)]
        {
            assert!(!is_access_key_id(text), "{text}");
        }
        for tag in owner().tags().keys() {
            assert!(!is_access_key_id(tag), "{tag}");
        }
    }

    #[test]
    fn adoption_consent_identifies_one_resource() {
        let value = |cluster: &str, namespace: &str, name: &str| {
            Owner { cluster: cluster.into(), namespace: namespace.into(), name: name.into(), uid: "u".into() }
                .adoptable_by()
        };
        assert_eq!(value("c", "deploy", "cycle"), "c/deploy/cycle");
        assert_ne!(value("c/a", "b", "x"), value("c", "a-b", "x"));
        assert_ne!(value("c", "ab", "c"), value("c", "a", "bc"));
    }

    #[test]
    fn description_tag_of_the_console_proves_no_ownership() {
        let tags = BTreeMap::from([("AKIAIOSFODNN7EXAMPLE".to_owned(), "Cycle".to_owned())]);
        assert_eq!(owner().classify(&tags), Ownership::Untagged);
    }

    #[test]
    fn only_another_resource_of_the_namespace_is_a_neighbour() {
        let ours = owner();
        let earlier = Owner { uid: "u0".into(), ..owner() };
        let renamed = Owner { uid: "u0".into(), name: "old".into(), ..owner() };
        assert_eq!(ours.neighbour(&earlier.tags()), Some(("cycle", "u0")));
        assert_eq!(ours.neighbour(&renamed.tags()), Some(("old", "u0")));
        for other in [
            owner(),
            Owner { namespace: "theirs".into(), uid: "u0".into(), ..owner() },
            Owner { cluster: "theirs".into(), uid: "u0".into(), ..owner() },
        ] {
            assert_eq!(ours.neighbour(&other.tags()), None, "{other:?}");
        }
        assert_eq!(ours.neighbour(&BTreeMap::new()), None);
    }
}
