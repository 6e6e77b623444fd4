//! Whether a resource of a statement can be one of the resources of an action.

use std::borrow::Cow;

/// Whether some ARN matches both the format of a resource type and the pattern of a statement. In a format, `*` stands for any
/// text and `%` for any text without a slash; in a pattern, `*` and `?` are wildcards and a variable stands for any text. As in
/// IAM, a wildcard of one of the first five parts does not match a colon.
pub(super) fn overlaps(format: &str, pattern: &str) -> bool {
    let pattern = without_variables(pattern);
    let (mut formats, mut patterns) = (format.splitn(6, ':'), pattern.splitn(6, ':'));
    (0..6).all(|_| {
        // IAM reads a part that a pattern lacks as `*`.
        let (format, pattern) = (formats.next().unwrap_or("*"), patterns.next().unwrap_or("*"));
        parts_overlap(format.as_bytes(), pattern.as_bytes())
    })
}

/// The pattern with `*` for each variable, such as `${aws:username}`, whose colon separates no parts.
fn without_variables(pattern: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(pattern);
    while let Some(start) = text.find("${") {
        let Some(end) = text[start..].find('}') else { break };
        text = Cow::Owned(format!("{}*{}", &text[..start], &text[start + end + 1..]));
    }
    text
}

/// Dynamic program over the suffixes of both texts: `row[j]` says whether the current suffix of the format overlaps `pattern[j..]`.
fn parts_overlap(format: &[u8], pattern: &[u8]) -> bool {
    let mut row = vec![false; pattern.len() + 1];
    for i in (0..=format.len()).rev() {
        let below = std::mem::replace(&mut row, vec![false; pattern.len() + 1]);
        for j in (0..=pattern.len()).rev() {
            let (own, other) = (format.get(i), pattern.get(j));
            row[j] = match (own, other) {
                (None, None) => true,
                // A wildcard is empty, or matches the next character of the other text.
                (Some(b'*'), _) if below[j] || (other.is_some() && row[j + 1]) => true,
                (Some(b'%'), _) if below[j] || (other.is_some_and(|c| *c != b'/') && row[j + 1]) => true,
                (_, Some(b'*')) if row[j + 1] || (own.is_some() && below[j]) => true,
                (Some(own), Some(other)) => {
                    let same = own == other || *other == b'?';
                    same && !matches!(own, b'*' | b'%') && below[j + 1]
                }
                _ => false,
            };
        }
    }
    row[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_overlaps_the_formats_that_it_can_be() {
        const BUCKET: &str = "arn:*:s3:::%";
        const OBJECT: &str = "arn:*:s3:::%/*";
        const INSTANCE: &str = "arn:*:ec2:*:*:instance/*";
        for (format, pattern, expected) in [
            (BUCKET, "arn:aws:s3:::logs", true),
            (BUCKET, "arn:aws:s3:::logs-*", true),
            (BUCKET, "arn:aws:s3:::logs/*", false),
            (OBJECT, "arn:aws:s3:::logs/*", true),
            (OBJECT, "arn:aws:s3:::logs", false),
            (OBJECT, "arn:aws:s3:::logs*", true),
            (OBJECT, "arn:aws:s3:::${aws:PrincipalTag/bucket}/x", true),
            (OBJECT, "arn:aws:s3:::*", true),
            (OBJECT, "arn:aws:s3:eu-west-1::logs/x", false),
            (INSTANCE, "arn:aws:ec2:eu-central-1:123456789012:instance/*", true),
            (INSTANCE, "arn:aws:ec2:*:*:*", true),
            (INSTANCE, "arn:aws:ec2:*", true),
            (INSTANCE, "arn:aws:ec2:*:*:i*-?", true),
            (INSTANCE, "arn:aws:ec2:*:*:volume/*", false),
            (INSTANCE, "arn:aws:s3:::logs", false),
            (INSTANCE, "arn:aws:ec2:eu-central-1:${aws:PrincipalAccount}:instance/i-1", true),
            ("arn:*:logs:*:*:log-group:*:log-stream:*", "arn:aws:logs:*:*:log-group:/app:*", true),
        ] {
            assert_eq!(overlaps(format, pattern), expected, "{format} {pattern}");
        }
    }
}
