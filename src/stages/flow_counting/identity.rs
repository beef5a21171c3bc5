//! Which event an event is.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// 128 bits that stand for an event id: a UUID's own, or the beginning of the SHA-256 of
/// any other text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

/// Bytes of one on the changelog.
pub(super) const IDENTITY_BYTES: usize = 16;

impl Identity {
    pub fn of(event_id: &str) -> Self {
        match Uuid::try_parse(event_id) {
            Ok(uuid) => Self::from_bytes(*uuid.as_bytes()),
            Err(_) => {
                let digest = Sha256::digest(event_id.as_bytes());
                let (first, _) = digest.split_first_chunk().expect("32 bytes");
                Self::from_bytes(*first)
            }
        }
    }

    pub fn from_bytes(bytes: [u8; IDENTITY_BYTES]) -> Self {
        let number = u128::from_be_bytes(bytes);
        Self((number >> 64) as u64, number as u64)
    }

    pub fn to_bytes(self) -> [u8; IDENTITY_BYTES] {
        (u128::from(self.0) << 64 | u128::from(self.1)).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_itself_however_it_is_spelled_and_other_texts_are_told_apart() {
        let spelled = [
            "019b7d30-8b2e-8a11-9c55-0f6f3a2b1c4d",
            "019B7D30-8B2E-8A11-9C55-0F6F3A2B1C4D",
            "019b7d308b2e8a119c550f6f3a2b1c4d",
        ];
        let uuid = 0x019b_7d30_8b2e_8a11_9c55_0f6f_3a2b_1c4d_u128.to_be_bytes();
        for text in spelled {
            assert_eq!(Identity::of(text), Identity::from_bytes(uuid), "{text}");
            assert_eq!(Identity::of(text).to_bytes(), uuid);
        }
        assert_ne!(Identity::of("event-1"), Identity::of("event-2"));
        assert_ne!(Identity::of("Event-1"), Identity::of("event-1"));
        let whole = "9f86d081884c7d659a2feaa0c55ad015".to_owned();
        let digest = Identity::of("test").to_bytes();
        let written: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, whole, "the first half of the well-known digest");
    }
}
