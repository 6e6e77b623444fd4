//! Service-specific credentials, which the emulator does not know. At most two for each service of a user; the
//! password is shown once, in the answer to the creation.

use jiff::Timestamp;

use super::super::account::ServiceCredential;
use super::super::response::{AwsError, AwsResponse, random_hex};
use super::super::xml;
use super::{Work, names};

const QUOTA: usize = 2;
const SERVICES: [&str; 3] = ["codecommit.amazonaws.com", "cassandra.amazonaws.com", "bedrock.amazonaws.com"];

fn word(active: bool) -> &'static str {
    if active { "Active" } else { "Inactive" }
}

fn element(credential: &ServiceCredential, user: &str) -> String {
    xml::leaf("UserName", user)
        + &xml::leaf("Status", word(credential.active))
        + &xml::leaf("ServiceUserName", &credential.service_user_name)
        + &xml::leaf("CreateDate", &credential.created.to_string())
        + &xml::leaf("ServiceSpecificCredentialId", &credential.id)
        + &xml::leaf("ServiceName", &credential.service)
}

/// `CreateServiceSpecificCredential`.
pub(super) async fn create(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.call.required("UserName")?;
    let service = work.call.required("ServiceName")?;
    if !SERVICES.contains(&service) {
        return Err(AwsError::new(
            404,
            "NotSupportedService",
            format!("The service {service} does not support service-specific credentials."),
        ));
    }
    work.user_exists(user).await?;
    let credential = ServiceCredential {
        id: format!("ACCA{}", random_hex(16).to_uppercase()),
        service: service.to_owned(),
        service_user_name: format!("{user}-at-{}", work.account_ref().account),
        active: true,
        created: Timestamp::now(),
    };
    let made = element(&credential, user) + &xml::leaf("ServicePassword", &random_hex(40));
    let fits = work.account().change_user(work.account_ref(), user, |user| {
        let held = user.service_credentials.iter().filter(|held| held.service == credential.service).count();
        let fits = held < QUOTA;
        if fits {
            user.service_credentials.push(credential);
        }
        fits
    });
    if !fits {
        return Err(AwsError::limit_exceeded(format!(
            "Cannot exceed quota for ServiceSpecificCredentialsPerUser: {QUOTA}"
        )));
    }
    Ok(work.success(&xml::wrap("ServiceSpecificCredential", &made)))
}

/// `ListServiceSpecificCredentials`, of one user.
pub(super) async fn list(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    work.user_exists(user).await?;
    let wanted = work.call.param("ServiceName");
    let members: String = work
        .account()
        .user(work.account_ref(), user)
        .service_credentials
        .iter()
        .filter(|credential| wanted.is_none_or(|service| credential.service == service))
        .map(|credential| xml::wrap("member", &element(credential, user)))
        .collect();
    Ok(work.success(&(xml::wrap("ServiceSpecificCredentials", &members) + &xml::leaf("IsTruncated", "false"))))
}

/// `UpdateServiceSpecificCredential`.
pub(super) async fn update(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let status = work.call.required("Status")?;
    names::check_enum("status", status, &["Active", "Inactive"])?;
    let user = work.user()?;
    let id = work.call.required("ServiceSpecificCredentialId")?;
    work.user_exists(user).await?;
    let found = work.account().change_user(work.account_ref(), user, |user| {
        let credential = user.service_credentials.iter_mut().find(|credential| credential.id == id);
        credential.map(|credential| credential.active = status == "Active").is_some()
    });
    if found { Ok(work.success("")) } else { Err(absent(id)) }
}

/// `DeleteServiceSpecificCredential`.
pub(super) async fn delete(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    let id = work.call.required("ServiceSpecificCredentialId")?;
    work.user_exists(user).await?;
    let found = work.account().change_user(work.account_ref(), user, |user| {
        let before = user.service_credentials.len();
        user.service_credentials.retain(|credential| credential.id != id);
        user.service_credentials.len() < before
    });
    if found { Ok(work.success("")) } else { Err(absent(id)) }
}

fn absent(id: &str) -> AwsError {
    AwsError::no_such_entity(format!("Service-specific credential {id} cannot be found."))
}
