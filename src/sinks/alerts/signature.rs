//! Signatures as Standard Webhooks has them: HMAC-SHA256 of `{id}.{timestamp}.{body}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

/// What a receiver's messages are signed with.
#[derive(Clone, Debug)]
pub(super) struct Keys(Vec<SecretSlice<u8>>);

/// The text is not `whsec_` and base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret must be whsec_ and base64")]
pub(super) struct BadSecret;

impl Keys {
    /// # Errors
    /// When one of them cannot be read.
    pub(super) fn read(secrets: &[SecretString]) -> Result<Self, BadSecret> {
        let key = |secret: &SecretString| {
            let text = secret.expose_secret().strip_prefix("whsec_").ok_or(BadSecret)?;
            STANDARD.decode(text).map(SecretSlice::from).map_err(|_| BadSecret)
        };
        secrets.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// The header `webhook-signature`: one signature per key.
    pub(super) fn sign(&self, id: &str, timestamp: &str, body: &str) -> String {
        let signatures = self.0.iter().map(|key| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("keys of any length are taken");
            mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let keys = Keys::read(std::slice::from_ref(&secret)).unwrap();
        let (id, timestamp) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(keys.sign(id, timestamp, r#"{"test": 2432232314}"#), signature);
        let two = Keys::read(&[secret.clone(), secret]).unwrap();
        assert_eq!(two.sign(id, timestamp, r#"{"test": 2432232314}"#), format!("{signature} {signature}"));
        assert_eq!(Keys::read(&["nothing".into()]).unwrap_err(), BadSecret);
    }
}
