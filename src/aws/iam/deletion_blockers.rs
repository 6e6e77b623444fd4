//! What blocks the deletion of a user besides keys, policies and groups: password, MFA devices, certificates, credentials.

use super::{
    IamClient,
    convert::{optional, paginate},
};
use crate::{
    aws::AwsError,
    domain::current_state::{DeletionBlocker, UserRef},
};

impl IamClient {
    /// Lists all deletion blockers: one call per kind, more where a list has pages.
    pub async fn list_deletion_blockers(&self, user: &str) -> Result<Vec<DeletionBlocker>, AwsError> {
        let mut found = Vec::new();
        if self.has_login_profile(user).await? {
            found.push(DeletionBlocker::LoginProfile);
        }
        found.extend(self.list_mfa_devices(user).await?.into_iter().map(DeletionBlocker::MfaDevice));
        found.extend(self.list_signing_certificates(user).await?.into_iter().map(DeletionBlocker::SigningCertificate));
        found.extend(self.list_ssh_keys(user).await?.into_iter().map(DeletionBlocker::SshKey));
        found.extend(self.list_service_credentials(user).await?.into_iter().map(DeletionBlocker::ServiceCredential));
        Ok(found)
    }

    async fn list_mfa_devices(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_mfa_devices().user_name(user);
        paginate!(self, "ListMFADevices", request, mfa_devices, |device| Some(device.serial_number().to_owned()))
    }

    async fn list_signing_certificates(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_signing_certificates().user_name(user);
        paginate!(self, "ListSigningCertificates", request, certificates, |certificate| Some(
            certificate.certificate_id().to_owned()
        ))
    }

    async fn list_ssh_keys(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_ssh_public_keys().user_name(user);
        paginate!(self, "ListSSHPublicKeys", request, ssh_public_keys, |key| Some(key.ssh_public_key_id().to_owned()))
    }

    async fn list_service_credentials(&self, user: &str) -> Result<Vec<String>, AwsError> {
        let request = self.iam.list_service_specific_credentials().user_name(user);
        paginate!(self, "ListServiceSpecificCredentials", request, service_specific_credentials, |credential| Some(
            credential.service_specific_credential_id().to_owned()
        ))
    }

    /// Removes a deletion blocker; one that does not exist is no error. A virtual MFA device takes two calls: a failure
    /// between them leaves a device that no user has.
    pub async fn remove_deletion_blocker(&self, user: &UserRef, blocker: &DeletionBlocker) -> Result<(), AwsError> {
        let iam = &self.iam;
        match blocker {
            DeletionBlocker::LoginProfile => self.delete_login_profile(user).await?,
            DeletionBlocker::MfaDevice(serial) => {
                let request = iam.deactivate_mfa_device().user_name(user.name()).serial_number(serial);
                optional(self.call("DeactivateMFADevice", request.send()).await)?;
                // A virtual device exists in AWS only, where it would stay behind; a hardware device belongs to a person.
                if serial.contains(":mfa/") {
                    let request = iam.delete_virtual_mfa_device().serial_number(serial);
                    optional(self.call("DeleteVirtualMFADevice", request.send()).await)?;
                }
            }
            DeletionBlocker::SigningCertificate(id) => {
                let request = iam.delete_signing_certificate().user_name(user.name()).certificate_id(id);
                optional(self.call("DeleteSigningCertificate", request.send()).await)?;
            }
            DeletionBlocker::SshKey(id) => {
                let request = iam.delete_ssh_public_key().user_name(user.name()).ssh_public_key_id(id);
                optional(self.call("DeleteSSHPublicKey", request.send()).await)?;
            }
            DeletionBlocker::ServiceCredential(id) => {
                let request =
                    iam.delete_service_specific_credential().user_name(user.name()).service_specific_credential_id(id);
                optional(self.call("DeleteServiceSpecificCredential", request.send()).await)?;
            }
        }
        Ok(())
    }
}
