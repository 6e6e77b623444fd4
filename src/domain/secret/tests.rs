use std::sync::LazyLock;

use secrecy::ExposeSecret;
use serde_json::json;
use strum::VariantArray;

use super::*;
use crate::api::{
    SecretFormat,
    secret::{KEY_MATERIAL_DATA_KEYS, MAX_TEMPLATE_CHARS},
};

static MAC_KEYS: LazyLock<MacKeys> =
    LazyLock::new(|| MacKeys::from_data(&BTreeMap::from([(CURRENT.to_owned(), vec![1; MAC_KEY_BYTES])])).unwrap());

fn sealer() -> Sealer<'static> {
    Sealer { keys: &MAC_KEYS, uid: "u1" }
}

fn render(
    desired: &DesiredSecret,
    key: &KeyMaterial,
    publication: &Publication,
    existing: &SecretContent,
) -> SecretContent {
    super::render(desired, key, publication, existing, sealer())
}

fn read_key(content: &SecretContent) -> Option<KeyMaterial> {
    super::read_key(content, sealer())
}

fn read_facts(content: &SecretContent, immutable: bool, desired: Option<&DesiredSecret>) -> PublishedFacts {
    super::read_facts(content, immutable, desired, sealer())
}

fn key() -> KeyMaterial {
    KeyMaterial {
        id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned().into(),
    }
}

fn desired() -> DesiredSecret {
    DesiredSecret {
        region: Some("us-east-1".into()),
        formats: SecretFormat::DEFAULT.into(),
        templates: BTreeMap::new(),
        user_name: "cycle-prod".into(),
        account_id: "123456789012".into(),
        labels: BTreeMap::from([("team".into(), "payments".into())]),
        annotations: BTreeMap::new(),
    }
}

fn only(format: SecretFormat) -> DesiredSecret {
    DesiredSecret { formats: [format].into(), ..desired() }
}

fn with_template(name: &str, text: &str) -> DesiredSecret {
    DesiredSecret { templates: BTreeMap::from([(name.into(), text.into())]), ..desired() }
}

fn published() -> SecretContent {
    written(&desired())
}

fn written(desired: &DesiredSecret) -> SecretContent {
    render(desired, &key(), &Publication::default(), &SecretContent::default())
}

fn text<'a>(content: &'a SecretContent, name: &str) -> &'a str {
    std::str::from_utf8(&content.data[name]).unwrap()
}

#[test]
fn environment_and_files_hold_the_same_key() {
    let content = published();
    assert_eq!(text(&content, "AWS_ACCESS_KEY_ID"), "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(text(&content, "AWS_DEFAULT_REGION"), "us-east-1");
    assert_eq!(text(&content, "config"), "[default]\nregion = us-east-1\n");
    assert_eq!(
        text(&content, "credentials"),
        "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n"
    );
}

#[test]
fn rendered_secret_matches_the_spec() {
    let facts = read_facts(&published(), false, Some(&desired()));
    assert!(facts.is_verified() && facts.matches_spec);
    assert_eq!(facts.key_id, "AKIAIOSFODNN7EXAMPLE");
}

#[test]
fn edit_is_repaired_from_an_unchanged_copy() {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "credentials", "config"] {
        for edited in [Some(b"edited".to_vec()), None] {
            let mut content = published();
            content.data.remove(name);
            content.data.extend(edited.map(|text| (name.to_owned(), text)));
            let seen = read_facts(&content, false, Some(&desired()));
            assert!(seen.is_verified() && !seen.matches_spec, "{name}");
            let repaired = render(&desired(), &read_key(&content).unwrap(), &read_publication(&content), &content);
            assert!(repaired == published(), "{name}");
        }
    }
}

#[test]
fn key_is_unverified_if_no_copy_has_its_mac() {
    let mut content = published();
    content.data.insert("AWS_SECRET_ACCESS_KEY".into(), b"edited".to_vec());
    content.data.insert("credentials".into(), b"edited".to_vec());
    assert!(!read_facts(&content, false, Some(&desired())).is_verified());
    for name in [well_known::ANNOTATION_MAC, well_known::ANNOTATION_KEY_ID] {
        let mut content = published();
        content.annotations.remove(name);
        assert!(!read_facts(&content, false, Some(&desired())).is_verified(), "{name}");
    }
}

#[test]
fn nothing_of_an_unverified_secret_is_believed() {
    let publication = Publication {
        published_at: "2026-11-21T10:00:00Z".parse().unwrap(),
        rotate_honoured: Some("please".into()),
        restarts: crate::domain::restart::decode(r#"{"Deployment/a": "pending"}"#),
        ..Publication::default()
    };
    let content = render(&desired(), &key(), &publication, &SecretContent::default());
    let other_mac_key = MacKeys::from_data(&BTreeMap::from([(CURRENT.to_owned(), vec![2; MAC_KEY_BYTES])])).unwrap();
    let facts = super::read_facts(&content, false, None, Sealer { keys: &other_mac_key, uid: "u1" });
    assert_eq!((facts.integrity, facts.key_id.as_str()), (Integrity::Unverified, key().id.as_str()));
    assert_eq!(
        (facts.published_at, facts.rotate_honoured, facts.restarts),
        (Timestamp::UNIX_EPOCH, None, Restarts::new())
    );
    assert!(super::read_unverified_key(&content).is_some_and(|read| read.id == key().id));
    let of_another = super::read_facts(&content, false, None, Sealer { keys: &MAC_KEYS, uid: "u2" });
    assert_eq!(of_another.integrity, Integrity::Unverified, "signed for another resource");
    // Anybody can recompute an unkeyed sum, and write a secret that AWS refuses.
    let forged = KeyMaterial { secret: "f".repeat(40).into(), ..key() };
    let mut edited = content.clone();
    edited.data = formats::data(&desired(), &forged);
    assert_eq!(read_facts(&edited, false, None).integrity, Integrity::Unverified);
    // A foreign key is named, and the Secret still holds ours.
    let mut renamed = content;
    renamed.annotations.insert(well_known::ANNOTATION_KEY_ID.into(), "AKIAIOSFODNNFOREIGN1".into());
    let facts = read_facts(&renamed, false, None);
    assert_eq!((facts.integrity, facts.key_id), (Integrity::Unverified, key().id));
}

#[test]
fn added_annotation_that_is_signed_does_not_outlive_a_write() {
    for name in [well_known::ANNOTATION_ROTATE_HONOURED, well_known::ANNOTATION_FENCE, well_known::ANNOTATION_RESTARTS]
    {
        let mut edited = published();
        edited.annotations.insert(name.to_owned(), "forged".to_owned());
        assert!(!read_facts(&edited, false, Some(&desired())).is_verified(), "{name}");
        let signed = render(&desired(), &key(), &Publication::default(), &edited);
        assert!(read_facts(&signed, false, Some(&desired())).is_verified(), "{name}");
    }
}

#[test]
fn fence_is_signed_only_in_a_verified_secret() {
    let fenced = with_fence(published(), "attempt", sealer());
    let facts = read_facts(&fenced, false, Some(&desired()));
    assert!(facts.is_verified() && facts.fence.as_deref() == Some("attempt"));
    let mut edited = published();
    edited.annotations.remove(well_known::ANNOTATION_MAC);
    assert!(!read_facts(&with_fence(edited, "attempt", sealer()), false, None).is_verified());
}

#[test]
fn secret_is_signed_again_with_the_current_mac_key() {
    let entries = [(CURRENT.to_owned(), vec![2; MAC_KEY_BYTES]), ("previous".to_owned(), vec![1; MAC_KEY_BYTES])];
    let rotated = MacKeys::from_data(&BTreeMap::from(entries)).unwrap();
    let facts = super::read_facts(&published(), false, Some(&desired()), Sealer { keys: &rotated, uid: "u1" });
    assert!(facts.is_verified() && !facts.matches_spec, "it is rewritten");
}

/// Otherwise each check finds the Secret edited and creates another key.
#[test]
fn template_cannot_take_the_place_of_a_format() {
    for name in KEY_MATERIAL_DATA_KEYS {
        let format = if name == "credentials" { SecretFormat::Environment } else { SecretFormat::CredentialsFile };
        let template = DesiredSecret {
            templates: BTreeMap::from([(name.to_owned(), "{{ userName }}".to_owned())]),
            ..only(format)
        };
        let found = violations(&template);
        assert!(found.iter().any(|violation| violation.message.contains("no template may define it")), "{name}");
        // A Secret that was written all the same.
        let seen = read_facts(&written(&template), false, Some(&template));
        assert!(seen.is_verified() && seen.matches_spec, "{name}");
    }
}

#[test]
fn reserved_data_keys_are_those_with_key_material() {
    let all = DesiredSecret { formats: SecretFormat::VARIANTS.iter().copied().collect(), ..desired() };
    let key = key();
    let holding = written(&all).data.into_iter().filter(|(name, bytes)| {
        let text = std::str::from_utf8(bytes).unwrap();
        text.contains(&key.id) || text.contains(key.secret.expose_secret()) || name == "smtp-password"
    });
    let holding: BTreeSet<String> = holding.map(|(name, _)| name).collect();
    assert_eq!(holding, KEY_MATERIAL_DATA_KEYS.map(str::to_owned).into());
    let crd = crate::api::crds_yaml().unwrap().map(|(_, yaml)| yaml).concat();
    for name in KEY_MATERIAL_DATA_KEYS {
        assert!(crd.contains(&format!("'{name}'")), "{name} is refused by the schema");
    }
}

#[test]
fn undeclared_entries_are_removed_and_others_are_kept() {
    let mut content = published();
    content.labels.insert("added-by".into(), "others".into());
    content.data.insert("extra".into(), b"theirs".to_vec());
    assert!(read_facts(&content, false, Some(&desired())).matches_spec, "their additions are no drift");
    let fewer = DesiredSecret { region: None, labels: BTreeMap::new(), ..desired() };
    assert!(!read_facts(&content, false, Some(&fewer)).matches_spec);
    let after = render(&fewer, &key(), &Publication::default(), &content);
    assert!(!after.labels.contains_key("team") && !after.data.contains_key("AWS_REGION"));
    assert!(after.labels.contains_key("added-by") && after.data.contains_key("extra"));
}

#[test]
fn publication_round_trips_through_annotations() {
    let publication = Publication {
        published_at: "2026-11-21T10:00:00Z".parse().unwrap(),
        rotate_honoured: Some("please".into()),
        fence: Some("uid".into()),
        restarts: crate::domain::restart::decode(r#"{"Deployment/a": "pending"}"#),
    };
    assert_eq!(publication.restarts.len(), 1);
    let content = render(&desired(), &key(), &publication, &SecretContent::default());
    assert_eq!(super::read_publication(&content), publication);
}

#[test]
fn text_of_another_form_is_no_access_key_id() {
    let forged = KeyMaterial { id: "awsdeploy.dev/uid".into(), ..key() };
    let content = render(&desired(), &forged, &Publication::default(), &SecretContent::default());
    assert!(read_key(&content).is_none());
    let facts = read_facts(&content, false, Some(&desired()));
    assert_eq!((facts.key_id.as_str(), facts.integrity), ("", Integrity::Lost));
}

#[test]
fn debug_output_of_key_material_is_redacted() {
    assert!(!format!("{:?}", key()).contains("wJalr"));
}

#[test]
fn csv_files_match_console_and_cli_import() {
    let content = written(&only(SecretFormat::Csv));
    assert_eq!(
        text(&content, "accessKeys.csv"),
        "\u{feff}Access key ID,Secret access key\r\nAKIAIOSFODNN7EXAMPLE,wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\r\n"
    );
    assert_eq!(
        text(&content, "configure-import.csv"),
        "User Name,Access key ID,Secret access key\ncycle-prod,AKIAIOSFODNN7EXAMPLE,wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n"
    );
    let comma = DesiredSecret { user_name: "a,b".into(), ..only(SecretFormat::Csv) };
    assert!(text(&written(&comma), "configure-import.csv").contains("\n\"a,b\",AKIA"));
}

#[test]
fn credential_process_json_has_no_expiration() {
    let content = written(&only(SecretFormat::ProcessJson));
    let answer: serde_json::Value = serde_json::from_str(text(&content, "credentials.json")).unwrap();
    assert_eq!(
        answer,
        json!({"Version": 1, "AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"})
    );
}

#[test]
fn ses_format_contains_the_derived_password_only() {
    let content = written(&DesiredSecret { formats: [SecretFormat::Csv, SecretFormat::SesSmtp].into(), ..desired() });
    assert_eq!(text(&content, "smtp-username"), "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(text(&content, "smtp-server"), "email-smtp.us-east-1.amazonaws.com");
    let password = ses::smtp_password(&key().secret, "us-east-1");
    assert_eq!(text(&content, "smtp-password"), password.expose_secret());
}

#[test]
fn key_is_read_from_every_format() {
    for format in SecretFormat::VARIANTS.iter().copied() {
        let content = written(&only(format));
        let facts = read_facts(&content, false, Some(&only(format)));
        assert_eq!(facts.is_verified() && facts.matches_spec, format != SecretFormat::SesSmtp, "{format:?}");
    }
}

#[test]
fn edited_copy_is_detected_in_every_format() {
    for (format, name) in [
        (SecretFormat::CredentialsFile, "credentials"),
        (SecretFormat::Csv, "accessKeys.csv"),
        (SecretFormat::ProcessJson, "credentials.json"),
    ] {
        let mut content = written(&only(format));
        let edited = text(&content, name).replace("wJalr", "edited");
        content.data.insert(name.into(), edited.into_bytes());
        assert!(read_key(&content).is_none(), "{name}");
        content.data.insert(name.into(), b"no such form".to_vec());
        assert!(read_key(&content).is_none(), "{name}");
    }
}

#[test]
fn format_change_keeps_the_key_and_removes_old_files() {
    for before in SecretFormat::VARIANTS.iter().copied().filter(|format| *format != SecretFormat::SesSmtp) {
        for after in SecretFormat::VARIANTS.iter().copied() {
            let old = written(&only(before));
            let new = render(&only(after), &read_key(&old).unwrap(), &read_publication(&old), &old);
            assert!(new == written(&only(after)), "{before:?} {after:?}");
        }
    }
}

#[test]
fn added_file_is_not_read_as_key() {
    let mut content = written(&only(SecretFormat::Csv));
    content.data.insert("AWS_ACCESS_KEY_ID".into(), b"theirs".to_vec());
    let facts = read_facts(&content, false, Some(&only(SecretFormat::Csv)));
    assert!(facts.is_verified() && facts.matches_spec);
}

#[test]
fn changed_template_is_drift_and_keeps_the_key() {
    let cloud = with_template("cloud", "[default]\naws_access_key_id={{ accessKeyId }}\n");
    assert_eq!(violations(&cloud), []);
    let content = written(&cloud);
    assert_eq!(text(&content, "cloud"), "[default]\naws_access_key_id=AKIAIOSFODNN7EXAMPLE\n");
    let changed = with_template("cloud", "{{ userName }} {{ accountId }}");
    let seen = read_facts(&content, false, Some(&changed));
    assert!(seen.is_verified() && !seen.matches_spec);
    let after = render(&changed, &read_key(&content).unwrap(), &read_publication(&content), &content);
    assert_eq!(text(&after, "cloud"), "cycle-prod 123456789012");
    assert!(read_facts(&after, false, Some(&changed)).matches_spec);
}

#[test]
fn violations_are_found_before_a_key_exists() {
    let violation = |desired: &DesiredSecret| {
        let violations = violations(desired);
        assert_eq!(violations.len(), 1, "{violations:?}");
        format!("{}: {}", violations[0].field, violations[0].message)
    };
    let no_region = DesiredSecret { region: None, ..only(SecretFormat::SesSmtp) };
    assert!(violation(&no_region).starts_with("accessKey.secret.formats: SesSmtp needs accessKey.region"));
    assert!(
        violation(&with_template("config", "x"))
            .contains("the format CredentialsFile also writes the data key \"config\"")
    );
    assert!(
        violation(&with_template("cloud", "a\n{{ secretKey }}"))
            .contains("\"cloud\": line 2: \"secretKey\" is not a value")
    );
    let no_region = DesiredSecret { region: None, ..with_template("url", "{{ sesSmtpServer }}") };
    assert!(violation(&no_region).contains("need accessKey.region"));
}

#[test]
fn largest_secret_of_the_schema_fits_into_kubernetes() {
    // `/` has the longest encoding of all characters of a secret access key.
    let key = KeyMaterial { id: key().id, secret: "/".repeat(40).into() };
    let value = "{{secretAccessKey|urlencode|b64encode|urlencode}}";
    let text = value.repeat(MAX_TEMPLATE_CHARS as usize / value.len());
    let templates = (0..16).map(|number| (format!("t{number}"), text.clone())).collect();
    let formats = SecretFormat::VARIANTS.iter().copied().collect();
    let desired = DesiredSecret { formats, templates, ..desired() };
    assert_eq!(violations(&desired), []);
    let size: usize = formats::data(&desired, &key).values().map(Vec::len).sum();
    assert!(size < 500_000, "{size} of the 1,048,576 bytes of a Secret");
}

#[test]
fn data_keys_are_valid_file_names() {
    let all = DesiredSecret { formats: SecretFormat::VARIANTS.iter().copied().collect(), ..desired() };
    for name in written(&all).data.keys() {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)), "{name}");
    }
}
