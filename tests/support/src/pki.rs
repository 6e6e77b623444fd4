//! Certificate authority of a test run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::{Result, error::Context as _};

/// Address of the `kubernetes` Service, the first of [`SERVICE_RANGE`].
const SERVICE_ADDRESS: &str = "10.0.0.1";
/// Range of Service addresses.
pub(crate) const SERVICE_RANGE: &str = "10.0.0.0/24";

/// Names of the API server on loopback and inside pods.
const SERVER_NAMES: [&str; 7] = [
    "127.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    SERVICE_ADDRESS,
];

/// A certificate authority for server and client certificates.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its private key, both PEM.
pub struct Identity {
    /// Certificate.
    pub certificate: String,
    /// Private key.
    pub key: String,
}

impl CertificateAuthority {
    /// Creates a CA with a new key.
    pub fn new() -> Result<Self> {
        let mut parameters = with_subject("awsdeploy-test-ca", None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), certificate })
    }

    /// The CA certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues the certificate of the API server.
    pub(crate) fn issue_api_server_certificate(&self) -> Result<Identity> {
        self.issue_server_certificate(SERVER_NAMES)
    }

    /// Issues a server certificate for host names and addresses.
    pub fn issue_server_certificate<const N: usize>(&self, names: [&str; N]) -> Result<Identity> {
        let mut parameters = CertificateParams::new(names.map(String::from))?;
        parameters.distinguished_name.push(DnType::CommonName, "server");
        self.sign(parameters, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a client certificate for the Kubernetes user `user` in `group`.
    pub(crate) fn issue_client_certificate(&self, user: &str, group: Option<&str>) -> Result<Identity> {
        self.sign(with_subject(user, group), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut parameters: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

/// Generates a key pair for service account tokens: private and public key, both PEM.
pub(crate) fn generate_signing_key() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Writes a file with mode 0600.
pub(crate) fn write_private(file: &Path, content: &str) -> Result<()> {
    fs::write(file, content)
        .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(0o600)))
        .context(|| format!("write {}", file.display()))
}

/// Kubernetes maps the common name to the user and the organization to a group.
fn with_subject(user: &str, group: Option<&str>) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        parameters.distinguished_name.push(DnType::OrganizationName, group);
    }
    parameters
}
