//! A name for this instance that is free now and comes back after a restart.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// More instances of one deployment than this on one host are a mistake.
const MOST_PER_HOST: usize = 1_000;

/// Held for the life of the process. The kernel lets go of the number when the
/// process ends, however it ends, so the next start takes the same one and frees
/// the transactions its predecessor left open.
#[derive(Debug)]
pub struct Instance {
    name: String,
    _lock: Option<File>,
}

impl Instance {
    /// The configured name, or host name and lowest number not in use on this
    /// host by another instance with the same topic prefix.
    ///
    /// # Errors
    /// When the folder for the locks cannot be used.
    pub fn claim(configured: Option<&str>, topic_prefix: &str) -> io::Result<Self> {
        match configured {
            Some(name) => Ok(Self { name: name.to_owned(), _lock: None }),
            None => Self::claim_in(&lock_folder(), &host_name(), topic_prefix),
        }
    }

    fn claim_in(folder: &Path, host: &str, topic_prefix: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let deployment: String = topic_prefix
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .collect();
        for number in 0..MOST_PER_HOST {
            let path = folder.join(format!("instance-{deployment}-{number}.lock"));
            let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { name: format!("{host}-{number}"), _lock: Some(file) }),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(format!(
            "{MOST_PER_HOST} instances run on this host already; set instance.name"
        )))
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Of this user: another user's files could not be locked.
fn lock_folder() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("trunkline-{user}"))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_once_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let claim = |prefix| Instance::claim_in(folder.path(), "host", prefix).unwrap();
        let first = claim("a.");
        let second = claim("a.");
        assert_eq!((first.name(), second.name()), ("host-0", "host-1"));
        assert_eq!(claim("b.").name(), "host-0", "another deployment counts for itself");
        drop(first);
        assert_eq!(claim("a.").name(), "host-0");
    }
}
