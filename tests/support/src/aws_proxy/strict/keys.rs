//! Access keys: created keys are registered for the signature check, the status is validated, `ListAccessKeys` may omit
//! new keys, and a rule may allow more than two keys.

use jiff::Timestamp;

use super::super::key::KeyState;
use super::super::response::{AwsError, AwsResponse, random_hex};
use super::super::xml;
use super::{Operation, names, paging};

const STATUSES: [&str; 2] = ["Active", "Inactive"];

fn status_name(state: KeyState) -> &'static str {
    if state == KeyState::Active { "Active" } else { "Inactive" }
}

/// `CreateAccessKey`.
pub(super) async fn create(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    let response = operation.forward_as(&operation.call.clone().with("UserName", user)).await?;
    if response.is_success() {
        let id = xml::text_in(&response.body, "AccessKeyId");
        let secret = xml::text_in(&response.body, "SecretAccessKey");
        if let (Some(id), Some(secret)) = (id, secret) {
            operation.account().record_key(operation.account_ref(), user, &id, &secret);
        }
        return Ok(response);
    }
    if operation.flags.allow_third_key && response.error_code().as_deref() == Some("LimitExceeded") {
        return Ok(create_beyond_quota(operation, user));
    }
    Ok(response)
}

/// Creates a key in the account state: the emulator does not store a third key.
fn create_beyond_quota(operation: &Operation<'_>, user: &str) -> AwsResponse {
    let id = format!("AKIA{}", random_hex(16).to_uppercase());
    let secret = random_hex(40);
    let now = Timestamp::now();
    operation.account().record_key_beyond_quota(operation.account_ref(), user, &id, &secret, now);
    let key = xml::leaf("UserName", user)
        + &xml::leaf("AccessKeyId", &id)
        + &xml::leaf("Status", "Active")
        + &xml::leaf("SecretAccessKey", &secret)
        + &xml::leaf("CreateDate", &now.to_string());
    operation.success(&xml::wrap("AccessKey", &key))
}

/// `UpdateAccessKey`.
pub(super) async fn update(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let id = operation.call.required("AccessKeyId")?;
    names::check_access_key_id(id)?;
    let status = operation.call.required("Status")?;
    names::check_enum("status", status, &STATUSES)?;
    let to = if status == "Active" { KeyState::Active } else { KeyState::Inactive };
    change(operation, id, to).await
}

/// `DeleteAccessKey`. AWS deletes active keys too; only the console requires deactivation first.
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let id = operation.call.required("AccessKeyId")?;
    names::check_access_key_id(id)?;
    change(operation, id, KeyState::Deleted).await
}

async fn change(operation: &Operation<'_>, id: &str, to: KeyState) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    let _lock = operation.account().lock_user(operation.account_ref(), user).await;
    if is_beyond_quota(operation, user, id) {
        operation.account().record_key_state(id, to);
        return Ok(operation.success(""));
    }
    let response = operation.forward_as(&operation.call.clone().with("UserName", user)).await?;
    if response.is_success() {
        operation.account().record_key_state(id, to);
    }
    Ok(response)
}

fn is_beyond_quota(operation: &Operation<'_>, user: &str, id: &str) -> bool {
    operation.account().keys_beyond_quota(operation.account_ref(), user).iter().any(|(key_id, ..)| key_id == id)
}

/// `ListAccessKeys`.
pub(super) async fn list(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?.to_owned();
    paging::list_after(operation, |response| rewrite(operation, &user, response)).await
}

fn rewrite(operation: &Operation<'_>, user: &str, response: AwsResponse) -> AwsResponse {
    let extra = operation.account().keys_beyond_quota(operation.account_ref(), user);
    let hidden = |id: &str| {
        let age = operation.account().key(id).map(|key| key.created.elapsed());
        matches!((age, operation.flags.hide_new_keys), (Some(age), Some(young)) if age < young)
    };
    response.edit_xml(|document, edits| {
        let Some(list) = xml::find(document, "AccessKeyMetadata") else { return };
        for key in xml::members(list) {
            // The emulator keeps the user name of the time of creation.
            if let Some(name) = xml::child(key, "UserName") {
                edits.set_text(name, user);
            }
            if xml::child_text(key, "AccessKeyId").is_some_and(hidden) {
                edits.remove(key);
            }
        }
        let extra: String = extra
            .iter()
            .filter(|(id, ..)| !hidden(id))
            .map(|(id, state, created)| {
                let key = xml::leaf("UserName", user)
                    + &xml::leaf("AccessKeyId", id)
                    + &xml::leaf("Status", status_name(*state))
                    + &xml::leaf("CreateDate", &created.to_string());
                xml::wrap("member", &key)
            })
            .collect();
        if !extra.is_empty() {
            edits.append(list, &extra);
        }
    })
}
