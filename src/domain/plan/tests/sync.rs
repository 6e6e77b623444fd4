//! Set differences of user, policies, groups and tags, for any declared and any found state.

use proptest::{
    collection::{btree_map, btree_set},
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::Value;

use super::*;
use crate::domain::policy;

const QUARANTINE: &str = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";

fn arns() -> impl Strategy<Value = BTreeSet<String>> {
    btree_set("arn:aws:iam::aws:policy/[A-F]", 0..6)
}

/// Documents of four meanings, each in several forms and lengths.
fn document() -> impl Strategy<Value = Value> {
    (0..4usize, any::<bool>(), 0..3usize).prop_map(|(meaning, listed, repeat)| {
        let action = "s3:GetObject".repeat(meaning + 1);
        let actions = if listed { json!(vec![action; repeat + 1]) } else { json!(action) };
        let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
        json!({"Version": "2012-10-17", "Statement": if listed { json!([statement]) } else { statement }})
    })
}

/// Keys that differ in more than case, in any case, as IAM holds them.
fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    let keys = subsequence(vec!["team", "cost", "note", "owner"], 0..=4);
    (keys, any::<u8>(), proptest::collection::vec(select(vec!["a", "b"]), 4)).prop_map(|(keys, case, values)| {
        let spelled =
            |number: usize, key: &str| if case >> number & 1 == 1 { key.to_uppercase() } else { key.to_owned() };
        keys.iter().enumerate().map(|(n, key)| (spelled(n, key), values[n].to_owned())).collect()
    })
}

fn groups() -> impl Strategy<Value = BTreeSet<String>> {
    (subsequence(vec!["one", "two", "three", "four"], 0..=4), any::<bool>()).prop_map(|(groups, upper)| {
        groups.iter().map(|group| if upper { group.to_uppercase() } else { (*group).to_owned() }).collect()
    })
}

prop_compose! {
    fn any_case()(
        (declared_arns, found_arns, quarantined) in (arns(), arns(), any::<bool>()),
        declared_inline in btree_map("[a-d]", document(), 0..4),
        found_inline in btree_map("[a-d]", document(), 0..4),
        (declared_groups, found_groups) in (groups(), groups()),
        (declared_tags, found_tags, reported) in (tags(), tags(), tags()),
        (declared_boundary, found_boundary) in (proptest::option::of("[AB]"), proptest::option::of("[ABC]")),
    ) -> Case {
        idle()
            .current(|current| current.hints.tag_keys = reported.into_keys().chain(declared_tags.keys().cloned()).collect())
            .desired(|desired| {
                (desired.attached, desired.inline, desired.groups) = (declared_arns, declared_inline, declared_groups);
                desired.tags.extend(declared_tags);
                desired.boundary = declared_boundary;
            })
            .user(|user| {
                let mut attached = found_arns;
                attached.extend(quarantined.then(|| QUARANTINE.to_owned()));
                user.grants = Some(Grants { attached, inline: found_inline, groups: found_groups });
                user.tags.extend(found_tags);
                user.boundary = found_boundary;
            })
    }
}

/// What IAM does on such a call.
fn apply(user: &mut IamUser, effect: &Effect) {
    let grants = user.grants.as_mut().unwrap();
    match effect {
        Effect::PutBoundary(arn) => user.boundary = Some(arn.clone()),
        Effect::AttachPolicy(arn) => assert!(grants.attached.insert(arn.clone()), "{effect} for nothing"),
        Effect::DetachPolicy(arn) => assert!(grants.attached.remove(arn), "{effect} for nothing"),
        Effect::PutInlinePolicy(name, document) => {
            let before = grants.inline.insert(name.clone(), document.clone());
            assert!(before.is_none_or(|before| !policy::is_equivalent(&before, document)), "{effect} for nothing");
        }
        Effect::DeleteInlinePolicy(name) => assert!(grants.inline.remove(name).is_some(), "{effect} for nothing"),
        Effect::AddToGroup(group) => assert!(grants.groups.insert(group.clone()), "{effect} for nothing"),
        Effect::RemoveFromGroup(group) => assert!(grants.groups.remove(group), "{effect} for nothing"),
        Effect::TagUser(tags) => {
            for (key, value) in tags {
                user.tags.retain(|other, _| !other.eq_ignore_ascii_case(key));
                user.tags.insert(key.clone(), value.clone());
            }
        }
        Effect::UntagUser(keys) => user.tags.retain(|key, _| !keys.iter().any(|gone| gone.eq_ignore_ascii_case(key))),
        other => panic!("{other} is no difference of sets"),
    }
}

fn lower(names: &BTreeSet<String>) -> BTreeSet<String> {
    names.iter().map(|name| name.to_lowercase()).collect()
}

fn value<'a>(tags: &'a BTreeMap<String, String>, wanted: &str) -> Option<&'a String> {
    tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}

fn inline_size(grants: &Grants) -> usize {
    grants.inline.values().map(policy::counted_characters).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn planned_effects_converge_to_the_spec(case in any_case()) {
        let found = case.current.user().unwrap().clone();
        let mut after = case.clone();
        for effect in case.plan().effects {
            after = after.user(|user| apply(user, &effect));
        }
        let (user, declared) = (after.current.user().unwrap(), &case.desired);
        let (grants, before) = (user.grants.as_ref().unwrap(), found.grants.as_ref().unwrap());

        let mut attached = declared.attached.clone();
        attached.extend(before.attached.iter().filter(|arn| policy::is_quarantine(arn)).cloned());
        prop_assert_eq!(&grants.attached, &attached, "the quarantine survives, and nothing else");
        prop_assert_eq!(grants.inline.keys().collect::<Vec<_>>(), declared.inline.keys().collect::<Vec<_>>());
        for (name, document) in &declared.inline {
            prop_assert!(policy::is_equivalent(document, &grants.inline[name]), "{}", name);
        }
        prop_assert_eq!(lower(&grants.groups), lower(&declared.groups));
        prop_assert_eq!(&user.boundary, &declared.boundary.clone().or(found.boundary.clone()));
        for (key, declared) in &declared.tags {
            prop_assert_eq!(value(&user.tags, key), Some(declared), "{}", key);
        }
        for (key, theirs) in &found.tags {
            if value(&declared.tags, key).is_none() {
                let survives = !lower(&case.current.hints.tag_keys).contains(&key.to_lowercase());
                prop_assert_eq!(user.tags.get(key), survives.then_some(theirs), "{} of another owner", key);
            }
        }
        prop_assert_eq!(after.plan().effects, []);
    }

    #[test]
    fn permissions_shrink_before_they_grow_within_quotas(case in any_case()) {
        let effects = case.plan().effects;
        let rank = |effect: &Effect| match effect {
            Effect::PutBoundary(_) => 0,
            Effect::DetachPolicy(_) | Effect::DeleteInlinePolicy(_) | Effect::RemoveFromGroup(_) => 1,
            Effect::TagUser(_) | Effect::UntagUser(_) => 2,
            _ => 3,
        };
        let ranks: Vec<_> = effects.iter().map(rank).collect();
        prop_assert!(ranks.is_sorted(), "{:?}", effects);
        let sizes = |case: &Case| {
            let grants = case.current.user().unwrap().grants.clone().unwrap();
            [grants.attached.len(), grants.groups.len(), inline_size(&grants)]
        };
        let mut steps = vec![sizes(&case)];
        let mut now = case;
        for effect in &effects {
            now = now.user(|user| apply(user, effect));
            steps.push(sizes(&now));
        }
        let (first, last) = (steps[0], steps[steps.len() - 1]);
        for step in steps {
            for quota in 0..3 {
                prop_assert!(step[quota] <= first[quota].max(last[quota]), "{:?} between {:?} and {:?}", step, first, last);
            }
        }
    }

    #[test]
    fn sync_writes_no_more_than_the_differences(case in any_case()) {
        let (user, declared) = (case.current.user().unwrap(), &case.desired);
        let grants = user.grants.as_ref().unwrap();
        let theirs = grants.attached.iter().filter(|arn| !policy::is_quarantine(arn)).cloned().collect::<BTreeSet<_>>();
        let names = |inline: &BTreeMap<String, Value>| inline.keys().cloned().collect::<BTreeSet<_>>();
        let changed = |name: &&String| {
            grants.inline.get(*name).zip(declared.inline.get(*name)).is_some_and(|(l, r)| !policy::is_equivalent(l, r))
        };
        let set = declared.tags.iter().any(|(key, declared)| value(&user.tags, key) != Some(declared));
        let unset = user.tags.keys().any(|key| {
            lower(&case.current.hints.tag_keys).contains(&key.to_lowercase()) && value(&declared.tags, key).is_none()
        });
        let wanted = theirs.symmetric_difference(&declared.attached).count()
            + names(&grants.inline).symmetric_difference(&names(&declared.inline)).count()
            + grants.inline.keys().filter(changed).count()
            + lower(&grants.groups).symmetric_difference(&lower(&declared.groups)).count()
            + usize::from(set)
            + usize::from(unset)
            + usize::from(declared.boundary.is_some() && declared.boundary != user.boundary);
        prop_assert_eq!(case.plan().effects.len(), wanted, "{:#?}", case.plan().effects);
    }
}
