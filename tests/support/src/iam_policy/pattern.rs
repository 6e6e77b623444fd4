//! Wildcards: `*` is any run of characters, `?` is any one.

/// Whether the text fits the pattern as a whole.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how far it reaches in the text so far.
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

/// Whether an ARN fits: part by part, the sixth being all the rest.
pub(super) fn matches_arn(pattern: &str, arn: &str) -> bool {
    let parts = |text: &'_ str| text.splitn(6, ':').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, arn) = (parts(pattern), parts(arn));
    pattern.len() == arn.len() && pattern.iter().zip(&arn).all(|(pattern, part)| fits(pattern, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, wanted) in [
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
            assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn a_star_does_not_reach_beyond_its_part_of_an_arn() {
        let user = "arn:aws:iam::123456789012:user/a/b/u";
        for (pattern, wanted) in [
            ("arn:aws:iam::123456789012:user/a/*", true),
            ("arn:aws:iam::*:user/*", true),
            ("arn:aws:iam::123456789012:user/a/u", false),
            ("arn:aws:iam::123456789012:User/a/*", false),
            ("arn:*:user/a/b/u", false),
            ("arn:*", false),
        ] {
            assert_eq!(matches_arn(pattern, user), wanted, "{pattern}");
        }
    }
}
