//! Takes a body out of its content encoding.

use std::borrow::Cow;
use std::io::Read;

use axum::http::{HeaderMap, header};
use flate2::read::MultiGzDecoder;

use crate::model::ingest::Refusal;

/// How a body was made smaller for its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// A body as it was before it was encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoded<'b> {
    Whole(Cow<'b, [u8]>),
    /// Its first bytes, as many as are allowed; more followed.
    TooLarge(Vec<u8>),
}

impl Encoding {
    /// # Errors
    /// When the headers announce something that is not read here.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut encoding = Self::Identity;
        let values =
            headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
        for name in values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()) {
            match name.as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" if encoding == Self::Identity => encoding = Self::Gzip,
                _ => {
                    let why = "this content-encoding is not read; send the body with gzip, or as it is";
                    return Err(Refusal::UnsupportedMediaType(why.to_owned()));
                }
            }
        }
        Ok(encoding)
    }

    /// The body, of at most `limit` bytes.
    ///
    /// # Errors
    /// When it is not encoded as announced.
    pub(super) fn decode(self, body: &[u8], limit: usize) -> Result<Decoded<'_>, Refusal> {
        match self {
            Self::Identity => Ok(Decoded::Whole(Cow::Borrowed(body))),
            Self::Gzip => {
                let mut decoded = Vec::new();
                // One byte more tells that there is more.
                let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
                let read = MultiGzDecoder::new(body).take(most).read_to_end(&mut decoded);
                read.map_err(|error| Refusal::Malformed(format!("the body is no gzip: {error}")))?;
                if decoded.len() > limit {
                    decoded.truncate(limit);
                    return Ok(Decoded::TooLarge(decoded));
                }
                Ok(Decoded::Whole(Cow::Owned(decoded)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_taken_off_up_to_a_length() {
        let decode = |body: &[u8]| {
            Encoding::Gzip.decode(body, 10).map(|decoded| match decoded {
                Decoded::Whole(body) => Ok(body.into_owned()),
                Decoded::TooLarge(begun) => Err(begun),
            })
        };
        assert_eq!(decode(&gzip(b"0123456789")), Ok(Ok(b"0123456789".to_vec())));
        assert_eq!(
            decode(&[gzip(b"01234"), gzip(b"56789")].concat()),
            Ok(Ok(b"0123456789".to_vec())),
            "two members"
        );
        let bomb = gzip(&vec![b'x'; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(decode(&bomb), Ok(Err(b"xxxxxxxxxx".to_vec())));
        for broken in [&gzip(b"0123")[..15], b"{}"] {
            assert!(matches!(decode(broken), Err(Refusal::Malformed(_))), "{broken:?}");
        }
    }

    #[test]
    fn headers_say_the_encoding_or_are_refused_with_what_is_taken() {
        let of = |value: &str| {
            Encoding::of(&HeaderMap::from_iter([(header::CONTENT_ENCODING, value.parse().unwrap())]))
        };
        assert_eq!(Encoding::of(&HeaderMap::new()), Ok(Encoding::Identity));
        for (value, encoding) in [
            ("", Encoding::Identity),
            ("Identity", Encoding::Identity),
            ("GZIP", Encoding::Gzip),
            ("identity, x-gzip", Encoding::Gzip),
        ] {
            assert_eq!(of(value), Ok(encoding), "{value}");
        }
        for value in ["br", "deflate", "gzip, gzip", "zstd"] {
            let Err(Refusal::UnsupportedMediaType(why)) = of(value) else { panic!("{value}") };
            assert!(why.contains("gzip"), "{why}");
        }
    }
}
