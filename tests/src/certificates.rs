//! Certificates for one test: an authority of its own, and what it signs, made by `openssl` in a scratch directory.

use crate::scratch::Scratch;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What the certificates say beside their names.
const EXTENSIONS: &str = "\
[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[leaf]
basicConstraints = CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
extendedKeyUsage = serverAuth, clientAuth
";

/// An authority that signs.
#[derive(Debug)]
pub struct Authority(Scratch);

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When `openssl` is missing.
    pub fn new() -> Authority {
        let authority = Authority(Scratch::new());
        std::fs::write(authority.0.join("conf"), EXTENSIONS).expect("the scratch directory can be written");
        authority.openssl("req -x509 -config conf -nodes -days 2 -subj /CN=authority -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout ca.key -out ca.pem");
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// A certificate for this name on loopback, and its key.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.openssl(&format!("req -new -config conf -nodes -subj /CN={name} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile conf -extensions leaf -out {name}.pem"));
        (self.0.join(&format!("{name}.pem")), self.0.join(&format!("{name}.key")))
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(self.0.path()).stdin(Stdio::null());
        let output = command.output().expect("openssl is installed (Debian: apt-get install openssl)");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}
