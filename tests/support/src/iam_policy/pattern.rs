//! Wildcards: `*` matches any run of characters, `?` matches one character.

/// Whether the pattern matches the whole text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The position of the last `*`, and the end of the text that it consumes so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    (p, t) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Whether an ARN matches, part by part. The sixth part is everything after the fifth colon.
pub(super) fn matches_arn(pattern: &str, arn: &str) -> bool {
    let parts = |text: &'_ str| text.splitn(6, ':').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, arn) = (parts(pattern), parts(arn));
    pattern.len() == arn.len() && pattern.iter().zip(&arn).all(|(pattern, part)| matches(pattern, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_the_whole_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("*ab", "aab", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a.c", "abc", false),
            ("iam:*user", "iam:getuser", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn star_does_not_cross_a_colon_of_an_arn() {
        let user = "arn:aws:iam::123456789012:user/a/b/u";
        for (pattern, expected) in [
            ("arn:aws:iam::123456789012:user/a/*", true),
            ("arn:aws:iam::*:user/*", true),
            ("arn:aws:iam::123456789012:user/a/u", false),
            ("arn:aws:iam::123456789012:User/a/*", false),
            ("arn:*:user/a/b/u", false),
            ("arn:*", false),
        ] {
            assert_eq!(matches_arn(pattern, user), expected, "{pattern}");
        }
    }
}
