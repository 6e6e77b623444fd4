//! Templates of data keys: minijinja, restricted to values and filters.
//!
//! Templates are untrusted and their output is secret. Hence no includes and calls, no loops or variables that could exhaust
//! memory, and no operators that could fail depending on the value: a template that renders with one key renders with every
//! key. Errors follow from the text alone, before a key exists, and contain no value.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minijinja::{Environment, Error, UndefinedBehavior, Value, machinery::Token, syntax::SyntaxConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::secret::MAX_TEMPLATE_CHARS;

/// Supported filters.
pub const FILTERS: [&str; 3] = ["b64encode", "tojson", "urlencode"];
/// Each filter can lengthen its input.
const MAX_CHAINED_FILTERS: usize = 3;
/// Ten times what the longest template needs.
const MAX_INSTRUCTIONS: u64 = 1_000_000;
/// All characters except the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Values by name. Some are secret.
pub type RenderValues = BTreeMap<&'static str, String>;

/// State of the check: the last token.
enum LexState {
    Text,
    Opening,
    Value { filters: usize },
    Pipe { filters: usize },
}

/// Checks that a template contains only text, the `known` values and filters.
///
/// # Errors
/// The first violation, with its line.
pub fn check(text: &str, known: &[&str]) -> Result<(), String> {
    // Line and column numbers of minijinja overflow in megabytes of text.
    if text.chars().nth(MAX_TEMPLATE_CHARS as usize).is_some() {
        return Err(format!("at most {MAX_TEMPLATE_CHARS} characters are allowed"));
    }
    let mut seen = LexState::Text;
    for token in minijinja::machinery::tokenize(text, false, syntax()) {
        let (token, span) = token.map_err(|error| describe_error(&error))?;
        let line = span.start_line;
        seen = match (seen, token) {
            (LexState::Text, Token::TemplateData(_)) | (LexState::Value { .. }, Token::VariableEnd) => LexState::Text,
            (LexState::Text, Token::VariableStart) => LexState::Opening,
            (_, Token::BlockStart) => {
                return Err(format!(
                    "line {line}: statements ({{% ... %}}) are not supported, only values such as {{{{ accessKeyId }}}}"
                ));
            }
            (LexState::Opening, Token::Str(_) | Token::String(_)) => LexState::Value { filters: 0 },
            (LexState::Opening, Token::Ident(name)) if known.contains(&name) => LexState::Value { filters: 0 },
            (LexState::Opening, Token::Ident(name)) => {
                return Err(format!("line {line}: {name:?} is not a value; values are {}", known.join(", ")));
            }
            (LexState::Value { filters }, Token::Pipe) if filters < MAX_CHAINED_FILTERS => LexState::Pipe { filters },
            (LexState::Value { .. }, Token::Pipe) => {
                return Err(format!("line {line}: at most {MAX_CHAINED_FILTERS} filters can be chained"));
            }
            (LexState::Pipe { filters }, Token::Ident(name)) if FILTERS.contains(&name) => {
                LexState::Value { filters: filters + 1 }
            }
            (LexState::Pipe { .. }, Token::Ident(name)) => {
                return Err(format!("line {line}: {name:?} is not a filter; filters are {}", FILTERS.join(", ")));
            }
            (_, token) => {
                return Err(format!(
                    "line {line}: {token} is not allowed; use one value between {{{{ and }}}}, with filters after |"
                ));
            }
        };
    }
    environment().template_from_str(text).map(drop).map_err(|error| describe_error(&error))
}

/// Renders a template. `None` if [`check`] rejects it.
#[must_use]
pub fn render(text: &str, values: &RenderValues) -> Option<String> {
    let known: Vec<&str> = values.keys().copied().collect();
    check(text, &known).ok()?;
    let values = Value::from_pairs(values.iter().map(|(name, value)| (*name, value.as_str())));
    environment().template_from_str(text).ok()?.render(values).ok()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_syntax(syntax());
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    environment.add_filter("b64encode", |text: String| STANDARD.encode(text));
    environment.add_filter("tojson", |text: String| serde_json::Value::String(text).to_string());
    environment.add_filter("urlencode", |text: String| utf8_percent_encode(&text, RESERVED).to_string());
    environment
}

/// Keeps the trailing newline, which Jinja removes by default and files may need.
fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

/// Error of minijinja about the text of a template. No value was passed to it.
fn describe_error(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned);
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: [&str; 3] = ["accessKeyId", "region", "secretAccessKey"];

    fn values(secret: &str) -> RenderValues {
        BTreeMap::from([
            ("accessKeyId", "AKIAIOSFODNN7EXAMPLE".to_owned()),
            ("region", "us-east-1".to_owned()),
            ("secretAccessKey", secret.to_owned()),
        ])
    }

    #[test]
    fn values_are_replaced_and_other_text_is_kept() {
        for (text, filled) in [
            ("", ""),
            ("plain * text {x} \"y\"\n", "plain * text {x} \"y\"\n"),
            ("[default]\nid={{ accessKeyId }}\n\n", "[default]\nid=AKIAIOSFODNN7EXAMPLE\n\n"),
            ("{{accessKeyId}}:{{ region}}", "AKIAIOSFODNN7EXAMPLE:us-east-1"),
            ("a {# hidden #}b", "a b"),
            ("{% raw %}{{ kept }}{% endraw %}", "{{ kept }}"),
            (r#"{{ "{{" }}"#, "{{"),
            ("{{ secretAccessKey|b64encode }}", "YS9iK2M="),
            ("smtp://{{ secretAccessKey | urlencode }}@x", "smtp://a%2Fb%2Bc@x"),
            ("{\"k\": {{ secretAccessKey|tojson }}}", "{\"k\": \"a/b+c\"}"),
            ("{{ secretAccessKey|urlencode|b64encode|tojson }}", "\"YSUyRmIlMkJj\""),
        ] {
            assert_eq!(check(text, &KNOWN), Ok(()), "{text}");
            assert_eq!(render(text, &values("a/b+c")).as_deref(), Some(filled), "{text}");
        }
    }

    #[test]
    fn other_minijinja_syntax_is_rejected_with_its_line() {
        for (text, expected) in [
            (
                "\n{{ secretKey }}",
                r#"line 2: "secretKey" is not a value; values are accessKeyId, region, secretAccessKey"#,
            ),
            ("{% for x in range(9) %}{% endfor %}", "line 1: statements ({% ... %}) are not supported"),
            ("{% set x = accessKeyId %}", "are not supported"),
            ("{% include 'x' %}", "are not supported"),
            (r#"{{ "x" * 1000000000 }}"#, "`*` is not allowed"),
            ("{{ accessKeyId ~ region }}", "`~` is not allowed"),
            ("{{ accessKeyId.x }}", "`.` is not allowed"),
            ("{{ accessKeyId[0] }}", "`[` is not allowed"),
            ("{{ accessKeyId if region else x }}", "identifier is not allowed"),
            ("{{ range(9) }}", "\"range\" is not a value"),
            ("{{ none }}", "\"none\" is not a value"),
            ("{{ 1 }}", "integer is not allowed"),
            ("{{ region|upper }}", r#""upper" is not a filter; filters are b64encode, tojson, urlencode"#),
            ("{{ region|tojson|tojson|tojson|tojson }}", "at most 3 filters"),
            ("{{ region", "line 1: "),
            ("{{ }}", "is not allowed"),
            ("{{ region | }}", "is not allowed"),
            (&"\n".repeat(4_097), "at most 4096 characters"),
        ] {
            let error = check(text, &KNOWN).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert_eq!(render(text, &values("a/b+c")), None, "{text}");
        }
    }

    proptest! {
        /// So that no key is lost to a template: what the check lets through is filled in, whatever the key.
        #[test]
        fn checked_template_renders_with_every_key(
            pieces in prop::collection::vec("\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|accessKeyId|secretAccessKey|region|[|~*. \n\"'-]|tojson|urlencode|b64encode|raw|endraw|if|x", 0..12),
            secret in "[A-Za-z0-9/+]{40}",
        ) {
            let text = pieces.concat();
            prop_assert_eq!(check(&text, &KNOWN).is_ok(), render(&text, &values(&secret)).is_some());
        }
    }
}
