//! Limits of the API model for names and paths: user names of `[\w+=,.@-]` with 1 to 64 characters on creation and up
//! to 128 in other calls, paths of 1 to 512 printable ASCII characters between slashes, policy names of 1 to 128
//! characters.

use super::super::response::AwsError;

const NAME_PATTERN: &str = "satisfy regular expression pattern: [\\w+=,.@-]+";

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

fn check(field: &str, name: &str, max: usize) -> Result<(), AwsError> {
    if name.is_empty() {
        return Err(AwsError::constraint(name, field, "have length greater than or equal to 1"));
    }
    if name.chars().count() > max {
        return Err(AwsError::constraint(name, field, &format!("have length less than or equal to {max}")));
    }
    if !name.chars().all(is_name_char) {
        // AWS uses this message for the character set, and the generic constraint message for lengths.
        return Err(AwsError::validation(format!(
            "The specified value for {field} is invalid. It must contain only alphanumeric characters and/or the \
             following: +=,.@_-"
        )));
    }
    Ok(())
}

/// Checks the name of a user to create.
pub(super) fn check_new_user(name: &str) -> Result<(), AwsError> {
    check("userName", name, 64)
}

/// Checks the name of a user in any other call.
pub(super) fn check_reference(name: &str) -> Result<(), AwsError> {
    check("userName", name, 128)
}

/// Checks the name of a policy.
pub(super) fn check_policy(name: &str) -> Result<(), AwsError> {
    check("policyName", name, 128)
}

/// Checks the path of a user or policy.
pub(super) fn check_path(path: &str) -> Result<(), AwsError> {
    if path.is_empty() || path.len() > 512 {
        return Err(AwsError::constraint(path, "path", "have length less than or equal to 512"));
    }
    let framed = path == "/" || (path.len() > 2 && path.starts_with('/') && path.ends_with('/'));
    if !framed || !path.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(AwsError::validation(
            "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric \
             characters and/or / characters.",
        ));
    }
    Ok(())
}

/// Checks the path of a managed policy, or the prefix of such paths, which has the same format.
pub(super) fn check_policy_path(field: &str, path: &str) -> Result<(), AwsError> {
    if path.is_empty() || path.len() > 512 {
        return Err(AwsError::constraint(path, field, "have length less than or equal to 512"));
    }
    let inner = path.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let valid = path == "/"
        || inner.is_some_and(|inner| inner.split('/').all(|part| !part.is_empty() && part.chars().all(is_name_char)));
    if !valid {
        let pattern = "satisfy regular expression pattern: ((/[A-Za-z0-9\\.,\\+@=_-]+)*)/";
        return Err(AwsError::constraint(path, field, pattern));
    }
    Ok(())
}

/// Checks the value of an enum parameter.
pub(super) fn check_enum(field: &str, value: &str, allowed: &[&str]) -> Result<(), AwsError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(AwsError::constraint(value, field, &format!("satisfy enum value set: [{}]", allowed.join(", "))))
}

/// Checks the format of an access key id.
pub(super) fn check_access_key_id(id: &str) -> Result<(), AwsError> {
    if !(16..=128).contains(&id.len()) {
        return Err(AwsError::constraint(id, "accessKeyId", "have length between 16 and 128"));
    }
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(AwsError::constraint(id, "accessKeyId", NAME_PATTERN));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_validated() {
        for good in ["a", "cycle-prod", "a+b=c,d.e@f_g-H1", &"x".repeat(64)] {
            assert!(check_new_user(good).is_ok(), "{good}");
        }
        for bad in ["", "bad name!", "sla/sh", "\u{fc}ml\u{e4}ut", "a:b", &"x".repeat(65)] {
            let error = check_new_user(bad).unwrap_err();
            assert_eq!((error.status, error.code.as_str()), (400, "ValidationError"), "{bad}");
        }
        assert!(check_reference(&"x".repeat(128)).is_ok());
        assert!(check_reference(&"x".repeat(129)).is_err());
    }

    #[test]
    fn paths_are_validated() {
        for good in ["/", "/a/", "/awsdeploy/team-1/", &format!("/{}/", "x".repeat(510))] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["", "//", "nopath", "/a", "a/", "/a b/", &format!("/{}/", "x".repeat(511))] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn policy_paths_consist_of_name_characters() {
        for good in ["/", "/a/", "/awsdeploy/team-1/u+d=p,l.o@y_/", &format!("/{}/", "x".repeat(510))] {
            assert!(check_policy_path("path", good).is_ok(), "{good}");
        }
        for bad in ["", "//", "a", "/a", "a/", "/a//b/", "/a b/", "/a:b/", "/a!/", &format!("/{}/", "x".repeat(511))] {
            assert!(check_policy_path("path", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_ids_and_enum_values_are_validated() {
        assert!(check_access_key_id("AKIAIOSFODNN7EXAMPLE").is_ok());
        assert!(check_access_key_id("AKIA").is_err());
        assert!(check_access_key_id("AKIAIOSFODNN7 EXAMPLE").is_err());
        assert!(check_enum("status", "Active", &["Active", "Inactive"]).is_ok());
        assert!(check_enum("status", "active", &["Active", "Inactive"]).is_err());
    }
}
