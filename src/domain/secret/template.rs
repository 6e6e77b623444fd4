//! Templates of data keys: minijinja, held to values and filters.
//!
//! The writer of a template is not trusted, and its output is secret. So there is nothing to include or to call, no
//! loop or variable that makes a gigabyte of one line, and no operator that fails for one key and not for another:
//! a template that renders with one key renders with every key. What is wrong with it is told from its text alone,
//! before there is a key, and holds no value.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minijinja::{Environment, Error, UndefinedBehavior, Value, machinery::Token, syntax::SyntaxConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a value can be passed through.
pub const FILTERS: [&str; 3] = ["b64encode", "tojson", "urlencode"];
/// Filters in a row: each makes its input longer.
const FILTERS_IN_A_ROW: usize = 3;
/// Steps of one template: ten times what the longest one needs.
const FUEL: u64 = 1_000_000;
/// RFC 3986's unreserved characters stay, everything else is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Values by name. No `Debug`: some are secret.
pub type Values = BTreeMap<&'static str, String>;

/// What the lexer has just seen.
enum LexState {
    Text,
    Opening,
    Value { filters: usize },
    Pipe { filters: usize },
}

/// Checks a template against the names it may use. The error tells line and remedy.
///
/// # Errors
/// The first thing in it that is not text, a value or a filter.
pub fn check(text: &str, known: &[&str]) -> Result<(), String> {
    let mut seen = LexState::Text;
    for token in minijinja::machinery::tokenize(text, false, syntax()) {
        let (token, span) = token.map_err(|error| told(&error))?;
        let line = span.start_line;
        seen = match (seen, token) {
            (LexState::Text, Token::TemplateData(_)) | (LexState::Value { .. }, Token::VariableEnd) => LexState::Text,
            (LexState::Text, Token::VariableStart) => LexState::Opening,
            (_, Token::BlockStart) => {
                return Err(format!(
                    "line {line}: there are no statements ({{% ... %}}), only values such as {{{{ accessKeyId }}}}"
                ));
            }
            (LexState::Opening, Token::Str(_) | Token::String(_)) => LexState::Value { filters: 0 },
            (LexState::Opening, Token::Ident(name)) if known.contains(&name) => LexState::Value { filters: 0 },
            (LexState::Opening, Token::Ident(name)) => {
                return Err(format!("line {line}: {name:?} is not a value; there are {}", known.join(", ")));
            }
            (LexState::Value { filters }, Token::Pipe) if filters < FILTERS_IN_A_ROW => LexState::Pipe { filters },
            (LexState::Value { .. }, Token::Pipe) => {
                return Err(format!("line {line}: at most {FILTERS_IN_A_ROW} filters may follow each other"));
            }
            (LexState::Pipe { filters }, Token::Ident(name)) if FILTERS.contains(&name) => {
                LexState::Value { filters: filters + 1 }
            }
            (LexState::Pipe { .. }, Token::Ident(name)) => {
                return Err(format!("line {line}: {name:?} is not a filter; there are {}", FILTERS.join(", ")));
            }
            (_, token) => {
                return Err(format!(
                    "line {line}: {token} has no place here; between {{{{ and }}}} stands one value, with filters after |"
                ));
            }
        };
    }
    environment().template_from_str(text).map(drop).map_err(|error| told(&error))
}

/// Fills a template in. `None` for one that [`check`] refuses.
#[must_use]
pub fn render(text: &str, values: &Values) -> Option<String> {
    let known: Vec<&str> = values.keys().copied().collect();
    check(text, &known).ok()?;
    let values = Value::from_pairs(values.iter().map(|(name, value)| (*name, value.as_str())));
    environment().template_from_str(text).ok()?.render(values).ok()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_syntax(syntax());
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("b64encode", |text: String| STANDARD.encode(text));
    environment.add_filter("tojson", |text: String| serde_json::Value::String(text).to_string());
    environment.add_filter("urlencode", |text: String| utf8_percent_encode(&text, RESERVED).to_string());
    environment
}

/// Jinja takes a newline at the end away; a file may need it.
fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

/// The words of minijinja on a template's text. It has seen no value then.
fn told(error: &Error) -> String {
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

    fn values(secret: &str) -> Values {
        BTreeMap::from([
            ("accessKeyId", "AKIAIOSFODNN7EXAMPLE".to_owned()),
            ("region", "us-east-1".to_owned()),
            ("secretAccessKey", secret.to_owned()),
        ])
    }

    #[test]
    fn values_stand_where_they_are_named_and_all_else_stays() {
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
    fn whatever_else_minijinja_can_do_is_refused_with_its_line() {
        for (text, told) in [
            (
                "\n{{ secretKey }}",
                r#"line 2: "secretKey" is not a value; there are accessKeyId, region, secretAccessKey"#,
            ),
            ("{% for x in range(9) %}{% endfor %}", "line 1: there are no statements"),
            ("{% set x = accessKeyId %}", "there are no statements"),
            ("{% include 'x' %}", "there are no statements"),
            (r#"{{ "x" * 1000000000 }}"#, "`*` has no place here"),
            ("{{ accessKeyId ~ region }}", "`~` has no place here"),
            ("{{ accessKeyId.x }}", "`.` has no place here"),
            ("{{ accessKeyId[0] }}", "`[` has no place here"),
            ("{{ accessKeyId if region else x }}", "identifier has no place here"),
            ("{{ range(9) }}", "\"range\" is not a value"),
            ("{{ none }}", "\"none\" is not a value"),
            ("{{ 1 }}", "integer has no place here"),
            ("{{ region|upper }}", r#""upper" is not a filter; there are b64encode, tojson, urlencode"#),
            ("{{ region|tojson|tojson|tojson|tojson }}", "at most 3 filters"),
            ("{{ region", "line 1: "),
            ("{{ }}", "has no place here"),
            ("{{ region | }}", "has no place here"),
        ] {
            let error = check(text, &KNOWN).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
            assert_eq!(render(text, &values("a/b+c")), None, "{text}");
        }
    }

    proptest! {
        /// So that no key is lost to a template: what the check lets through is filled in, whatever the key.
        #[test]
        fn a_template_that_passes_the_check_takes_every_key(
            pieces in prop::collection::vec("\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}|accessKeyId|secretAccessKey|region|[|~*. \n\"'-]|tojson|urlencode|b64encode|raw|endraw|if|x", 0..12),
            secret in "[A-Za-z0-9/+]{40}",
        ) {
            let text = pieces.concat();
            prop_assert_eq!(check(&text, &KNOWN).is_ok(), render(&text, &values(&secret)).is_some());
        }
    }
}
