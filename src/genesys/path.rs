//! Foreign text as part of a path.

/// An id as one segment of a path: everything but RFC 3986's unreserved
/// characters is percent-encoded, so that no id reaches another path.
pub(super) struct PathSegment<'a>(pub &'a str);

impl std::fmt::Display for PathSegment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A segment of dots alone would be resolved away, however it is spelled.
        let dots = self.0.bytes().all(|byte| byte == b'.');
        for byte in self.0.bytes() {
            match byte {
                b'.' if dots => f.write_str("%252E")?,
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    write!(f, "{}", byte as char)?
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_reaches_another_path() {
        let spelled = |id| PathSegment(id).to_string();
        assert_eq!(spelled("a b/../c?d=e&f"), "a%20b%2F..%2Fc%3Fd%3De%26f");
        assert_eq!((spelled(".."), spelled("1.0")), ("%252E%252E".to_owned(), "1.0".to_owned()));
    }
}
