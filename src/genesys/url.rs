//! Where the platform is: checked before anything is called.

use reqwest::Url;

use super::error::ClientError;

pub(super) fn parse_url(name: &'static str, value: &str) -> Result<Url, ClientError> {
    let refuse = |problem: String| ClientError::Url { name, value: value.to_owned(), problem };
    let url = Url::parse(value).map_err(|error| refuse(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refuse("it must begin with https:// or http:// and name a host".to_owned()));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(refuse("it must have no credentials, query or fragment".to_owned()));
    }
    Ok(url)
}

/// The URL without a slash at its end, ready for paths to be put behind it.
pub(super) fn checked_url(name: &'static str, value: &str) -> Result<String, ClientError> {
    parse_url(name, value)?;
    Ok(value.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_before_anything_is_called() {
        assert_eq!(checked_url("genesys.base_url", "http://h:1/a/").unwrap(), "http://h:1/a");
        for value in ["", "h", "ftp://h", "http://user:secret@h", "http://h?x=1", "http://h#x", "file:///etc"]
        {
            assert!(checked_url("genesys.base_url", value).is_err(), "{value}");
        }
    }
}
