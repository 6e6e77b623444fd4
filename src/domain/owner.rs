//! Who owns an IAM user: the marks that `CreateUser` carries, and how they are read back.

use std::{collections::BTreeMap, fmt};

use crate::api::well_known;

/// The `AwsDeployUser` that a pass works for, as it is written into IAM tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Id of the cluster: the UID of its `kube-system` namespace unless set by flag.
    pub cluster: String,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
    /// UID of the resource.
    pub uid: String,
}

/// What the tags of an existing IAM user say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It is ours.
    Ours,
    /// It carries no mark of this operator.
    Untagged,
    /// It belongs to another resource, named here for the message.
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

    /// Whether the tags are those of a user of this cluster.
    #[must_use]
    pub fn is_in_same_cluster(&self, tags: &BTreeMap<String, String>) -> bool {
        tags.iter().any(|(key, value)| key.eq_ignore_ascii_case(well_known::TAG_CLUSTER) && *value == self.cluster)
    }

    /// What an AWS admin writes into the tag `awsdeploy.dev/adoptable-by` of a user that this resource may take over.
    /// Namespace and name hold no slash, so one value means one resource of one cluster.
    #[must_use]
    pub fn adoptable_by(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.namespace, self.name)
    }

    /// Compares the tags of an existing user with ours. All four must agree: a user of another
    /// cluster, or of an earlier resource of the same name, is somebody else's. So is one that carries
    /// a part of the marks, whoever took the others away. Keys are compared as IAM does, ignoring case.
    #[must_use]
    pub fn classify(&self, tags: &BTreeMap<String, String>) -> Ownership {
        let get = |wanted: &str| {
            tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
        };
        let marks = self.tags();
        if marks.iter().all(|(key, value)| get(key) == Some(value)) {
            return Ownership::Ours;
        }
        if marks.keys().all(|key| get(key).is_none()) {
            return Ownership::Untagged;
        }
        let (Some(namespace), Some(name)) = (get(well_known::TAG_NAMESPACE), get(well_known::TAG_NAME)) else {
            let cluster = get(well_known::TAG_CLUSTER).unwrap_or("unknown");
            return Ownership::Other(format!("an AwsDeployUser whose marks are incomplete (cluster {cluster})"));
        };
        Ownership::Other(if get(well_known::TAG_CLUSTER) != Some(&self.cluster) {
            format!(
                "AwsDeployUser {namespace}/{name} of another cluster ({})",
                get(well_known::TAG_CLUSTER).unwrap_or("unknown")
            )
        } else if (namespace, name) == (&self.namespace, &self.name) {
            format!(
                "an earlier AwsDeployUser {namespace}/{name} (uid {})",
                get(well_known::TAG_UID).unwrap_or("unknown")
            )
        } else {
            format!("AwsDeployUser {namespace}/{name}")
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// The IAM tag that marks an access key as made and published by us.
#[must_use]
pub fn key_tag(key_id: &str) -> String {
    format!("{}{key_id}", well_known::TAG_KEY_PREFIX)
}

/// A resource name as a label value: at most 63 characters that end with a letter or digit.
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
    fn a_user_is_ours_only_when_all_four_marks_agree() {
        let ours = owner();
        assert_eq!(ours.classify(&ours.tags()), Ownership::Ours);
        assert_eq!(ours.classify(&BTreeMap::new()), Ownership::Untagged);
        for (change, told) in [
            (Owner { cluster: "d".into(), ..owner() }, "another cluster"),
            (Owner { uid: "u0".into(), ..owner() }, "earlier"),
            (Owner { name: "other".into(), ..owner() }, "deploy/other"),
        ] {
            match ours.classify(&change.tags()) {
                Ownership::Other(who) => assert!(who.contains(told), "{who}"),
                verdict => panic!("{verdict:?}"),
            }
        }
    }

    #[test]
    fn a_part_of_the_marks_is_not_nobodys_and_case_is_no_way_around_them() {
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
    fn no_two_resources_are_named_by_one_consent() {
        let value = |cluster: &str, namespace: &str, name: &str| {
            Owner { cluster: cluster.into(), namespace: namespace.into(), name: name.into(), uid: "u".into() }
                .adoptable_by()
        };
        assert_eq!(value("c", "deploy", "cycle"), "c/deploy/cycle");
        assert_ne!(value("c/a", "b", "x"), value("c", "a-b", "x"));
        assert_ne!(value("c", "ab", "c"), value("c", "a", "bc"));
    }

    #[test]
    fn the_consoles_description_tag_is_no_proof() {
        let tags = BTreeMap::from([("AKIAIOSFODNN7EXAMPLE".to_owned(), "Cycle".to_owned())]);
        assert_eq!(owner().classify(&tags), Ownership::Untagged);
    }
}
