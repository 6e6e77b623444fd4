//! Patterns in which `*` stands for anything, and managed policies in one spelling.

/// Whether the text fits the pattern as a whole. `*` is any run of characters, `/` among them.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A managed policy as it is compared: AWS's own by path and name, whatever the partition; others by their ARN.
/// A policy of another partition does not exist in the account, so nothing is lost by not telling them apart.
#[must_use]
pub fn canonicalize(declared: &str) -> &str {
    let own = |rest: &'static str| declared.find(rest).map(|at| (&declared[..at], &declared[at + rest.len()..]));
    match own(":iam::aws:policy/") {
        Some((partition, name)) if partition.starts_with("arn:aws") => name,
        _ => declared,
    }
}

/// Whether one of the patterns covers the managed policy. A pattern without an ARN speaks of AWS's own policies, but for
/// `*` alone, which is every policy.
#[must_use]
pub fn allows_policy(patterns: &[String], declared: &str) -> bool {
    let declared = canonicalize(declared);
    patterns.iter().any(|pattern| {
        // As it is written: all policies of AWS, with an ARN, are a star too once the ARN is gone.
        let all = pattern == "*";
        let pattern = canonicalize(pattern);
        all || (pattern.starts_with("arn:") == declared.starts_with("arn:") && matches(pattern, declared))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything_and_nothing_else_is_special() {
        for (pattern, text, wanted) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("ab*ba", "aba", false),
            ("a.c", "abc", false),
            ("a+", "aa", false),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn policies_of_aws_are_the_same_by_name_and_by_arn_and_no_others_are() {
        let allowed = |pattern: &str, declared: &str| allows_policy(&[pattern.to_owned()], declared);
        assert!(allowed("AmazonEC2FullAccess", "arn:aws-cn:iam::aws:policy/AmazonEC2FullAccess"));
        assert!(allowed("arn:aws:iam::aws:policy/AmazonEC2*", "AmazonEC2FullAccess"));
        assert!(allowed("arn:aws:iam::123456789012:policy/deploy/*", "arn:aws:iam::123456789012:policy/deploy/a"));
        assert!(!allowed("arn:aws:iam::123456789012:policy/deploy/*", "arn:aws:iam::123456789013:policy/deploy/a"));
        assert!(!allowed("AmazonEC2FullAccess", "arn:aws:iam::123456789012:policy/AmazonEC2FullAccess"));
        for pattern in ["deploy-*", "*deploy-a", "a*"] {
            assert!(!allowed(pattern, "arn:aws:iam::123456789012:policy/deploy-a"), "{pattern}");
        }
        assert!(allowed("*", "arn:aws:iam::123456789012:policy/deploy-a"));
        assert!(allowed("arn:aws:iam::aws:policy/*", "AmazonEC2FullAccess"));
        assert!(!allowed("arn:aws:iam::aws:policy/*", "arn:aws:iam::123456789012:policy/deploy-a"));
        assert!(!allowed("AmazonEC2FullAccess", "job-function/AmazonEC2FullAccess"));
    }
}
