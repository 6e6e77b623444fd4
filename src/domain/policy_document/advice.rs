//! Warnings from the list of AWS services: names that no service has, and resources that no action applies to.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Map, Value};

use super::{
    Findings, arn, grammar, quote,
    service_reference::{self, AwsService, KnownAction},
};

/// Names at a greater distance are no misspellings of each other.
const MAX_DISTANCE: usize = 3;
/// ARN formats that a warning names.
const MAX_FORMATS: usize = 3;
/// Comparisons of a resource with an ARN format, per statement. A statement that needs more is not checked.
const MAX_COMPARISONS: usize = 20_000;
/// Actions that all patterns of a document match. Documents are text of tenants, and each match is held in memory: the resources
/// of a document that exceeds it are not checked.
const MAX_MATCHES: usize = 4_000;
/// Patterns with wildcards of a document that are looked up, each in all actions of a service.
const MAX_PATTERNS: usize = 300;

/// Warns about a document without grammatical errors.
pub(super) fn check(document: &Value, findings: &mut Findings) {
    let mut services = Services::default();
    for (place, statement) in grammar::statements(document) {
        let actions = services.check_actions(statement, &place, findings);
        services.check_keys(statement, &place, findings);
        if let Some(actions) = actions {
            check_resources(statement, &place, &actions, findings);
        }
    }
}

/// The services that a document names, decoded once, and what may still be looked up for it.
struct Services {
    decoded: BTreeMap<String, Option<AwsService>>,
    matches_left: usize,
    patterns_left: usize,
}

impl Default for Services {
    fn default() -> Self {
        Self { decoded: BTreeMap::new(), matches_left: MAX_MATCHES, patterns_left: MAX_PATTERNS }
    }
}

/// An action of a statement and what it matches.
struct DeclaredAction<'a> {
    place: String,
    text: &'a str,
    matched: Vec<KnownAction>,
}

impl Services {
    fn find(&mut self, prefix: &str) -> Option<&AwsService> {
        self.decoded.entry(prefix.to_lowercase()).or_insert_with_key(|prefix| AwsService::find(prefix)).as_ref()
    }

    /// Warns about actions that do not exist. `None` if the list of services does not say what the statement applies to.
    fn check_actions<'a>(
        &mut self,
        statement: &'a Map<String, Value>,
        place: &str,
        findings: &mut Findings,
    ) -> Option<Vec<DeclaredAction<'a>>> {
        for (place, action) in grammar::texts(statement, place, "NotAction") {
            self.find_actions(action, &place, findings);
        }
        let mut found = Some(Vec::new());
        for (place, text) in grammar::texts(statement, place, "Action") {
            match (self.find_actions(text, &place, findings), &mut found) {
                (Some(matched), Some(actions)) => actions.push(DeclaredAction { place, text, matched }),
                (None, _) => found = None,
                (Some(_), None) => {}
            }
        }
        found.filter(|actions| !actions.is_empty())
    }

    /// The actions that a pattern matches. `None` with a warning if there are none, and without one for all services.
    fn find_actions(&mut self, pattern: &str, place: &str, findings: &mut Findings) -> Option<Vec<KnownAction>> {
        let (prefix, name) = pattern.split_once(':')?;
        if prefix == "*" || findings.is_full() {
            return None;
        }
        let as_of = format!("(AWS services as of {})", service_reference::month());
        if self.find(prefix).is_none() {
            let near = nearest(prefix, service_reference::prefixes());
            let hint = near.map(|near| format!("; did you mean {}?", quote(&format!("{near}:{name}"))));
            let message =
                format!("no AWS service has the prefix {} {as_of}{}", quote(prefix), hint.unwrap_or_default());
            findings.warn(place, message);
            return None;
        }
        let is_pattern = name.contains(['*', '?']);
        if is_pattern {
            self.patterns_left = self.patterns_left.checked_sub(1)?;
        }
        let lower = name.to_lowercase();
        // Looked up again: the count above borrows the whole.
        let service = self.find(prefix)?;
        let found = service.find_actions(|known| {
            if is_pattern { is_match(lower.as_bytes(), known) } else { known.eq_ignore_ascii_case(name) }
        });
        if !found.is_empty() {
            self.matches_left = self.matches_left.checked_sub(found.len())?;
            return Some(found);
        }
        let prefix = service.prefix();
        let message = if is_pattern {
            format!("{} matches no action of {prefix} {as_of}, so it has no effect", quote(pattern))
        } else {
            let hint = nearest(name, service.actions()).map(|near| format!("{prefix}:{near}"));
            let hint = hint.or_else(|| elsewhere(name)).map(|near| format!("; did you mean {near}?"));
            let name = quote(name);
            format!("{prefix} has no action {name} {as_of}, so it has no effect{}", hint.unwrap_or_default())
        };
        findings.warn(place, message);
        None
    }

    fn check_keys(&mut self, statement: &Map<String, Value>, place: &str, findings: &mut Findings) {
        let operators = grammar::element(statement, "Condition").and_then(Value::as_object);
        for (operator, keys) in operators.into_iter().flatten() {
            for key in keys.as_object().into_iter().flat_map(Map::keys) {
                if !findings.is_full()
                    && let Some(message) = self.unknown_key(key)
                {
                    findings.warn(&format!("{place}.Condition.{operator}"), format!("{}: {message}", quote(key)));
                }
            }
        }
    }

    /// What is wrong with a condition key that no service has.
    fn unknown_key(&mut self, key: &str) -> Option<String> {
        let Some((prefix, _)) = key.split_once(':') else {
            return Some("a condition key has the form <service>:<name>, such as aws:RequestedRegion".to_owned());
        };
        // Keys of identity providers, such as accounts.google.com:sub.
        if prefix.contains('.') || service_reference::is_global_key(key) {
            return None;
        }
        let service = self.find(prefix);
        if service.is_some_and(|service| service.has_key(key)) {
            return None;
        }
        let own = service.into_iter().flat_map(AwsService::keys);
        let known: Vec<String> = own.chain(service_reference::global_keys().map(str::to_owned)).collect();
        let near = nearest(key, known.iter().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let month = service_reference::month();
        Some(format!(
            "no AWS service has this condition key (AWS services as of {month}), so it is missing in requests{hint}"
        ))
    }
}

/// The same action of another service.
fn elsewhere(name: &str) -> Option<String> {
    let mut found = AwsService::all().filter_map(|service| {
        let action = service.actions().find(|known| known.eq_ignore_ascii_case(name)).map(str::to_owned);
        action.map(|action| format!("{}:{action}", service.prefix()))
    });
    let first = found.next();
    // More than one would be a guess.
    first.filter(|_| found.next().is_none())
}

/// Whether a pattern in lower case matches the name of an action.
fn is_match(pattern: &[u8], name: &str) -> bool {
    let name = name.to_lowercase();
    let text = name.as_bytes();
    // The place after the last `*`, and the first character that it leaves to the rest of the pattern.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The name that differs least, if it is near enough to be what was meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    let limit = MAX_DISTANCE.min(length / 3);
    let similar = known.filter(|known| known.len().abs_diff(length) <= limit);
    let distances = similar.map(|known| (strsim::osa_distance(&name, &known.to_lowercase()), known));
    distances.filter(|(distance, _)| *distance <= limit).min().map(|(_, known)| known.to_owned())
}

fn check_resources(
    statement: &Map<String, Value>,
    place: &str,
    actions: &[DeclaredAction<'_>],
    findings: &mut Findings,
) {
    let resources = grammar::texts(statement, place, "Resource");
    let matched: Vec<&KnownAction> = actions.iter().flat_map(|action| &action.matched).collect();
    if resources.is_empty() || matched.iter().any(|action| action.formats.is_none()) {
        return;
    }
    let formats: BTreeSet<&str> = matched.iter().flat_map(|action| formats_of(action)).collect();
    if formats.len() * resources.len() > MAX_COMPARISONS {
        return;
    }
    // The formats that a resource of the statement can have.
    let mut used = BTreeSet::new();
    let all_needed = OnceCell::new();
    for (place, resource) in resources.iter().filter(|(_, resource)| *resource != "*") {
        if findings.is_full() {
            return;
        }
        let overlapping: Vec<&str> = formats.iter().copied().filter(|format| arn::overlaps(format, resource)).collect();
        if overlapping.is_empty() {
            let needed = all_needed.get_or_init(|| needed(matched.iter().copied()));
            findings.warn(place, format!("no action of the statement applies to {}; {needed}", quote(resource)));
        }
        used.extend(overlapping);
    }
    if resources.iter().any(|(_, resource)| *resource == "*") {
        return;
    }
    for action in actions {
        if findings.is_full() {
            return;
        }
        if !action.matched.iter().flat_map(formats_of).any(|format| used.contains(format)) {
            let needed = needed(action.matched.iter());
            let text = quote(action.text);
            findings.warn(&action.place, format!("{text} applies to no Resource of the statement; {needed}"));
        }
    }
}

fn formats_of(action: &KnownAction) -> impl Iterator<Item = &str> {
    action.formats.iter().flatten().map(String::as_str)
}

/// The resources that the actions apply to.
fn needed<'a>(actions: impl Iterator<Item = &'a KnownAction>) -> String {
    let (mut names, mut seen) = (Vec::new(), BTreeSet::new());
    for action in actions {
        let own: Vec<&str> = formats_of(action).collect();
        for format in if own.is_empty() { vec!["*"] } else { own } {
            if seen.insert(format) {
                names.push(format.replace('%', "*"));
            }
        }
    }
    let others = names.len().saturating_sub(MAX_FORMATS);
    names.truncate(MAX_FORMATS);
    let more = if others > 0 { format!(" and {others} other types") } else { String::new() };
    let month = service_reference::month();
    format!("it needs {}{more} (AWS services as of {month})", names.join(", "))
}
