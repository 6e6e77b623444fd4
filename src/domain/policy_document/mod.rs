//! Checks of policy documents before IAM is called: errors that IAM refuses a document for, and warnings about what it
//! accepts but its author probably does not mean.
//!
//! An error is certain: a document without errors may still be refused, but none that IAM accepts is. Everything that depends
//! on the list of AWS services is a warning, because the list ages.

mod advice;
mod arn;
mod grammar;
mod service_reference;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

pub use service_reference::source as service_reference_source;

/// Errors of a document, and warnings of a resource. A check ends there: a document of a tenant must not cost more time.
const MAX_FINDINGS: usize = 10;
/// Characters of a document that a message quotes.
const MAX_QUOTED_CHARACTERS: usize = 80;
/// Characters of the place of a finding.
const MAX_PLACE_CHARACTERS: usize = 120;

/// What is wrong with a policy document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentFinding {
    /// Path in the document, such as `Statement[2].Condition.StringLike`. Empty for the document as a whole.
    pub place: String,
    pub message: String,
}

impl DocumentFinding {
    /// A place has the names of condition keys, which may be long.
    fn new(place: &str, message: String) -> Self {
        Self { place: place.chars().take(MAX_PLACE_CHARACTERS).collect(), message }
    }
}

impl fmt::Display for DocumentFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.place, self.message) }
    }
}

/// Findings by severity, in the order of the document.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<DocumentFinding>,
    warnings: Vec<DocumentFinding>,
}

impl Findings {
    fn error(&mut self, place: &str, message: impl Into<String>) {
        if !self.is_full() {
            self.errors.push(DocumentFinding::new(place, message.into()));
        }
    }

    fn warn(&mut self, place: &str, message: impl Into<String>) {
        if !self.is_full() {
            self.warnings.push(DocumentFinding::new(place, message.into()));
        }
    }

    /// More findings are not kept.
    fn is_full(&self) -> bool {
        self.errors.len().max(self.warnings.len()) > MAX_FINDINGS
    }
}

/// A part of a document in quotation marks, shortened.
fn quote(text: &str) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(MAX_QUOTED_CHARACTERS).collect();
    if characters.next().is_none() { format!("{start:?}") } else { format!("\"{}...\"", start.escape_debug()) }
}

/// Why IAM refuses the document as a policy of a user.
#[must_use]
pub fn errors(document: &Value) -> Vec<DocumentFinding> {
    grammar::check(document).errors
}

/// Why IAM refuses the document as a managed policy, although it accepts it as an inline one.
#[must_use]
pub fn managed_error(document: &Value) -> Option<DocumentFinding> {
    let message = || {
        format!(
            "it becomes a managed policy, which IAM accepts with Version \"{}\" only; set it. IAM replaces variables such as ${{aws:username}} then",
            grammar::CURRENT_VERSION
        )
    };
    grammar::has_old_version(document).then(|| DocumentFinding::new("Version", message()))
}

/// What the author of the document probably does not mean.
#[must_use]
pub fn warnings(document: &Value) -> Vec<DocumentFinding> {
    let mut findings = grammar::check(document);
    if findings.errors.is_empty() {
        advice::check(document, &mut findings);
    }
    findings.warnings
}

/// Warnings about all documents of a resource, which are given by name, as texts for status and Event.
#[must_use]
pub fn describe_warnings<'a>(documents: impl Iterator<Item = (&'a String, &'a Value)>) -> Vec<String> {
    let found = documents.flat_map(|(name, document)| {
        warnings(document).into_iter().map(move |warning| format!("document {name}: {warning}"))
    });
    // One more than is shown. The iterator checks no document after that.
    let mut texts: Vec<String> = found.take(MAX_FINDINGS + 1).collect();
    if let Some(last) = texts.get_mut(MAX_FINDINGS) {
        "more warnings are not shown".clone_into(last);
    }
    texts
}
