//! The forms of a key: data keys and their content, and the way back from them to the key.

use std::{collections::BTreeMap, fmt::Write as _};

use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    KeyMaterial, ses,
    template::{self, Values},
};
use crate::{
    api::SecretFormat,
    domain::desired::{DesiredSecret, Violation},
};

/// Most bytes that the operator writes into a Secret. Kubernetes takes 1,048,576; the rest is left to what others add.
pub const MAX_SECRET_BYTES: usize = 1_000_000;

const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const CREDENTIALS: &str = "credentials";
const CSV: &str = "accessKeys.csv";
const JSON: &str = "credentials.json";

/// Prints `credentials.json` with an expiry that is always twenty minutes off. SDKs ask again before it, and find the
/// new key. In the file itself an expiry would pass one day, and SDKs would refuse a key that still works.
const CREDENTIAL_PROCESS: &str = r#"#!/bin/sh
# For credential_process in the config file of an AWS SDK: the key, and when to ask for it again.
set -eu
until=$(($(date +%s) + ${AWSDEPLOY_ASK_AGAIN_AFTER:-1200}))
until=$(date -u -d "@$until" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r "$until" +%Y-%m-%dT%H:%M:%SZ)
sed "s/}\$/,\"Expiration\":\"$until\"}/" "$(dirname "$0")/credentials.json"
"#;

/// The data keys of the Secret.
#[must_use]
pub fn data(desired: &DesiredSecret, key: &KeyMaterial) -> BTreeMap<String, Vec<u8>> {
    let mut data = BTreeMap::new();
    for format in &desired.formats {
        data.extend(of_format(*format, desired, key).into_iter().map(|(name, text)| (name.to_owned(), text)));
    }
    let values = values(desired, key);
    for (name, text) in &desired.templates {
        // Checked before there was a key, in a way that no key can change.
        data.extend(template::render(text, &values).map(|text| (name.clone(), text)));
    }
    data.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}

/// What cannot be written as declared. Told with a key made up for it, so before there is one.
#[must_use]
pub fn violations(desired: &DesiredSecret) -> Vec<Violation> {
    let mut found = Vec::new();
    if desired.formats.contains(&SecretFormat::SesSmtp) && desired.region.is_none() {
        let message = "SesSmtp needs accessKey.region: an SMTP password holds in one Region";
        found.push(Violation { field: "accessKey.secret.formats", message: message.to_owned() });
    }
    // Characters of a secret access key that are longest when encoded.
    let key = KeyMaterial { id: "AKIAIOSFODNN7EXAMPLE".to_owned(), secret: "/".repeat(40).into() };
    let mut violate = |message| found.push(Violation { field: "accessKey.secret.template", message });
    let values = values(desired, &key);
    let known: Vec<&str> = values.keys().copied().collect();
    for (name, text) in &desired.templates {
        if let Some(format) = desired
            .formats
            .iter()
            .find(|format| of_format(**format, desired, &key).iter().any(|(other, _)| other == name))
        {
            violate(format!(
                "the data key {name:?} is written by the format {}; choose another name or leave the format out",
                format.as_str()
            ));
        }
        if let Err(error) = template::check(text, &known) {
            let hint =
                if desired.region.is_none() { " (region and sesSmtp... with accessKey.region only)" } else { "" };
            violate(format!("{name:?}: {error}{hint}"));
        }
    }
    let size: usize = data(desired, &key).values().map(Vec::len).sum();
    if size > MAX_SECRET_BYTES {
        violate(format!(
            "the Secret would have {size} bytes, the operator writes at most {MAX_SECRET_BYTES}; shorten the templates"
        ));
    }
    found
}

/// The key in the data of a Secret: in the first readable form that is `ours`.
#[must_use]
pub fn read(data: &BTreeMap<String, Vec<u8>>, ours: impl Fn(&str) -> bool) -> Option<KeyMaterial> {
    let text = |name: &str| data.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let there = |name: &str| ours(name) && data.contains_key(name);
    let key = |id: &str, secret: &str| KeyMaterial { id: id.to_owned(), secret: secret.to_owned().into() };
    if there(ACCESS_KEY_ID) || there(SECRET_ACCESS_KEY) {
        return Some(key(text(ACCESS_KEY_ID)?, text(SECRET_ACCESS_KEY)?));
    }
    if there(CREDENTIALS) {
        let file = text(CREDENTIALS)?;
        let field = |name| file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        return Some(key(field("aws_access_key_id")?, field("aws_secret_access_key")?));
    }
    if there(CSV) {
        let (id, secret) = text(CSV)?.lines().nth(1)?.split_once(',')?;
        return Some(key(id, secret));
    }
    if there(JSON) {
        let json: serde_json::Value = serde_json::from_str(text(JSON)?).ok()?;
        return Some(key(json["AccessKeyId"].as_str()?, json["SecretAccessKey"].as_str()?));
    }
    None
}

fn of_format(format: SecretFormat, desired: &DesiredSecret, key: &KeyMaterial) -> Vec<(&'static str, String)> {
    let (id, secret, region) = (&key.id, key.secret.expose_secret(), desired.region.as_deref());
    match format {
        SecretFormat::Environment => {
            let mut data = vec![(ACCESS_KEY_ID, id.clone()), (SECRET_ACCESS_KEY, secret.to_owned())];
            data.extend(
                region
                    .into_iter()
                    .flat_map(|region| ["AWS_REGION", "AWS_DEFAULT_REGION"].map(|name| (name, region.to_owned()))),
            );
            data
        }
        SecretFormat::CredentialsFile => {
            let mut config = "[default]\n".to_owned();
            if let Some(region) = region {
                let _ = writeln!(config, "region = {region}");
            }
            let credentials = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
            vec![(CREDENTIALS, credentials), ("config", config)]
        }
        SecretFormat::Csv => vec![
            // Byte order mark and CRLF are the console's.
            (CSV, format!("\u{feff}Access key ID,Secret access key\r\n{id},{secret}\r\n")),
            // Older versions of the CLI trip over a byte order mark.
            (
                "configure-import.csv",
                format!("User Name,Access key ID,Secret access key\n{},{id},{secret}\n", csv_field(&desired.user_name)),
            ),
        ],
        SecretFormat::ProcessJson => {
            let json = json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": secret});
            vec![(JSON, format!("{json}\n")), ("credential-process", CREDENTIAL_PROCESS.to_owned())]
        }
        SecretFormat::SesSmtp => region.map_or_else(Vec::new, |region| {
            vec![
                ("smtp-username", id.clone()),
                ("smtp-password", ses::smtp_password(&key.secret, region).expose_secret().to_owned()),
                ("smtp-server", ses::smtp_server(region)),
            ]
        }),
    }
}

/// A field as RFC 4180 has it. Names of IAM users may hold a comma.
pub(in crate::domain) fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// What a template may name.
fn values(desired: &DesiredSecret, key: &KeyMaterial) -> Values {
    let mut values = BTreeMap::from([
        ("accessKeyId", key.id.clone()),
        ("secretAccessKey", key.secret.expose_secret().to_owned()),
        ("userName", desired.user_name.clone()),
        ("accountId", desired.account_id.clone()),
    ]);
    if let Some(region) = &desired.region {
        values.insert("region", region.clone());
        values.insert("sesSmtpPassword", ses::smtp_password(&key.secret, region).expose_secret().to_owned());
        values.insert("sesSmtpServer", ses::smtp_server(region));
    }
    values
}
