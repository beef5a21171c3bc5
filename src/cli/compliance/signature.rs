//! Ed25519 over the list of digests (RFC 8032), in files that openssl reads.

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use secrecy::{ExposeSecret as _, SecretString};

/// Of the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410): all but its 32 bytes.
const PUBLIC_KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const REMEDY: &str = "compliance.signing_key must be an Ed25519 private key, PKCS#8 as PEM; make one with: \
     openssl genpkey -algorithm ed25519";

/// A private key.
pub(super) struct Signer(Ed25519KeyPair);

impl Signer {
    /// # Errors
    /// When the text is no such key; says nothing of it.
    pub(super) fn from_pem(pem: &SecretString) -> anyhow::Result<Self> {
        let lines: Vec<&str> =
            pem.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let [first, body @ .., last] = lines.as_slice() else { bail!("{REMEDY}") };
        if *first != "-----BEGIN PRIVATE KEY-----" || *last != "-----END PRIVATE KEY-----" {
            bail!("{REMEDY}");
        }
        let der = STANDARD.decode(body.concat()).ok().context(REMEDY)?;
        // openssl writes the first version of the format, without the public key.
        Ok(Self(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok().context(REMEDY)?))
    }

    /// 64 bytes.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }

    /// The public key as PEM.
    pub(super) fn public_pem(&self) -> String {
        let body = STANDARD.encode(self.public_der());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    fn public_der(&self) -> Vec<u8> {
        [&PUBLIC_KEY_PREFIX, self.0.public_key().as_ref()].concat()
    }

    /// SHA-256 of the public key in DER, hexadecimal: what its owner publishes.
    pub(super) fn fingerprint(&self) -> String {
        super::pack::sha256(&self.public_der())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test vector of RFC 8032, 7.1.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&seed[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let der = [
            &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20],
            &*seed,
        ]
        .concat();
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        let signer = Signer::from_pem(&pem.into()).unwrap();
        let signature = signer.sign(b"");
        assert_eq!(signature[..8], [0xe5, 0x56, 0x43, 0x00, 0xc3, 0x60, 0xac, 0x72]);
        let public = signer.public_der();
        assert_eq!(public[12..16], [0xd7, 0x5a, 0x98, 0x01]);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_told() {
        for text in ["", "canary", "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----"] {
            let error = Signer::from_pem(&text.to_owned().into()).err().unwrap().to_string();
            assert!(error.contains("openssl genpkey") && !error.contains("canary"), "{error}");
        }
    }
}
