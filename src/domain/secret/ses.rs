//! SMTP credentials of Amazon SES, derived from an access key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// First byte of a password: version of the algorithm.
const VERSION: u8 = 0x04;

/// SMTP password of SES for one Region, as documented by AWS: a signature with the Signature Version 4 key of a fixed date
/// over a fixed message. The user name is the access key id.
#[must_use]
pub fn smtp_password(secret: &SecretString, region: &str) -> SecretString {
    let mut signature = format!("AWS4{}", secret.expose_secret()).into_bytes();
    for message in ["11111111", region, "ses", "aws4_request", "SendRawEmail"] {
        signature = sign(&signature, message);
    }
    signature.insert(0, VERSION);
    STANDARD.encode(signature).into()
}

/// SMTP endpoint of SES in a Region.
#[must_use]
pub fn smtp_server(region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("email-smtp.{region}.{domain}")
}

fn sign(key: &[u8], message: &str) -> Vec<u8> {
    // HMAC accepts keys of any length.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|hmac| hmac.chain_update(message).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the Terraform provider for AWS publishes in its tests.
    #[test]
    fn password_matches_other_implementations() {
        for (region, secret, password) in [
            ("eu-central-1", "some+secret+key", "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2"),
            ("eu-central-1", "another+secret+key", "BBbphbrQmrKMx42d1N6+C7VINYEBGI5v9VsZeTxwskfh"),
            ("us-west-1", "some+secret+key", "BH+jbMzper5WwlwUar9E1ySBqHa9whi0GPo+sJ0mVYJj"),
        ] {
            let derived = smtp_password(&secret.to_owned().into(), region);
            assert_eq!(derived.expose_secret(), password, "{region} {secret}");
        }
    }

    #[test]
    fn server_has_the_domain_of_the_partition() {
        assert_eq!(smtp_server("eu-west-1"), "email-smtp.eu-west-1.amazonaws.com");
        assert_eq!(smtp_server("cn-north-1"), "email-smtp.cn-north-1.amazonaws.com.cn");
    }
}
