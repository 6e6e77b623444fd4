//! Service-specific credentials, which the emulator does not implement. At most two per user and service; only the
//! response to the creation contains the password.

use jiff::Timestamp;

use super::super::account::ServiceCredential;
use super::super::response::{AwsError, AwsResponse, random_hex};
use super::super::xml;
use super::{Operation, names};

const MAX_CREDENTIALS_PER_SERVICE: usize = 2;
const SERVICES: [&str; 3] = ["codecommit.amazonaws.com", "cassandra.amazonaws.com", "bedrock.amazonaws.com"];

fn status_name(active: bool) -> &'static str {
    if active { "Active" } else { "Inactive" }
}

fn element(credential: &ServiceCredential, user: &str) -> String {
    xml::leaf("UserName", user)
        + &xml::leaf("Status", status_name(credential.active))
        + &xml::leaf("ServiceUserName", &credential.service_user_name)
        + &xml::leaf("CreateDate", &credential.created.to_string())
        + &xml::leaf("ServiceSpecificCredentialId", &credential.id)
        + &xml::leaf("ServiceName", &credential.service)
}

/// `CreateServiceSpecificCredential`.
pub(super) async fn create(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    let service = operation.call.required("ServiceName")?;
    if !SERVICES.contains(&service) {
        return Err(AwsError::new(
            404,
            "NotSupportedService",
            format!("The service {service} does not support service-specific credentials."),
        ));
    }
    operation.check_user_exists(user).await?;
    let credential = ServiceCredential {
        id: format!("ACCA{}", random_hex(16).to_uppercase()),
        service: service.to_owned(),
        service_user_name: format!("{user}-at-{}", operation.account_ref().account),
        active: true,
        created: Timestamp::now(),
    };
    let created = element(&credential, user) + &xml::leaf("ServicePassword", &random_hex(40));
    let fits = operation.account().change_user(operation.account_ref(), user, |user| {
        let existing = user.service_credentials.iter().filter(|other| other.service == credential.service).count();
        let fits = existing < MAX_CREDENTIALS_PER_SERVICE;
        if fits {
            user.service_credentials.push(credential);
        }
        fits
    });
    if !fits {
        return Err(AwsError::limit_exceeded(format!(
            "Cannot exceed quota for ServiceSpecificCredentialsPerUser: {MAX_CREDENTIALS_PER_SERVICE}"
        )));
    }
    Ok(operation.success(&xml::wrap("ServiceSpecificCredential", &created)))
}

/// `ListServiceSpecificCredentials` of one user.
pub(super) async fn list(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    operation.check_user_exists(user).await?;
    let expected = operation.call.param("ServiceName");
    let members: String = operation
        .account()
        .user(operation.account_ref(), user)
        .service_credentials
        .iter()
        .filter(|credential| expected.is_none_or(|service| credential.service == service))
        .map(|credential| xml::wrap("member", &element(credential, user)))
        .collect();
    Ok(operation.success(&(xml::wrap("ServiceSpecificCredentials", &members) + &xml::leaf("IsTruncated", "false"))))
}

/// `UpdateServiceSpecificCredential`.
pub(super) async fn update(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let status = operation.call.required("Status")?;
    names::check_enum("status", status, &["Active", "Inactive"])?;
    let user = operation.user()?;
    let id = operation.call.required("ServiceSpecificCredentialId")?;
    operation.check_user_exists(user).await?;
    let found = operation.account().change_user(operation.account_ref(), user, |user| {
        let credential = user.service_credentials.iter_mut().find(|credential| credential.id == id);
        credential.map(|credential| credential.active = status == "Active").is_some()
    });
    if found { Ok(operation.success("")) } else { Err(absent(id)) }
}

/// `DeleteServiceSpecificCredential`.
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    let id = operation.call.required("ServiceSpecificCredentialId")?;
    operation.check_user_exists(user).await?;
    let found = operation.account().change_user(operation.account_ref(), user, |user| {
        let before = user.service_credentials.len();
        user.service_credentials.retain(|credential| credential.id != id);
        user.service_credentials.len() < before
    });
    if found { Ok(operation.success("")) } else { Err(absent(id)) }
}

fn absent(id: &str) -> AwsError {
    AwsError::no_such_entity(format!("Service-specific credential {id} cannot be found."))
}
