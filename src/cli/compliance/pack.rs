//! One tar archive of files with their digests and a signature over those. The same files give
//! the same archive, byte for byte.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::signature::Signer;

/// As `sha256sum -c` reads it.
pub(super) const DIGESTS: &str = "SHA256SUMS";
pub(super) const SIGNATURE: &str = "SHA256SUMS.sig";
pub(super) const PUBLIC_KEY: &str = "public-key.pem";

/// Files of one folder.
pub(super) struct Pack {
    folder: String,
    files: Vec<(String, Vec<u8>)>,
}

impl Pack {
    pub(super) fn new(folder: String) -> Self {
        Self { folder, files: Vec::new() }
    }

    /// Adds a file, whose name is plain.
    pub(super) fn add(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.files.push((name.to_owned(), content.into()));
    }

    /// Name, length and digest of each file.
    pub(super) fn listed(&self) -> Vec<(String, usize, String)> {
        self.files.iter().map(|(name, content)| (name.clone(), content.len(), sha256(content))).collect()
    }

    /// Writes the archive, with the digests of all files and, where there is a key, its signature.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(mut self, signer: Option<&Signer>, out: &mut impl Write) -> std::io::Result<()> {
        if let Some(signer) = signer {
            self.add(PUBLIC_KEY, signer.public_pem());
        }
        self.files.sort();
        let digests: String =
            self.listed().into_iter().map(|(name, _, digest)| format!("{digest}  {name}\n")).collect();
        if let Some(signer) = signer {
            self.files.push((SIGNATURE.to_owned(), signer.sign(digests.as_bytes())));
        }
        self.files.push((DIGESTS.to_owned(), digests.into_bytes()));
        let mut archive = tar::Builder::new(out);
        for (name, content) in &self.files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o444);
            header.set_mtime(0);
            archive.append_data(&mut header, format!("{}/{name}", self.folder), content.as_slice())?;
        }
        archive.into_inner()?.flush()
    }
}

/// As hexadecimal digits.
pub(super) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
