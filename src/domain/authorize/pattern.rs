//! Wildcard patterns and the canonical form of managed policies.

/// Whether the pattern matches the whole text. `*` matches any characters, including `/`.
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

/// Canonical form of a managed policy: path and name for AWS managed policies, the ARN for others. The partition is
/// ignored, because a policy of another partition cannot exist in the account.
#[must_use]
pub fn canonicalize(declared: &str) -> &str {
    let split = |rest: &'static str| declared.find(rest).map(|at| (&declared[..at], &declared[at + rest.len()..]));
    match split(":iam::aws:policy/") {
        Some((partition, name)) if partition.starts_with("arn:aws") => name,
        _ => declared,
    }
}

/// Whether one of the patterns matches the managed policy. A pattern without an ARN matches AWS managed policies only,
/// except `*`, which matches every policy.
#[must_use]
pub fn allows_policy(patterns: &[String], declared: &str) -> bool {
    let declared = canonicalize(declared);
    patterns.iter().any(|pattern| {
        // Compare before canonicalizing: `arn:aws:iam::aws:policy/*` also becomes `*`, but is limited to AWS managed policies.
        let all = pattern == "*";
        let pattern = canonicalize(pattern);
        all || (pattern.starts_with("arn:") == declared.starts_with("arn:") && matches(pattern, declared))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_anything_and_nothing_else_is_special() {
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
    fn aws_managed_policies_match_by_name_and_by_arn() {
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
