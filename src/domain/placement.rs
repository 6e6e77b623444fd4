//! Which documents of a resource become inline policies, and which become managed policies of the resource.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::Value;

use super::policy::{MAX_INLINE_CHARACTERS, MAX_MANAGED_CHARACTERS, counted_characters};
use crate::api::user::DocumentPlacement;

/// A document with the placement that the resource declares.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedDocument<'a> {
    pub name: &'a str,
    pub document: &'a Value,
    pub placement: DocumentPlacement,
}

/// Documents by name. It depends on nothing but the spec, so that it is the same in every reconcile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    pub inline: BTreeMap<String, Value>,
    pub managed: BTreeMap<String, Value>,
}

/// Places documents: `Auto` keeps them inline while all inline documents together fit; otherwise the largest ones become managed
/// until the rest fits, of equal ones the first by name.
#[must_use]
pub fn place(documents: &[PlacedDocument<'_>]) -> Placement {
    let size = |document: &PlacedDocument<'_>| counted_characters(document.document);
    let (managed, inline): (Vec<_>, Vec<_>) =
        documents.iter().partition(|document| document.placement == DocumentPlacement::Managed);
    let mut total: usize = inline.iter().map(|document| size(document)).sum();
    let mut movable: Vec<_> =
        inline.iter().filter(|document| document.placement == DocumentPlacement::Auto).copied().collect();
    movable.sort_by_key(|document| (Reverse(size(document)), document.name));
    let mut moved = Vec::new();
    for document in movable {
        if total <= MAX_INLINE_CHARACTERS {
            break;
        }
        total = total.saturating_sub(size(document));
        moved.push(document);
    }
    let entry = |document: &PlacedDocument<'_>| (document.name.to_owned(), document.document.clone());
    let is_moved = |document: &PlacedDocument<'_>| moved.iter().any(|moved| moved.name == document.name);
    Placement {
        inline: inline.iter().filter(|document| !is_moved(document)).map(|document| entry(document)).collect(),
        managed: managed.iter().chain(&moved).map(|document| entry(document)).collect(),
    }
}

impl Placement {
    /// Limits of IAM for sizes that are exceeded, with the documents that exceed them.
    #[must_use]
    pub fn size_violations(&self) -> Vec<String> {
        let sizes: BTreeMap<&String, usize> =
            self.inline.iter().map(|(name, document)| (name, counted_characters(document))).collect();
        let total: usize = sizes.values().sum();
        let listed = || sizes.iter().map(|(name, size)| format!("{name} {size}")).collect::<Vec<_>>().join(", ");
        let inline = (total > MAX_INLINE_CHARACTERS).then(|| {
            format!(
                "the inline documents have {total} characters in total ({}), IAM allows {MAX_INLINE_CHARACTERS} per user (without white space); set `as: Managed`, or leave it out, for the largest of them",
                listed()
            )
        });
        let managed = self.managed.iter().filter_map(|(name, document)| {
            let size = counted_characters(document);
            (size > MAX_MANAGED_CHARACTERS).then(|| {
                format!(
                    "the document {name} has {size} characters, IAM allows {MAX_MANAGED_CHARACTERS} in a managed policy (without white space); split it into several documents"
                )
            })
        });
        inline.into_iter().chain(managed).collect()
    }
}

#[cfg(test)]
mod tests {
    use DocumentPlacement::{Auto, Inline, Managed};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A document of this number of counted characters.
    fn sized(size: usize) -> Value {
        const EMPTY: usize = r#"{"Sid":""}"#.len();
        json!({"Sid": "x".repeat(size - EMPTY)})
    }

    fn placed(documents: &[(&'static str, usize, DocumentPlacement)]) -> Placement {
        let documents: Vec<_> =
            documents.iter().map(|(name, size, placement)| (name, sized(*size), *placement)).collect();
        let borrowed = documents.iter().map(|(name, document, placement)| PlacedDocument {
            name,
            document,
            placement: *placement,
        });
        place(&borrowed.collect::<Vec<_>>())
    }

    /// Names of inline and of managed documents.
    fn names(documents: &[(&'static str, usize, DocumentPlacement)]) -> (Vec<String>, Vec<String>) {
        let placement = placed(documents);
        (placement.inline.into_keys().collect(), placement.managed.into_keys().collect())
    }

    #[test]
    fn largest_documents_become_managed_until_the_rest_fits() {
        let expect = |documents: &[(&'static str, usize, DocumentPlacement)], inline: &[&str], managed: &[&str]| {
            let (left, right) = names(documents);
            assert_eq!((left.as_slice(), right.as_slice()), (&*owned(inline), &*owned(managed)), "{documents:?}");
        };
        expect(&[], &[], &[]);
        expect(&[("a", 2048, Auto)], &["a"], &[]);
        expect(&[("a", 2049, Auto)], &[], &["a"]);
        expect(&[("a", 1024, Auto), ("b", 1024, Auto)], &["a", "b"], &[]);
        expect(&[("a", 1000, Auto), ("b", 1049, Auto)], &["a"], &["b"]);
        expect(&[("b", 1500, Auto), ("a", 1500, Auto)], &["b"], &["a"]);
        expect(&[("a", 700, Auto), ("b", 800, Auto), ("c", 900, Auto)], &["a", "b"], &["c"]);
        expect(&[("a", 100, Auto), ("b", 1500, Auto), ("c", 1900, Inline)], &["a", "c"], &["b"]);
        expect(&[("a", 100, Managed), ("b", 2048, Auto)], &["b"], &["a"]);
        expect(&[("a", 2000, Inline), ("b", 2000, Inline)], &["a", "b"], &[]);
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn exceeded_size_names_limit_and_document() {
        let violations = |documents: &[_]| placed(documents).size_violations();
        assert_eq!(violations(&[("a", 2048, Inline), ("b", 6144, Managed)]), [""; 0]);
        let found = violations(&[("a", 2049, Inline), ("b", 6145, Auto)]);
        let [inline, managed] = &found[..] else { panic!("{found:?}") };
        assert!(inline.contains("2049 characters in total (a 2049), IAM allows 2048"), "{inline}");
        assert!(managed.contains("the document b has 6145 characters, IAM allows 6144"), "{managed}");
    }

    proptest! {
        #[test]
        fn every_document_is_placed_once_and_as_declared(
            declared in proptest::collection::btree_map("[a-e]", (10_usize..4000, 0..3_u8), 0..5)
        ) {
            let placement = |number: u8| [Auto, Inline, Managed][usize::from(number)];
            let documents: Vec<_> = declared.iter().map(|(name, (size, number))| (name, sized(*size), placement(*number))).collect();
            let mut borrowed: Vec<_> = documents.iter()
                .map(|(name, document, placement)| PlacedDocument { name, document, placement: *placement }).collect();
            let placed = place(&borrowed);
            borrowed.reverse();
            prop_assert_eq!(&placed, &place(&borrowed), "the order of the spec does not matter");
            let movable = borrowed.iter().any(|document| document.placement == Auto && placed.inline.contains_key(document.name));
            let total: usize = placed.inline.values().map(counted_characters).sum();
            prop_assert!(total <= MAX_INLINE_CHARACTERS || !movable, "{total}");
            for document in borrowed {
                let is = (placed.inline.contains_key(document.name), placed.managed.contains_key(document.name));
                let is_as_declared = match document.placement {
                    Auto => is.0 != is.1,
                    Inline => is == (true, false),
                    Managed => is == (false, true),
                };
                prop_assert!(is_as_declared, "{}: {:?}", document.name, is);
            }
        }
    }
}
