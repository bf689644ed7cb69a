//! What the control plane identifies itself and its users by: made anew for each one, kept in its directory.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SanType,
};

/// A user of the API server, known by a random token.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
    /// Nobody's but this control plane's: it lives as long as its directory.
    token: String,
}

impl User {
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Self { name: name.to_owned(), groups: groups.iter().map(ToString::to_string).collect(), token: random_hex() }
    }

    pub fn token(&self) -> &str {
        &self.token
    }
}

/// Files that the API server is started with, and the certificate its clients need.
#[derive(Clone, Debug)]
pub struct Files {
    pub ca: PathBuf,
    pub serving_certificate: PathBuf,
    pub serving_key: PathBuf,
    /// Signs service account tokens: RSA 2048, as in most clusters.
    pub service_account_key: PathBuf,
    pub tokens: PathBuf,
    /// The certificate authority in PEM, as in a kubeconfig.
    pub ca_pem: String,
    /// The same in DER.
    pub ca_der: Vec<u8>,
}

impl Files {
    /// Writes them to `directory`, with one token line for each of `users`.
    pub fn write(directory: &Path, users: &[User]) -> anyhow::Result<Self> {
        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.distinguished_name.push(DnType::CommonName, "control plane of the tests");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let serving_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut serving = CertificateParams::new(names.map(str::to_owned).to_vec())?;
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 1)] {
            serving.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(address)));
        }
        serving.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        serving.use_authority_key_identifier_extension = true; // Python 3.13 and later want it
        let serving_certificate = serving.signed_by(&serving_key, &issuer)?;
        let service_account_key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;

        let tokens = users.iter().enumerate().fold(String::new(), |mut tokens, (number, user)| {
            let _ = writeln!(tokens, "{},{},uid-{number},\"{}\"", user.token, user.name, user.groups.join(","));
            tokens
        });
        let files = Self {
            ca: directory.join("ca.crt"),
            serving_certificate: directory.join("apiserver.crt"),
            serving_key: directory.join("apiserver.key"),
            service_account_key: directory.join("service-account.key"),
            tokens: directory.join("tokens.csv"),
            ca_pem: ca_certificate.pem(),
            ca_der: ca_certificate.der().to_vec(),
        };
        write_private(&files.ca, &files.ca_pem)?;
        write_private(&files.serving_certificate, &serving_certificate.pem())?;
        write_private(&files.serving_key, &serving_key.serialize_pem())?;
        write_private(&files.service_account_key, &service_account_key.serialize_pem())?;
        write_private(&files.tokens, &tokens)?;
        Ok(files)
    }
}

/// Writes a file that only we may read.
pub fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let directory = path.parent().context("a file in a directory")?;
    let write = || -> anyhow::Result<()> {
        // Whole or not at all: others may read the same file meanwhile. A temporary file is its owner's alone.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(content.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// 128 random bits.
pub fn random_hex() -> String {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random numbers never fail");
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
