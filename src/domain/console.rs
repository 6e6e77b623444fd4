//! Access to the AWS console: the password, and the Secret that holds it.
//!
//! The Secret is the journal of a password: it is written first, marked pending, then AWS is told, then the mark
//! is changed. A crash in between leads to the same password being set again, never to one that nobody holds.

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

/// Characters of a password, unless the account asks for more.
pub const MIN_PASSWORD_CHARACTERS: usize = 32;
/// Random bytes that one character takes: enough that no character is likelier than another.
pub const RANDOM_BYTES_PER_CHARACTER: usize = 8;

/// The four kinds that a password policy may ask for. Nothing that a CSV file or a shell would take for its own.
const KINDS: [&str; 4] = ["ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz", "23456789", "!@#%^*_+-="];

/// What the account asks of passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// Least number of characters.
    pub min_length: usize,
    /// All users may change their own password, without a policy of their own.
    pub users_may_change: bool,
}

impl Default for PasswordPolicy {
    /// AWS's own, when the account has none.
    fn default() -> Self {
        Self { min_length: 8, users_may_change: false }
    }
}

/// The console Secret as a pass has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleSecret {
    /// There is none.
    Missing,
    /// There is one and it is not ours; the text says whose it is.
    Foreign(String),
    /// Ours.
    Ours(ConsoleFacts),
}

/// Facts of our own console Secret, none of them secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleFacts {
    /// User name and password are the ones we wrote.
    pub intact: bool,
    /// AWS has taken the password.
    pub applied: bool,
    /// The reset request it honours.
    pub reset_honoured: Option<String>,
}

/// Characters that a password needs under this policy.
#[must_use]
pub fn password_length(policy: PasswordPolicy) -> usize {
    MIN_PASSWORD_CHARACTERS.max(policy.min_length)
}

/// A password out of random bytes, [`RANDOM_BYTES_PER_CHARACTER`] for each character. One of each kind, a letter first.
#[must_use]
pub fn generate_password(random: &[u8]) -> SecretString {
    let all = KINDS.concat();
    let text: String = random
        .chunks_exact(RANDOM_BYTES_PER_CHARACTER)
        .enumerate()
        .filter_map(|(place, bytes)| {
            let choice = KINDS.get(place).copied().unwrap_or(&all).as_bytes();
            let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
            let index = usize::try_from(number % u64::try_from(choice.len()).ok()?).ok()?;
            choice.get(index).copied().map(char::from)
        })
        .collect();
    text.into()
}

/// Where people of this account sign in. `None` in a partition whose address is not known: it is not guessed.
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

/// The Secret: what the console shows once, and offers as `credentials.csv`.
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

/// The same Secret, once AWS has taken its password.
#[must_use]
pub fn mark_applied(mut content: SecretContent) -> SecretContent {
    content.annotations.insert(well_known::ANNOTATION_PASSWORD_STATE.to_owned(), APPLIED.to_owned());
    content
}

/// The password in a console Secret, if it is what we wrote.
#[must_use]
pub fn read_password(content: &SecretContent) -> Option<SecretString> {
    let text = |name: &str| content.data.get(name).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
    let (user_name, password) = (text("username")?, SecretString::from(text("password")?));
    let sum = checksum(&user_name, password.expose_secret());
    (content.annotations.get(well_known::ANNOTATION_CHECKSUM) == Some(&sum)).then_some(password)
}

/// Reads back our own console Secret.
#[must_use]
pub fn read_facts(content: &SecretContent) -> ConsoleFacts {
    let annotation = |name: &str| content.annotations.get(name).cloned();
    ConsoleFacts {
        intact: read_password(content).is_some(),
        applied: annotation(well_known::ANNOTATION_PASSWORD_STATE).as_deref() == Some(APPLIED),
        reset_honoured: annotation(well_known::ANNOTATION_RESET_HONOURED),
    }
}

/// SHA-256 over user name and password. The password has about 190 random bits, so the sum gives nothing away.
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
    fn the_secret_is_what_the_console_offers_for_download() {
        let content = content();
        assert_eq!(
            content.data["credentials.csv"],
            b"User name,Password,Console sign-in URL\ncycle,Aa2!secret,https://sign.in\n"
        );
        assert_eq!(content.data["username"], b"cycle");
        // Names of IAM users may hold a comma, and passwords what they like.
        let owner = Owner { cluster: "c".into(), namespace: "deploy".into(), name: "cycle".into(), uid: "u".into() };
        let desired = DesiredConsole { secret_name: "s".into(), reset_required: true, reset_request: None };
        let odd = render(&owner, &desired, "a,b", &"A\"2!".to_owned().into(), None);
        assert!(odd.data["credentials.csv"].ends_with(b"\n\"a,b\",\"A\"\"2!\",\n"));
    }

    #[test]
    fn a_password_is_pending_until_aws_has_it_and_an_edited_one_is_noticed() {
        let seen = read_facts(&content());
        assert_eq!(seen, ConsoleFacts { intact: true, applied: false, reset_honoured: Some("please".into()) });
        assert!(read_facts(&mark_applied(content())).applied);
        let mut edited = content();
        edited.data.insert("password".into(), b"other".to_vec());
        assert!(!read_facts(&edited).intact && read_password(&edited).is_none());
    }

    #[test]
    fn people_sign_in_where_their_partition_is() {
        assert_eq!(sign_in_url("aws", "acme").as_deref(), Some("https://acme.signin.aws.amazon.com/console"));
        assert_eq!(
            sign_in_url("aws-cn", "123456789012").as_deref(),
            Some("https://123456789012.signin.amazonaws.cn/console")
        );
        assert_eq!(sign_in_url("aws-eusc", "123456789012"), None);
    }

    proptest! {
        #[test]
        fn every_password_has_all_four_kinds(random in proptest::collection::vec(any::<u8>(), 32 * RANDOM_BYTES_PER_CHARACTER)) {
            let password = generate_password(&random);
            let text = password.expose_secret();
            prop_assert_eq!(text.len(), 32);
            prop_assert!(text.starts_with(|c: char| c.is_ascii_uppercase()));
            for kind in KINDS {
                prop_assert!(text.contains(|c| kind.contains(c)));
            }
            prop_assert!(!text.contains([',', '"', '\'', ' ', '\\', '$', '`']));
        }
    }
}
