//! What is needed to speak TLS with an etcd: whose signature counts, and who we are.
//!
//! rustls with the ring provider: nothing but Rust and the C compiler that also links every Rust program builds it, and
//! it can be linked statically.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// What cannot be used, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadCertificate(pub(super) String);

/// How connections are made: certificates in `ca` are believed, and `identity` (certificate and key) is shown.
///
/// # Errors
/// [`BadCertificate`], naming the file.
pub(super) fn client(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, BadCertificate> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| bad(ca, "is no certificate to check others with", &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| BadCertificate(error.to_string()))?.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| bad(key, "holds no private key", &error))?;
            let chain = certificates(certificate)?;
            let made = builder.with_client_auth_cert(chain, secret);
            made.map_err(|error| bad(key, "does not fit the certificate", &error))?
        }
    };
    Ok(Arc::new(config))
}

/// All certificates in a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadCertificate> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| bad(path, "cannot be read as PEM", &error))?;
    if found.is_empty() {
        return Err(BadCertificate(format!("{} holds no certificate in PEM form", path.display())));
    }
    Ok(found)
}

fn bad(path: &Path, what: &str, error: &dyn std::error::Error) -> BadCertificate {
    BadCertificate(format!("{} {what}: {error}", path.display()))
}
