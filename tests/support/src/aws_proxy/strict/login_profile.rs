//! Console passwords: enforces the password policy of the account, stores `PasswordResetRequired` and the creation date
//! of the password. The emulator does none of it.

use jiff::Timestamp;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml;
use super::Operation;

/// Checks the default policy of AWS, a minimum length and three of four character classes, and the API model, 1 to 128
/// characters of U+0020 to U+00FF.
fn check(password: &str, min_length: usize) -> Result<(), AwsError> {
    let length = password.chars().count();
    if !(1..=128).contains(&length) || !password.chars().all(|c| matches!(c, '\u{20}'..='\u{ff}' | '\t' | '\r' | '\n'))
    {
        // Without the value: the error is logged.
        return Err(AwsError::validation(
            "1 validation error detected: Value at 'password' failed to satisfy constraint",
        ));
    }
    let violation = |message: String| Err(AwsError::new(400, "PasswordPolicyViolation", message));
    if length < min_length {
        return violation(format!("Password should have a minimum length of {min_length}"));
    }
    let kinds: [fn(char) -> bool; 4] = [
        |c| c.is_ascii_uppercase(),
        |c| c.is_ascii_lowercase(),
        |c| c.is_ascii_digit(),
        |c| "!@#$%^&*()_+-=[]{}|'".contains(c),
    ];
    let used = kinds.iter().filter(|kind| password.chars().any(kind)).count();
    if used < 3 {
        return violation(
            "Password should have at least three of uppercase, lowercase, numbers and symbols".to_owned(),
        );
    }
    Ok(())
}

fn reset_required(operation: &Operation<'_>) -> Option<bool> {
    operation.call.param("PasswordResetRequired").map(|value| value == "true")
}

/// `CreateLoginProfile`.
pub(super) async fn create(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    check(operation.call.required("Password")?, operation.account().settings().password_min_length)?;
    let response = operation.forward_as(&operation.call.clone().with("UserName", user)).await?;
    if response.is_success() {
        operation.account().change_user(operation.account_ref(), user, |user| {
            user.password_reset_required = reset_required(operation).unwrap_or(false);
            user.password_set = Some(Timestamp::now());
        });
    }
    Ok(inject(operation, user, response))
}

/// `UpdateLoginProfile`; omitted parameters are unchanged.
pub(super) async fn update(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.call.required("UserName")?;
    if let Some(password) = operation.call.param("Password") {
        check(password, operation.account().settings().password_min_length)?;
    }
    let response = if operation.call.param("Password").is_some() {
        operation.forward().await?
    } else {
        // The emulator would treat the missing password as empty and lose the profile.
        operation.query(&Call::iam("GetLoginProfile").with("UserName", user)).await?;
        operation.success("")
    };
    if response.is_success()
        && let Some(required) = reset_required(operation)
    {
        operation.account().change_user(operation.account_ref(), user, |user| user.password_reset_required = required);
    }
    Ok(response)
}

/// `GetLoginProfile`.
pub(super) async fn get(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    let response = operation.forward_as(&operation.call.clone().with("UserName", user)).await?;
    Ok(inject(operation, user, response))
}

/// `DeleteLoginProfile`.
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let user = operation.user()?;
    let response = operation.forward_as(&operation.call.clone().with("UserName", user)).await?;
    if response.is_success() {
        operation.account().change_user(operation.account_ref(), user, |user| {
            user.password_reset_required = false;
            user.password_set = None;
        });
    }
    Ok(response)
}

fn inject(operation: &Operation<'_>, user: &str, response: AwsResponse) -> AwsResponse {
    if !response.is_success() {
        return response;
    }
    let known = operation.account().user(operation.account_ref(), user);
    response.edit_xml(|document, edits| {
        let Some(profile) = xml::find(document, "LoginProfile") else { return };
        let flag = if known.password_reset_required { "true" } else { "false" };
        match xml::child(profile, "PasswordResetRequired") {
            Some(element) => edits.set_text(element, flag),
            None => edits.append(profile, &xml::leaf("PasswordResetRequired", flag)),
        }
        if let (Some(element), Some(set)) = (xml::child(profile, "CreateDate"), known.password_set) {
            edits.set_text(element, &set.to_string());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_password_policy_is_enforced() {
        for good in ["abcdefG1", "abcdef1!", "ABCDEF1!", "Abcdefg!"] {
            assert!(check(good, 8).is_ok(), "{good}");
        }
        for (bad, code) in [
            ("abcdeF1", "PasswordPolicyViolation"),
            ("abcdefgh1", "PasswordPolicyViolation"),
            ("abcdefgh", "PasswordPolicyViolation"),
            ("", "ValidationError"),
            ("abcdefG1\u{1f600}", "ValidationError"),
        ] {
            let error = check(bad, 8).unwrap_err();
            assert_eq!(error.code, code, "{bad}");
            assert!(bad.is_empty() || !error.message.contains(bad), "an error never shows the password");
        }
        assert!(check("abcdefG1", 14).is_err());
    }
}
