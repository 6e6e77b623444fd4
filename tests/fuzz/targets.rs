//! Bodies of the fuzz targets: what the operator does with bytes of others. A target fails by a panic.
//!
//! `cargo fuzz` runs them with coverage (`fuzz/`), `make fuzz` in a plain loop on the stable compiler.

use std::collections::BTreeMap;

use awsdeploy::{
    api::{AwsDeployUserClass, class::PolicyTemplate},
    cluster::{Guarded, GuardedUser},
    domain::{
        authorize::template as policy_template,
        journal::Journal,
        policy,
        secret::{self, CURRENT, MAC_KEY_BYTES, MacKeys, Sealer, SecretContent, template},
    },
};
use serde_json::Value;

/// Stands for a secret in the input; no error may quote it.
pub const CANARY: &str = "wJalrXUtnFEMIK7MDENGbPxRfiCYCANARYKEY";

/// A target: its name, its body, and inputs that reach its depth.
pub struct FuzzTarget {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const ALL: &[FuzzTarget] = &[
    FuzzTarget { name: "api_object", run: api_object, seeds: api_object_seeds },
    FuzzTarget { name: "journal", run: journal, seeds: journal_seeds },
    FuzzTarget { name: "published_secret", run: published_secret, seeds: published_secret_seeds },
    FuzzTarget { name: "policy_template", run: policy_template, seeds: policy_template_seeds },
    FuzzTarget { name: "data_template", run: data_template, seeds: data_template_seeds },
    FuzzTarget { name: "policy_document", run: policy_document, seeds: policy_document_seeds },
];

fn assert_no_secret(text: &str) {
    assert!(!text.contains(CANARY), "an error quotes its input");
}

/// Lists and watches hand over one object at a time; one that cannot be read is reported without its content.
pub fn api_object(input: &[u8]) {
    match serde_json::from_slice::<GuardedUser>(input) {
        Ok(user) => {
            assert_no_secret(user.error().unwrap_or_default());
            let read = user.object().map(|user| serde_json::to_vec(user).expect("an object that was read is written"));
            if let Some(written) = read.filter(|_| user.error().is_none()) {
                let again: GuardedUser = serde_json::from_slice(&written).expect("a written object is read");
                let again = again.into_object().and_then(|user| serde_json::to_vec(&user).ok());
                assert_eq!(again, Some(written), "reading and writing again changes nothing");
            }
        }
        // The caller reports that the object is no JSON object; the text of the parser is not used.
        Err(error) => drop(error.classify()),
    }
    let class: Result<Guarded<AwsDeployUserClass>, _> = serde_json::from_slice(input);
    assert_no_secret(class.ok().as_ref().and_then(Guarded::error).unwrap_or_default());
}

fn api_object_seeds() -> Vec<Vec<u8>> {
    let object = |content: &str| {
        format!(
            r#"{{"apiVersion":"awsdeploy.dev/v1alpha1","kind":"AwsDeployUser","metadata":{{"name":"x","namespace":"n","uid":"u","managedFields":[{{"manager":"m","time":"9999-12-31T23:59:59-01:00"}}]}},{content}}}"#
        )
        .into_bytes()
    };
    let deep = format!("{}{}{}", r#"{"a":"#.repeat(140), r#""b""#, "}".repeat(140));
    vec![
        object(r#""spec":{"userName":"u","policies":{"managed":["AmazonS3FullAccess"]},"accessKey":{}}"#),
        object(&format!(r#""spec":{{"policies":{{"documents":[{{"name":"own","document":{deep}}}]}}}}"#)),
        object(&format!(r#""spec":{{"accessKey":{{"rotation":{{"every":"{CANARY}"}}}}}}"#)),
        object(r#""spec":{"credentials": "Revoked"},"status":{"conditions":[],"user":{"name":"u","account":"1"}}"#),
    ]
}

/// A journal that is accepted is written as it was read.
pub fn journal(input: &[u8]) {
    match Journal::decode(input) {
        Ok(journal) => assert_eq!(Journal::decode(&journal.encode()).as_ref(), Ok(&journal)),
        Err(error) => assert_no_secret(&error.to_string()),
    }
}

fn journal_seeds() -> Vec<Vec<u8>> {
    let time = "2026-11-21T10:00:00Z";
    [
        format!(r#"{{"format":1,"mode":"Intent","startedAt":"{time}","known":["AKIA0000000000000001"]}}"#),
        format!(
            r#"{{"format":1,"mode":"Keyed","startedAt":"{time}","keyId":"AKIA0000000000000001","keyedAt":"{time}"}}"#
        ),
        format!(r#"{{"format":1,"mode":"Abandoned","startedAt":"{time}","orphans":["AKIA0000000000000001"]}}"#),
        format!(r#"{{"format":1,"mode":"{CANARY}","startedAt":"{time}"}}"#),
    ]
    .map(String::into_bytes)
    .into()
}

/// A Secret of a tenant: labels, annotations and data are lines of `name=value`, the data after an empty line.
pub fn published_secret(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (head, data) = text.split_once("\n\n").unwrap_or((&text, ""));
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.replace('\u{b6}', "\n")));
    let annotations: BTreeMap<String, String> = head.lines().filter_map(pair).collect();
    let data = data.lines().filter_map(pair).map(|(name, value)| (name, value.into_bytes())).collect();
    let content = SecretContent { labels: BTreeMap::new(), annotations, data };
    let publication = secret::read_publication(&content);
    // The dates of a tenant are used in sums.
    let _ = publication.published_at.checked_add(jiff::SignedDuration::from_hours(24 * 365));
    let mac_key = BTreeMap::from([(CURRENT.to_owned(), vec![1; MAC_KEY_BYTES])]);
    let Some(keys) = MacKeys::from_data(&mac_key) else { return };
    let facts = secret::read_facts(&content, false, None, Sealer { keys: &keys, uid: "u1" });
    assert_no_secret(&facts.key_id);
}

fn published_secret_seeds() -> Vec<Vec<u8>> {
    let key = "AKIAIOSFODNN7EXAMPLE";
    let annotations = format!(
        "awsdeploy.dev/access-key-id={key}\nawsdeploy.dev/published-at=9999-12-30T22:00:00Z\n\
         awsdeploy.dev/mac=v1:00000000:00\nawsdeploy.dev/restarts={{\"Deployment/x\":{{}}}}\nawsdeploy.dev/owned={{}}"
    );
    let file = format!("credentials=[default]\u{b6}aws_access_key_id = {key}\u{b6}aws_secret_access_key = {CANARY}");
    let environment = format!("AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={CANARY}");
    let json = format!(r#"credentials.json={{"AccessKeyId":"{key}","SecretAccessKey":"{CANARY}"}}"#);
    [file, environment, json].map(|data| format!("{annotations}\n\n{data}").into_bytes()).into()
}

/// A template of a class, and the values of a tenant: a rendered document differs from the template in strings only.
pub fn policy_template(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (template, values) = text.split_once("\n\n").unwrap_or((&text, ""));
    let Ok(template) = serde_json::from_str::<PolicyTemplate>(template) else { return };
    let is_valid = policy_template::check(&template, false).is_ok();
    let values = values.lines().filter_map(|line| line.split_once('='));
    let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let own = policy_template::builtin_values("n", Some("x"), None);
    if let Ok(document) = policy_template::render(&template, &values, &own)
        && is_valid
    {
        let shape = |value: &Value| outline(value);
        assert_eq!(shape(&document), shape(&template.document), "a value changes more than a string");
        let (before, after) = (wildcards(&template.document), wildcards(&document));
        assert_eq!(before, after, "a value adds a wildcard");
    }
}

/// A document without its strings.
fn outline(value: &Value) -> Value {
    match value {
        Value::String(_) => Value::Null,
        Value::Array(values) => Value::Array(values.iter().map(outline).collect()),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), outline(value))).collect(),
        other => other.clone(),
    }
}

fn wildcards(value: &Value) -> usize {
    value.to_string().matches(['*', '?', '$']).count()
}

fn policy_template_seeds() -> Vec<Vec<u8>> {
    let template = |resource: &str| {
        format!(
            r#"{{"name":"t","document":{{"Statement":{{"Effect":"Allow","Action":"s3:*","Resource":"{resource}"}}}},"parameters":[{{"name":"bucket","pattern":".*"}}]}}"#
        )
    };
    [
        format!("{}\n\nbucket=logs", template("arn:aws:s3:::{bucket}/*")),
        format!("{}\n\nbucket=*", template("{bucket}")),
        format!("{}\n\nbucket=a\"b", template("{{bucket}}{bucket}")),
        format!("{}\n\nother=a", template("{namespace}/{name}/{accountId}/{bucket}")),
    ]
    .map(String::into_bytes)
    .into()
}

/// A template of a data key: what the check accepts is rendered with every key.
pub fn data_template(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let values = BTreeMap::from([
        ("accessKeyId", "AKIAIOSFODNN7EXAMPLE".to_owned()),
        ("secretAccessKey", CANARY.to_owned()),
        ("userName", "u".to_owned()),
    ]);
    let known: Vec<&str> = values.keys().copied().collect();
    match template::check(&text, &known) {
        Ok(()) => assert!(template::render(&text, &values).is_some(), "a checked template is rendered"),
        Err(error) => {
            assert!(!error.is_empty());
            assert!(template::render(&text, &values).is_none(), "a refused template is not rendered");
        }
    }
}

fn data_template_seeds() -> Vec<Vec<u8>> {
    [
        "{{ accessKeyId }}:{{ secretAccessKey | b64encode | urlencode | tojson }}\n",
        "{% for x in range(1000000) %}{{ x }}{% endfor %}",
        "{{ accessKeyId.__class__ }}{{ self }}{# comment #}",
        "{{ \"text\" | tojson }}{{{{ userName }}}}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// A document as AWS returns it: equal to itself in any form, and never equal to another meaning.
pub fn policy_document(input: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(input) else { return };
    assert!(policy::is_equivalent(&document, &document));
    let mut wider = document.clone();
    let counted = policy::counted_characters(&document);
    assert!(counted <= document.to_string().chars().count());
    if let Some(statement) = wider.get_mut("Statement").and_then(Value::as_object_mut) {
        let before = statement.insert("Sid".to_owned(), Value::String("another".to_owned()));
        if before.as_ref().and_then(Value::as_str) != Some("another") {
            assert!(!policy::is_equivalent(&document, &wider));
        }
    }
}

fn policy_document_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":["a","b"]}}"#,
        r#"{"Statement":[{"Effect":"Deny","NotAction":["iam:*"],"Resource":"*","Condition":{"Bool":{"aws:SecureTransport":true}}}]}"#,
        r#"{"Statement":{"Action":[],"Principal":{"AWS":["*","*"]},"Condition":{"StringLike":{"a":1}}}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
