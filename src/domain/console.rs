//! Console access: the password and its Secret.
//!
//! The Secret is the journal of the password: it is written as pending, then the password is set in AWS, then the Secret is
//! marked as applied. After a crash in between the same password is set again, so that no password is lost.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{
    desired::DesiredConsole,
    owner::Owner,
    owner::label_value,
    secret::{SecretContent, csv_field, hex},
};
use crate::api::well_known;

/// The account's password policy may require more.
pub const MIN_PASSWORD_CHARACTERS: usize = 32;
/// Enough bytes for a uniform choice of the character.
pub const RANDOM_BYTES_PER_CHARACTER: usize = 8;

/// Character sets that a password policy may require, without characters that need quoting in CSV files or shells.
const CHARACTER_SETS: [&str; 4] = ["ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz", "23456789", "!@#%^*_+-="];

/// Password policy of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// Minimum number of characters.
    pub min_length: usize,
    /// All users may change their password without a policy.
    pub users_may_change: bool,
}

impl Default for PasswordPolicy {
    /// AWS's default for accounts without a policy.
    fn default() -> Self {
        Self { min_length: 8, users_may_change: false }
    }
}

/// Observed Secret of the console password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleSecret {
    Missing,
    /// The Secret is owned by another object or by none; the text names the owner.
    Foreign(String),
    Ours(ConsoleFacts),
}

/// State of a console Secret of this resource. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleFacts {
    /// User name and password are unchanged since the operator wrote them.
    pub intact: bool,
    /// AWS has accepted the password.
    pub applied: bool,
    /// Reset request that the password carries out.
    pub reset_honoured: Option<String>,
}

/// Number of characters of a password under this policy.
#[must_use]
pub fn password_length(policy: PasswordPolicy) -> usize {
    MIN_PASSWORD_CHARACTERS.max(policy.min_length)
}

/// Generates a password from [`RANDOM_BYTES_PER_CHARACTER`] random bytes per character. Contains a character of each set and
/// begins with a letter.
#[must_use]
pub fn generate_password(random: &[u8]) -> SecretString {
    let all = CHARACTER_SETS.concat();
    let text: String = random
        .chunks_exact(RANDOM_BYTES_PER_CHARACTER)
        .enumerate()
        .filter_map(|(position, bytes)| {
            let choice = CHARACTER_SETS.get(position).copied().unwrap_or(&all).as_bytes();
            let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
            let index = usize::try_from(number % u64::try_from(choice.len()).ok()?).ok()?;
            choice.get(index).copied().map(char::from)
        })
        .collect();
    text.into()
}

/// Sign-in URL of the account. `None` for partitions with an unknown domain.
#[must_use]
pub fn sign_in_url(partition: &str, account_or_alias: &str) -> Option<String> {
    let domain = match partition {
        "aws" => "signin.aws.amazon.com",
        "aws-us-gov" => "signin.amazonaws-us-gov.com",
        "aws-cn" => "signin.amazonaws.cn",
        _ => return None,
    };
    Some(format!("https://{account_or_alias}.{domain}/console"))
}

/// Renders the Secret in the format of the console's `credentials.csv`.
#[must_use]
pub fn render(
    owner: &Owner,
    desired: &DesiredConsole,
    user_name: &str,
    password: &SecretString,
    url: Option<&str>,
) -> SecretContent {
    let secret = password.expose_secret();
    let url = url.unwrap_or_default();
    let mut annotations = BTreeMap::from([
        (well_known::ANNOTATION_RESOURCE_UID.to_owned(), owner.uid.clone()),
        (well_known::ANNOTATION_PASSWORD_STATE.to_owned(), PENDING.to_owned()),
        (well_known::ANNOTATION_CHECKSUM.to_owned(), checksum(user_name, secret)),
    ]);
    annotations.extend(
        desired.reset_request.clone().map(|request| (well_known::ANNOTATION_RESET_HONOURED.to_owned(), request)),
    );
    SecretContent {
        labels: BTreeMap::from([
            (well_known::LABEL_MANAGED_BY.to_owned(), crate::api::MANAGER.to_owned()),
            (well_known::LABEL_ROLE.to_owned(), "console".to_owned()),
            (well_known::LABEL_USER.to_owned(), label_value(&owner.name)),
        ]),
        annotations,
        data: BTreeMap::from([
            ("username".to_owned(), user_name.as_bytes().to_vec()),
            ("password".to_owned(), secret.as_bytes().to_vec()),
            ("consoleSignInUrl".to_owned(), url.as_bytes().to_vec()),
            (
                "credentials.csv".to_owned(),
                format!(
                    "User name,Password,Console sign-in URL\n{},{},{}\n",
                    csv_field(user_name),
                    csv_field(secret),
                    csv_field(url)
                )
                .into_bytes(),
            ),
        ]),
    }
}

const PENDING: &str = "pending";
const APPLIED: &str = "applied";

/// Marks the password as accepted by AWS.
#[must_use]
pub fn mark_applied(mut content: SecretContent) -> SecretContent {
    content.annotations.insert(well_known::ANNOTATION_PASSWORD_STATE.to_owned(), APPLIED.to_owned());
    content
}

/// Password in a console Secret. `None` if it was edited.
#[must_use]
pub fn read_password(content: &SecretContent) -> Option<SecretString> {
    let text = |name: &str| content.data.get(name).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
    let (user_name, password) = (text("username")?, SecretString::from(text("password")?));
    let sum = checksum(&user_name, password.expose_secret());
    (content.annotations.get(well_known::ANNOTATION_CHECKSUM) == Some(&sum)).then_some(password)
}

/// Reads the state of a console Secret of this resource.
#[must_use]
pub fn read_facts(content: &SecretContent) -> ConsoleFacts {
    let annotation = |name: &str| content.annotations.get(name).cloned();
    ConsoleFacts {
        intact: read_password(content).is_some(),
        applied: annotation(well_known::ANNOTATION_PASSWORD_STATE).as_deref() == Some(APPLIED),
        reset_honoured: annotation(well_known::ANNOTATION_RESET_HONOURED),
    }
}

/// SHA-256 over user name and password. With about 190 random bits the password cannot be derived from it.
fn checksum(user_name: &str, password: &str) -> String {
    let digest = Sha256::new().chain_update(user_name).chain_update("\n").chain_update(password).finalize();
    hex(&digest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content() -> SecretContent {
        let owner = Owner { cluster: "c".into(), namespace: "deploy".into(), name: "cycle".into(), uid: "u".into() };
        let desired =
            DesiredConsole { secret_name: "s".into(), reset_required: true, reset_request: Some("please".into()) };
        render(&owner, &desired, "cycle", &"Aa2!secret".to_owned().into(), Some("https://sign.in"))
    }

    #[test]
    fn secret_has_the_content_of_the_console_download() {
        let content = content();
        assert_eq!(
            content.data["credentials.csv"],
            b"User name,Password,Console sign-in URL\ncycle,Aa2!secret,https://sign.in\n"
        );
        assert_eq!(content.data["username"], b"cycle");
        // Names of IAM users may contain a comma.
        let owner = Owner { cluster: "c".into(), namespace: "deploy".into(), name: "cycle".into(), uid: "u".into() };
        let desired = DesiredConsole { secret_name: "s".into(), reset_required: true, reset_request: None };
        let odd = render(&owner, &desired, "a,b", &"A\"2!".to_owned().into(), None);
        assert!(odd.data["credentials.csv"].ends_with(b"\n\"a,b\",\"A\"\"2!\",\n"));
    }

    #[test]
    fn password_is_pending_until_applied_and_edits_are_detected() {
        let seen = read_facts(&content());
        assert_eq!(seen, ConsoleFacts { intact: true, applied: false, reset_honoured: Some("please".into()) });
        assert!(read_facts(&mark_applied(content())).applied);
        let mut edited = content();
        edited.data.insert("password".into(), b"other".to_vec());
        assert!(!read_facts(&edited).intact && read_password(&edited).is_none());
    }

    #[test]
    fn sign_in_url_depends_on_the_partition() {
        assert_eq!(sign_in_url("aws", "acme").as_deref(), Some("https://acme.signin.aws.amazon.com/console"));
        assert_eq!(
            sign_in_url("aws-cn", "123456789012").as_deref(),
            Some("https://123456789012.signin.amazonaws.cn/console")
        );
        assert_eq!(sign_in_url("aws-eusc", "123456789012"), None);
    }

    proptest! {
        #[test]
        fn every_password_has_all_four_character_sets(random in proptest::collection::vec(any::<u8>(), 32 * RANDOM_BYTES_PER_CHARACTER)) {
            let password = generate_password(&random);
            let text = password.expose_secret();
            prop_assert_eq!(text.len(), 32);
            prop_assert!(text.starts_with(|c: char| c.is_ascii_uppercase()));
            for set in CHARACTER_SETS {
                prop_assert!(text.contains(|c| set.contains(c)));
            }
            prop_assert!(!text.contains([',', '"', '\'', ' ', '\\', '$', '`']));
        }
    }
}
