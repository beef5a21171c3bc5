//! How much of a foreign reply is kept, and what never is.

/// The first `limit` bytes as text that a database takes, `secrets` blacked out: servers
/// like to repeat what they were sent.
pub fn excerpt(body: &[u8], limit: usize, secrets: &[&str]) -> String {
    let longest = secrets.iter().map(|secret| secret.len()).max().unwrap_or(0);
    // Looks beyond the cut, so that none is cut in two and missed.
    let window = &body[..body.len().min(limit + longest)];
    let mut text = String::from_utf8_lossy(window).replace('\0', "\u{fffd}");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[secret]");
    }
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_no_secret_and_nothing_a_database_refuses() {
        let text = excerpt(b"{\"echo\":\"tok-1\",\"nul\":\"\0\"}", 100, &["tok-1", ""]);
        assert_eq!(text, "{\"echo\":\"[secret]\",\"nul\":\"\u{fffd}\"}");

        let mut body = vec![b'x'; 97];
        body.extend_from_slice(b"tok-1 and more");
        let text = excerpt(&body, 100, &["tok-1"]);
        assert!(!text.contains("tok"), "a secret over the cut: {text}");
        assert_eq!(text.len(), 100);

        assert!(excerpt("ü".repeat(100).as_bytes(), 100, &[]).len() <= 100);
    }
}
