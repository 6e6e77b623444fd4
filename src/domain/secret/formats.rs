//! Formats of an access key in a Secret: rendering and reading.

use std::{collections::BTreeMap, fmt::Write as _};

use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    KeyMaterial, ses,
    template::{self, RenderValues},
};
use crate::{
    api::{SecretFormat, secret::KEY_MATERIAL_DATA_KEYS},
    domain::desired::{DesiredSecret, Violation},
};

const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const CREDENTIALS: &str = "credentials";
const CSV: &str = "accessKeys.csv";
const JSON: &str = "credentials.json";

/// Prints `credentials.json` with an expiration 20 minutes ahead, so that SDKs read the file again and find a new key. An
/// expiration in the file itself would pass, and SDKs would reject a valid key.
const CREDENTIAL_PROCESS: &str = r#"#!/bin/sh
# For credential_process in the config file of an AWS SDK: prints the access key and when to read it again.
set -eu
until=$(($(date +%s) + ${AWSDEPLOY_ASK_AGAIN_AFTER:-1200}))
until=$(date -u -d "@$until" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r "$until" +%Y-%m-%dT%H:%M:%SZ)
sed "s/}\$/,\"Expiration\":\"$until\"}/" "$(dirname "$0")/credentials.json"
"#;

/// Data of the Secret.
#[must_use]
pub fn data(desired: &DesiredSecret, key: &KeyMaterial) -> BTreeMap<String, Vec<u8>> {
    let mut data = BTreeMap::new();
    for format in &desired.formats {
        data.extend(render_format(*format, desired, key).into_iter().map(|(name, text)| (name.to_owned(), text)));
    }
    let values = values(desired, key);
    for (name, text) in &desired.templates {
        // `violations` has checked the templates; the result does not depend on the key.
        data.extend(template::render(text, &values).map(|text| (name.clone(), text)));
    }
    data.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}

/// Violations of the declared formats and templates. Uses an example key, so that they are found before a key is created.
#[must_use]
pub fn violations(desired: &DesiredSecret) -> Vec<Violation> {
    let mut found = Vec::new();
    if desired.formats.contains(&SecretFormat::SesSmtp) && desired.region.is_none() {
        let message = "SesSmtp needs accessKey.region: an SMTP password is valid in one Region";
        found.push(Violation { field: "accessKey.secret.formats", message: message.to_owned() });
    }
    let key = KeyMaterial { id: "AKIAIOSFODNN7EXAMPLE".to_owned(), secret: "example".to_owned().into() };
    let mut violate = |message| found.push(Violation { field: "accessKey.secret.template", message });
    let values = values(desired, &key);
    let known: Vec<&str> = values.keys().copied().collect();
    for (name, text) in &desired.templates {
        if KEY_MATERIAL_DATA_KEYS.contains(&name.as_str()) {
            violate(format!(
                "the data key {name:?} holds the access key in a format of this operator, and no template may define it; use another name"
            ));
        } else if let Some(format) = desired
            .formats
            .iter()
            .find(|format| render_format(**format, desired, &key).iter().any(|(other, _)| other == name))
        {
            violate(format!(
                "the format {} also writes the data key {name:?}; use another name or remove the format",
                format.as_str(),
            ));
        }
        if let Err(error) = template::check(text, &known) {
            let hint = if desired.region.is_none() { " (region and sesSmtp... need accessKey.region)" } else { "" };
            violate(format!("{name:?}: {error}{hint}"));
        }
    }
    found
}

/// Access keys in the data, one per format that can be read. Nothing shows which of them the operator wrote: the data may be
/// edited, and others may add data keys.
pub fn candidates(data: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = KeyMaterial> {
    let text = |name: &str| data.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let key = |id: &str, secret: &str| KeyMaterial { id: id.to_owned(), secret: secret.to_owned().into() };
    let environment = || Some(key(text(ACCESS_KEY_ID)?, text(SECRET_ACCESS_KEY)?));
    let file = || {
        let file = text(CREDENTIALS)?;
        let field = |name| file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        Some(key(field("aws_access_key_id")?, field("aws_secret_access_key")?))
    };
    let csv = || {
        let (id, secret) = text(CSV)?.lines().nth(1)?.split_once(',')?;
        Some(key(id, secret))
    };
    let json = || {
        let json: serde_json::Value = serde_json::from_str(text(JSON)?).ok()?;
        Some(key(json["AccessKeyId"].as_str()?, json["SecretAccessKey"].as_str()?))
    };
    [environment(), file(), csv(), json()].into_iter().flatten()
}

fn render_format(format: SecretFormat, desired: &DesiredSecret, key: &KeyMaterial) -> Vec<(&'static str, String)> {
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
            // Byte order mark and CRLF as in the console's download.
            (CSV, format!("\u{feff}Access key ID,Secret access key\r\n{id},{secret}\r\n")),
            // Older versions of the AWS CLI fail on a byte order mark.
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

/// Quotes a field as in RFC 4180. Names of IAM users may contain a comma.
pub(in crate::domain) fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// Values for templates.
fn values(desired: &DesiredSecret, key: &KeyMaterial) -> RenderValues {
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
