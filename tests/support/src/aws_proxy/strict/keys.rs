//! Access keys: what was minted is remembered, so that the signature check knows it; the status is one of two words;
//! `ListAccessKeys` may lag; and, on request, the quota of two can be passed.

use jiff::Timestamp;
use roxmltree::Document;

use super::super::key::KeyState;
use super::super::response::{AwsError, AwsResponse, random_hex};
use super::super::xml::{self, Edits};
use super::{Work, names, paging};

const STATUSES: [&str; 2] = ["Active", "Inactive"];

fn word(state: KeyState) -> &'static str {
    if state == KeyState::Active { "Active" } else { "Inactive" }
}

/// `CreateAccessKey`.
pub(super) async fn create(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    let _lock = work.account().lock_user(work.account_ref(), user).await;
    let answer = work.forward_as(&work.call.clone().with("UserName", user)).await?;
    if answer.is_success() {
        let id = xml::text_in(&answer.body, "AccessKeyId");
        let secret = xml::text_in(&answer.body, "SecretAccessKey");
        if let (Some(id), Some(secret)) = (id, secret) {
            work.account().key_made(work.account_ref(), user, &id, &secret);
        }
        return Ok(answer);
    }
    if work.flags.allow_third_key && answer.error_code().as_deref() == Some("LimitExceeded") {
        return Ok(create_beyond_quota(work, user));
    }
    Ok(answer)
}

/// The emulator will not hold a third key, so we do.
fn create_beyond_quota(work: &Work<'_>, user: &str) -> AwsResponse {
    let id = format!("AKIA{}", random_hex(16).to_uppercase());
    let secret = random_hex(40);
    let now = Timestamp::now();
    work.account().key_made_beyond_quota(work.account_ref(), user, &id, &secret, now);
    let key = xml::leaf("UserName", user)
        + &xml::leaf("AccessKeyId", &id)
        + &xml::leaf("Status", "Active")
        + &xml::leaf("SecretAccessKey", &secret)
        + &xml::leaf("CreateDate", &now.to_string());
    work.success(&xml::wrap("AccessKey", &key))
}

/// `UpdateAccessKey`.
pub(super) async fn update(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let id = work.call.required("AccessKeyId")?;
    names::check_access_key_id(id)?;
    let status = work.call.required("Status")?;
    names::check_enum("status", status, &STATUSES)?;
    let to = if status == "Active" { KeyState::Active } else { KeyState::Inactive };
    change(work, id, to).await
}

/// `DeleteAccessKey`. An active key may go too; only the console asks for it to be deactivated first.
pub(super) async fn delete(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let id = work.call.required("AccessKeyId")?;
    names::check_access_key_id(id)?;
    change(work, id, KeyState::Deleted).await
}

async fn change(work: &Work<'_>, id: &str, to: KeyState) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    let _lock = work.account().lock_user(work.account_ref(), user).await;
    if is_beyond_quota(work, user, id) {
        work.account().key_changed(id, to);
        return Ok(work.success(""));
    }
    let answer = work.forward_as(&work.call.clone().with("UserName", user)).await?;
    if answer.is_success() {
        work.account().key_changed(id, to);
    }
    Ok(answer)
}

fn is_beyond_quota(work: &Work<'_>, user: &str, id: &str) -> bool {
    work.account().keys_beyond_quota(work.account_ref(), user).iter().any(|(held, ..)| held == id)
}

/// `ListAccessKeys`.
pub(super) async fn list(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?.to_owned();
    paging::list_after(work, |answer| rewrite(work, &user, answer)).await
}

fn rewrite(work: &Work<'_>, user: &str, mut answer: AwsResponse) -> AwsResponse {
    let extra = work.account().keys_beyond_quota(work.account_ref(), user);
    let hidden = |id: &str| {
        let age = work.account().key(id).map(|key| key.created.elapsed());
        matches!((age, work.flags.hide_new_keys), (Some(age), Some(young)) if age < young)
    };
    let edited = Document::parse(&answer.body).ok().and_then(|document| {
        let mut edits = Edits::of(&answer.body);
        let list = xml::find(&document, "AccessKeyMetadata")?;
        for key in xml::members(list) {
            // The emulator stamps the name that the user had when the key was made.
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
                    + &xml::leaf("Status", word(*state))
                    + &xml::leaf("CreateDate", &created.to_string());
                xml::wrap("member", &key)
            })
            .collect();
        if !extra.is_empty() {
            edits.append(list, &extra);
        }
        Some(edits.finish())
    });
    if let Some(edited) = edited {
        answer.body = edited;
    }
    answer
}
