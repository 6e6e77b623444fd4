//! Verification of Signature Version 4.
//!
//! Implements the public specification instead of using the SDK's signing crate: a verifier that shares code with the
//! signer cannot detect its errors. A unit test checks the published example of AWS.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::call::Request;

/// All characters except the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parts of an `Authorization: AWS4-HMAC-SHA256 ...` header.
///
/// No `Debug`, so that the signature cannot be logged.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization {
    /// The access key id.
    pub(super) access_key_id: String,
    /// `YYYYMMDD` of the credential scope.
    pub(super) date: String,
    /// Region of the credential scope.
    pub(super) region: String,
    /// Service of the credential scope.
    pub(super) service: String,
    /// Names of the signed headers, in the given order.
    pub(super) signed_headers: Vec<String>,
    signature: String,
}

impl Authorization {
    /// Parses the header of a request; `None` if it is missing or not `SigV4`.
    #[must_use]
    pub(super) fn from_request(request: &Request) -> Option<Self> {
        Self::parse(request.headers.get("authorization")?.to_str().ok()?)
    }

    /// Parses a header value.
    #[must_use]
    pub(super) fn parse(header: &str) -> Option<Self> {
        let fields = header.trim().strip_prefix("AWS4-HMAC-SHA256")?;
        let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        // Split from the right: the scope has four parts, and the key id may contain slashes.
        let mut scope = field("Credential")?.rsplitn(5, '/');
        let (Some("aws4_request"), Some(service), Some(region), Some(date), Some(access_key_id)) =
            (scope.next(), scope.next(), scope.next(), scope.next(), scope.next())
        else {
            return None;
        };
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: field("Signature")?.to_owned(),
        })
    }

    /// Whether the request was signed with this secret.
    #[must_use]
    pub(super) fn is_made_with(&self, secret: &str, request: &Request) -> bool {
        // A signature without host and date could be replayed on another server or another day.
        let signs = |name: &str| self.signed_headers.iter().any(|header| header == name);
        let timestamp = request.headers.get("x-amz-date").and_then(|value| value.to_str().ok());
        let Some(timestamp) = timestamp else { return false };
        if !signs("host") || !signs("x-amz-date") || !timestamp.starts_with(&self.date) {
            return false;
        }
        // A test double needs no constant-time comparison.
        self.signature_with(secret, timestamp, request) == self.signature
    }

    fn signature_with(&self, secret: &str, timestamp: &str, request: &Request) -> String {
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let canonical = canonical_request(request, &self.signed_headers);
        let to_sign = format!("AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let key = [&self.date, &self.region, &self.service, "aws4_request"]
            .into_iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part.as_bytes()));
        hex(&hmac(&key, to_sign.as_bytes()))
    }
}

/// Signs a request as a client does, for tests of the proxy without the SDK.
///
/// `timestamp` is `YYYYMMDDTHHMMSSZ`. A header value that is not valid in HTTP is omitted, and the signature then does
/// not match.
#[cfg(test)]
pub(super) fn sign(
    request: &mut Request,
    access_key_id: &str,
    secret: &str,
    region: &str,
    service: &str,
    timestamp: &str,
) {
    if let Ok(value) = timestamp.parse() {
        request.headers.insert("x-amz-date", value);
    }
    let mut signed_headers: Vec<String> =
        request.headers.keys().map(|name| name.as_str().to_owned()).filter(|name| name != "authorization").collect();
    signed_headers.sort_unstable();
    let mut authorization = Authorization {
        access_key_id: access_key_id.to_owned(),
        date: timestamp.get(..8).unwrap_or_default().to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        signed_headers,
        signature: String::new(),
    };
    authorization.signature = authorization.signature_with(secret, timestamp, request);
    let header = format!(
        "AWS4-HMAC-SHA256 Credential={access_key_id}/{}/{region}/{service}/aws4_request, SignedHeaders={}, \
         Signature={}",
        authorization.date,
        authorization.signed_headers.join(";"),
        authorization.signature
    );
    if let Ok(value) = header.parse() {
        request.headers.insert("authorization", value);
    }
}

fn canonical_request(request: &Request, signed_headers: &[String]) -> String {
    // SigV4 encodes every path segment a second time, except for S3.
    let path: Vec<String> =
        request.path.split('/').map(|segment| utf8_percent_encode(segment, RESERVED).to_string()).collect();
    let mut query: Vec<(String, String)> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (reencode(name), reencode(value))
        })
        .collect();
    query.sort_unstable();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut headers = String::new();
    for name in signed_headers {
        let values: Vec<String> = request
            .headers
            .get_all(name.as_str())
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let _ = writeln!(headers, "{name}:{}", values.join(","));
    }
    format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        request.method,
        path.join("/"),
        query.join("&"),
        signed_headers.join(";"),
        hex(&Sha256::digest(&request.body))
    )
}

fn reencode(text: &str) -> String {
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    utf8_percent_encode(&decoded, RESERVED).to_string()
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    // Cannot fail: HMAC accepts keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// The worked example of the IAM User Guide, "Create a signed request": `ListUsers` of 30 August 2015.
    fn aws_example() -> Request {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "iam.amazonaws.com"),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("x-amz-date", "20150830T123600Z"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        Request {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            query: "Action=ListUsers&Version=2010-05-08".to_owned(),
            headers,
            body: Vec::new(),
        }
    }

    const AWS_HEADER: &str = "AWS4-HMAC-SHA256 \
        Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, \
        Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";

    #[test]
    fn published_aws_example_verifies() {
        let authorization = Authorization::parse(AWS_HEADER).unwrap();
        assert_eq!(authorization.access_key_id, "AKIDEXAMPLE");
        assert_eq!((authorization.region.as_str(), authorization.service.as_str()), ("us-east-1", "iam"));
        assert!(authorization.is_made_with(SECRET, &aws_example()));
    }

    #[test]
    fn other_secret_body_host_or_date_does_not_verify() {
        let authorization = Authorization::parse(AWS_HEADER).unwrap();
        assert!(!authorization.is_made_with("another", &aws_example()));
        let mut body = aws_example();
        body.body = b"x".to_vec();
        assert!(!authorization.is_made_with(SECRET, &body));
        let mut host = aws_example();
        host.headers.insert("host", "elsewhere".parse().unwrap());
        assert!(!authorization.is_made_with(SECRET, &host));
        let mut day = aws_example();
        day.headers.insert("x-amz-date", "20150831T123600Z".parse().unwrap());
        assert!(!authorization.is_made_with(SECRET, &day));
    }

    #[test]
    fn signature_without_signed_host_is_rejected() {
        let mut request = aws_example();
        request.headers.remove("host");
        sign(&mut request, "AKIDEXAMPLE", SECRET, "us-east-1", "iam", "20150830T123600Z");
        let authorization = Authorization::from_request(&request).unwrap();
        assert!(!authorization.is_made_with(SECRET, &request));
    }

    #[test]
    fn signed_request_verifies() {
        let mut request = aws_example();
        request.method = "POST".to_owned();
        request.query = "b=%2F&a=1+1".to_owned();
        request.body = b"Action=ListUsers".to_vec();
        sign(&mut request, "AKIAX", "s", "eu-central-1", "sts", "20261121T220000Z");
        let authorization = Authorization::from_request(&request).unwrap();
        assert!(authorization.is_made_with("s", &request));
        assert!(!authorization.is_made_with("t", &request));
    }

    #[test]
    fn other_authorization_headers_are_not_parsed() {
        for header in ["", "Bearer x", "AWS4-HMAC-SHA256 Credential=AKIA/20150830", "AWS4-HMAC-SHA256"] {
            assert!(Authorization::parse(header).is_none(), "{header}");
        }
    }
}
