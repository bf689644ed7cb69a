//! Foreign readers of what is published: programs that a build of appreg does not need, and rustls.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;

use crate::stage::text;

/// Whether a foreign program is missing. In CI that fails instead (`CI` is set there): what was not shown must not look
/// as if it had been.
#[expect(clippy::print_stderr, reason = "a test that showed nothing says so")]
pub(crate) fn is_missing(program: &str) -> bool {
    if Command::new(program).arg(if program == "openssl" { "version" } else { "--version" }).output().is_ok() {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "{program} is not installed, and CI must not pass without it");
    eprintln!("{program} not installed: not shown");
    true
}

/// A certificate with its key and its authorities, as a Secret shows them.
#[derive(Clone)]
pub(crate) struct ShownCertificate {
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    pub(crate) authorities: String,
}

impl ShownCertificate {
    pub(crate) fn of(secret: &Secret) -> Self {
        let field = |name: &str| text(secret, name).unwrap_or_else(|| panic!("the Secret has no {name}"));
        Self { certificate: field("tls.crt"), private_key: field("tls.key"), authorities: field("ca.crt") }
    }

    /// What rustls says of the chain as a client's, against these authorities.
    pub(crate) fn verify_with_rustls(&self, authorities: &str, now: Timestamp) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        let chain = self.chain()?;
        let (leaf, intermediates) = chain.split_first().ok_or("no certificate")?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().unsigned_abs()));
        verifier.verify_client_cert(leaf, intermediates, now).map(drop).map_err(|error| error.to_string())
    }

    /// Whether the key is the certificate's, by rustls.
    pub(crate) fn key_matches(&self) -> Result<(), String> {
        let key = PrivateKeyDer::from_pem_slice(self.private_key.as_bytes()).map_err(|error| error.to_string())?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = CertifiedKey::from_der(self.chain()?, key, &provider).map_err(|error| error.to_string())?;
        pair.keys_match().map_err(|error| error.to_string())
    }

    /// What OpenSSL says of chain and key; the names that it reads.
    pub(crate) fn verify_with_openssl(&self) -> Option<String> {
        if is_missing("openssl") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        write("tls.crt", &self.certificate);
        write("tls.key", &self.private_key);
        write("ca.crt", &self.authorities);
        let verify = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.crt", "tls.crt"];
        succeeded(&openssl(directory, &verify));
        succeeded(&openssl(directory, &["pkey", "-in", "tls.key", "-check", "-noout"]));
        let of_key = openssl(directory, &["pkey", "-in", "tls.key", "-pubout"]);
        let of_certificate = openssl(directory, &["x509", "-in", "tls.crt", "-pubkey", "-noout"]);
        succeeded(&of_key);
        assert_eq!(of_key.stdout, of_certificate.stdout, "the key is that of the certificate");
        let names = ["x509", "-in", "tls.crt", "-noout", "-ext", "subjectAltName,extendedKeyUsage"];
        let names = openssl(directory, &names);
        succeeded(&names);
        Some(String::from_utf8_lossy(&names.stdout).into_owned())
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }
}

fn openssl(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl").current_dir(directory).args(arguments).output().unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
