//! What hangs on a user beside keys, policies and groups, and blocks its deletion.

use super::{
    AwsError, Iam,
    words::{absent, all},
};
use crate::domain::world::Leftover;

impl Iam {
    /// Everything of this kind: one call a kind, more where a list has pages.
    pub async fn leftovers(&self, user: &str) -> Result<Vec<Leftover>, AwsError> {
        let mut found = Vec::new();
        let profile = self.call("GetLoginProfile", self.iam.get_login_profile().user_name(user).send()).await;
        found.extend(absent(profile)?.map(|_| Leftover::LoginProfile));
        found.extend(self.mfa_devices(user).await?.into_iter().map(Leftover::MfaDevice));
        found.extend(self.signing_certificates(user).await?.into_iter().map(Leftover::SigningCertificate));
        found.extend(self.ssh_keys(user).await?.into_iter().map(Leftover::SshKey));
        found.extend(self.service_credentials(user).await?.into_iter().map(Leftover::ServiceCredential));
        Ok(found)
    }

    async fn mfa_devices(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_mfa_devices().user_name(user);
        all!(self, "ListMFADevices", request, mfa_devices, |device| Some(device.serial_number().to_owned()))
    }

    async fn signing_certificates(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_signing_certificates().user_name(user);
        all!(self, "ListSigningCertificates", request, certificates, |certificate| Some(
            certificate.certificate_id().to_owned()
        ))
    }

    async fn ssh_keys(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_ssh_public_keys().user_name(user);
        all!(self, "ListSSHPublicKeys", request, ssh_public_keys, |key| Some(key.ssh_public_key_id().to_owned()))
    }

    async fn service_credentials(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_service_specific_credentials().user_name(user);
        all!(self, "ListServiceSpecificCredentials", request, service_specific_credentials, |credential| Some(
            credential.service_specific_credential_id().to_owned()
        ))
    }

    /// Removes one of them. Can be repeated.
    pub async fn remove_leftover(&self, user: &str, leftover: &Leftover) -> Result<(), AwsError> {
        let iam = &self.iam;
        match leftover {
            Leftover::LoginProfile => {
                absent(self.call("DeleteLoginProfile", iam.delete_login_profile().user_name(user).send()).await)?;
            }
            Leftover::MfaDevice(serial) => {
                let request = iam.deactivate_mfa_device().user_name(user).serial_number(serial);
                absent(self.call("DeactivateMFADevice", request.send()).await)?;
                // A virtual device exists in AWS only and would be left over for ever; others belong to a person.
                if serial.contains(":mfa/") {
                    let request = iam.delete_virtual_mfa_device().serial_number(serial);
                    absent(self.call("DeleteVirtualMFADevice", request.send()).await)?;
                }
            }
            Leftover::SigningCertificate(id) => {
                let request = iam.delete_signing_certificate().user_name(user).certificate_id(id);
                absent(self.call("DeleteSigningCertificate", request.send()).await)?;
            }
            Leftover::SshKey(id) => {
                let request = iam.delete_ssh_public_key().user_name(user).ssh_public_key_id(id);
                absent(self.call("DeleteSSHPublicKey", request.send()).await)?;
            }
            Leftover::ServiceCredential(id) => {
                let request =
                    iam.delete_service_specific_credential().user_name(user).service_specific_credential_id(id);
                absent(self.call("DeleteServiceSpecificCredential", request.send()).await)?;
            }
        }
        Ok(())
    }
}
