//! Certificates of a test's own, made by the program `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority, one that nobody has asked for anything, and a server's certificate for 127.0.0.1 alone.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("for"), "subjectAltName=IP:127.0.0.1\n").expect("written");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for name in ["authority", "other"] {
            let subject = format!("-x509 -days 2 -subj /CN={name} -addext basicConstraints=critical,CA:TRUE");
            openssl(folder.path(), &format!("req {key} {subject} -keyout {name}.key -out {name}.pem"));
        }
        openssl(folder.path(), &format!("req {key} -subj /CN=server -keyout server.key -out server.csr"));
        let signed = "x509 -req -in server.csr -days 2 -extfile for -CA authority.pem -CAkey authority.key -CAcreateserial";
        openssl(folder.path(), &format!("{signed} -out server.pem"));
        let made = Self { folder };
        std::fs::write(made.path("store.pem"), made.read("server.key") + &made.read("server.pem"))
            .expect("written");
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("it was made")
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let done = done.expect("openssl is there");
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}
