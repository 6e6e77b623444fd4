//! Reads fields of plain JSON objects for the auditor. Deliberately duplicates the product's formats instead of using
//! its code.

use jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use serde_json::Value;

const KEY_ID: &str = "awsdeploy.dev/access-key-id";
const PUBLISHED_AT: &str = "awsdeploy.dev/published-at";
/// The overlap of a resource that declares none.
pub(super) const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

pub(super) fn key_id(secret: &Value) -> Option<&str> {
    secret["metadata"]["annotations"][KEY_ID].as_str()
}

pub(super) fn published_at(secret: &Value) -> Option<Timestamp> {
    secret["metadata"]["annotations"][PUBLISHED_AT].as_str()?.parse().ok()
}

/// Every format in which a Secret holds its key: name of the data key, key ID, secret access key.
pub(super) fn forms(secret: &Value) -> Vec<(&'static str, String, String)> {
    let text = |name: &str| {
        let data = secret["data"][name].as_str()?;
        Some(String::from_utf8_lossy(&unbase64(data)).into_owned())
    };
    let trimmed = |text: Option<&str>| text.unwrap_or_default().trim().to_owned();
    let mut forms = Vec::new();
    let (id, value) = (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY"));
    if id.is_some() || value.is_some() {
        forms.push(("AWS_ACCESS_KEY_ID", id.unwrap_or_default(), value.unwrap_or_default()));
    }
    if let Some(file) = text("credentials") {
        let field = |name: &str| {
            let line = file.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == name);
            trimmed(line.map(|(_, value)| value))
        };
        forms.push(("credentials", field("aws_access_key_id"), field("aws_secret_access_key")));
    }
    // In both formats the last two fields of the second line are the key ID and the secret.
    for name in ["accessKeys.csv", "configure-import.csv"] {
        if let Some(table) = text(name) {
            let mut fields = table.lines().nth(1).unwrap_or_default().rsplit(',');
            let value = trimmed(fields.next());
            forms.push((name, trimmed(fields.next()), value));
        }
    }
    if let Some(json) = text("credentials.json") {
        let json: Value = serde_json::from_str(&json).unwrap_or_default();
        let field = |name: &str| trimmed(json[name].as_str());
        forms.push(("credentials.json", field("AccessKeyId"), field("SecretAccessKey")));
    }
    forms
}

/// `90s`, `15m`, `12h`, `30d`.
pub(super) fn duration(text: &str) -> SignedDuration {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return DEFAULT_OVERLAP,
    };
    number.parse::<i64>().map_or(DEFAULT_OVERLAP, |number| SignedDuration::from_secs(number * seconds))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 without padding, so that it also matches within a longer encoded text.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .enumerate()
            .fold(0_usize, |group, (index, byte)| group | usize::from(*byte) << (16 - 8 * index));
        for index in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * index)) & 63]));
        }
    }
    text
}

pub(super) fn unbase64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let digits: Vec<usize> =
        text.bytes().filter_map(|digit| ALPHABET.iter().position(|known| *known == digit)).collect();
    for chunk in digits.chunks(4) {
        let group = chunk.iter().enumerate().fold(0_usize, |group, (index, digit)| group | digit << (18 - 6 * index));
        for index in 0..chunk.len().saturating_sub(1) {
            bytes.push(u8::try_from((group >> (16 - 8 * index)) & 255).unwrap_or_default());
        }
    }
    bytes
}
