//! Console passwords: the account's password policy is enforced, `PasswordResetRequired` is kept, and the creation
//! date is that of the password. The emulator drops all three.

use jiff::Timestamp;
use roxmltree::Document;

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml::{self, Edits};
use super::Work;

/// AWS's default policy: a minimum length, three of four kinds of characters, and not the account's name. The wire
/// takes 1 to 128 characters of U+0020 to U+00FF.
fn check(password: &str, min_length: usize) -> Result<(), AwsError> {
    let length = password.chars().count();
    if !(1..=128).contains(&length) || !password.chars().all(|c| matches!(c, '\u{20}'..='\u{ff}' | '\t' | '\r' | '\n'))
    {
        // Without the value: this error is printed.
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

fn reset_required(work: &Work<'_>) -> Option<bool> {
    work.call.param("PasswordResetRequired").map(|value| value == "true")
}

/// `CreateLoginProfile`.
pub(super) async fn create(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    check(work.call.required("Password")?, work.account().settings().password_min_length)?;
    let answer = work.forward_as(&work.call.clone().with("UserName", user)).await?;
    if answer.is_success() {
        work.account().change_user(work.account_ref(), user, |user| {
            user.password_reset_required = reset_required(work).unwrap_or(false);
            user.password_set = Some(Timestamp::now());
        });
    }
    Ok(inject(work, user, answer))
}

/// `UpdateLoginProfile`: what is left out stays as it is.
pub(super) async fn update(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.call.required("UserName")?;
    if let Some(password) = work.call.param("Password") {
        check(password, work.account().settings().password_min_length)?;
    }
    let answer = if work.call.param("Password").is_some() {
        work.forward().await?
    } else {
        // The emulator would take the missing password for an empty one and forget the profile.
        work.ask(&Call::iam("GetLoginProfile").with("UserName", user)).await?;
        work.success("")
    };
    if answer.is_success()
        && let Some(required) = reset_required(work)
    {
        work.account().change_user(work.account_ref(), user, |user| user.password_reset_required = required);
    }
    Ok(answer)
}

/// `GetLoginProfile`.
pub(super) async fn get(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    let answer = work.forward_as(&work.call.clone().with("UserName", user)).await?;
    Ok(inject(work, user, answer))
}

/// `DeleteLoginProfile`.
pub(super) async fn delete(work: &Work<'_>) -> Result<AwsResponse, AwsError> {
    let user = work.user()?;
    let answer = work.forward_as(&work.call.clone().with("UserName", user)).await?;
    if answer.is_success() {
        work.account().change_user(work.account_ref(), user, |user| {
            user.password_reset_required = false;
            user.password_set = None;
        });
    }
    Ok(answer)
}

fn inject(work: &Work<'_>, user: &str, mut answer: AwsResponse) -> AwsResponse {
    if !answer.is_success() {
        return answer;
    }
    let known = work.account().user(work.account_ref(), user);
    let edited = Document::parse(&answer.body).ok().and_then(|document| {
        let profile = xml::find(&document, "LoginProfile")?;
        let mut edits = Edits::of(&answer.body);
        let flag = if known.password_reset_required { "true" } else { "false" };
        match xml::child(profile, "PasswordResetRequired") {
            Some(element) => edits.set_text(element, flag),
            None => edits.append(profile, &xml::leaf("PasswordResetRequired", flag)),
        }
        if let (Some(element), Some(set)) = (xml::child(profile, "CreateDate"), known.password_set) {
            edits.set_text(element, &set.to_string());
        }
        Some(edits.finish())
    });
    if let Some(edited) = edited {
        answer.body = edited;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_password_policy() {
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
