//! What OpenSSL says of the certificates, keys and token signatures that are minted: a foreign reader of every key type.
//!
//! OpenSSL is not among the things that a build of appreg needs. Where it is missing these tests say so, and in CI they
//! fail instead (`CI` is set there): what was not shown must not look as if it had been. rustls checks the same
//! certificates in the unit tests, always.

use std::path::Path;
use std::process::{Command, Output};

use appreg::api::KeyType;
use appreg::mint::ca::{self, SigningCa};
use appreg::mint::certificate::{self, CertificateOrder, ServingOrder};
use appreg::mint::signing_key::{self, SigningKey};
use appreg::mint::token::{self, Claims};
use appreg::signer::Algorithm;
use appreg::signer::ca::CaRecord;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

/// The moment at which everything is minted and verified.
const NOW: &str = "2026-11-22T07:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[expect(clippy::print_stderr, reason = "a test that showed nothing says so")]
fn openssl_is_missing() -> bool {
    if Command::new("openssl").arg("version").output().is_ok() {
        return false;
    }
    #[expect(clippy::disallowed_methods, reason = "whether it is continuous integration is known by a variable alone")]
    let is_ci = std::env::var_os("CI").is_some();
    assert!(!is_ci, "openssl is not installed, and CI must not pass without it");
    eprintln!("openssl not installed: not shown");
    true
}

fn openssl(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl").current_dir(directory).args(arguments).output().unwrap()
}

fn verify(directory: &Path, purpose: &str, now: &str, certificate: &str) -> Result<(), String> {
    let now = at(now).as_second().to_string();
    let arguments = ["verify", "-x509_strict", "-purpose", purpose, "-attime", &now, "-CAfile", "ca.crt", certificate];
    let output = openssl(directory, &arguments);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn authority(directory: &Path) -> (CaRecord, SigningCa) {
    let minted = ca::mint(at("2026-01-01T00:00:00Z")).unwrap();
    std::fs::write(directory.join("ca.crt"), &minted.record.certificate).unwrap();
    let signing = SigningCa::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
    (minted.record, signing)
}

/// Runs OpenSSL over a client's certificate of this key type and its key.
fn check(key_type: KeyType) {
    if openssl_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (_, signing) = authority(directory);
    let order = CertificateOrder {
        key_type,
        server: "default".into(),
        client_id: "shop.storefront".into(),
        dns_names: vec!["storefront.shop.svc".into()],
        minted_at: at(NOW),
        not_after: at("2027-02-20T07:00:00Z"),
    };
    let minted = certificate::mint(&order, &signing).unwrap();
    std::fs::write(directory.join("tls.crt"), &minted.certificate_pem).unwrap();
    std::fs::write(directory.join("tls.key"), minted.private_key_pem.expose()).unwrap();

    assert_eq!(verify(directory, "sslclient", NOW, "tls.crt"), Ok(()));
    assert!(verify(directory, "sslserver", NOW, "tls.crt").is_err(), "it is no server's");
    let early = verify(directory, "sslclient", "2026-11-22T06:58:59Z", "tls.crt").unwrap_err();
    assert!(early.contains("not yet valid"), "{early}");
    let late = verify(directory, "sslclient", "2027-02-20T07:00:01Z", "tls.crt").unwrap_err();
    assert!(late.contains("expired"), "{late}");

    let checked = openssl(directory, &["pkey", "-in", "tls.key", "-check", "-noout"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let of_key = openssl(directory, &["pkey", "-in", "tls.key", "-pubout"]);
    let of_certificate = openssl(directory, &["x509", "-in", "tls.crt", "-pubkey", "-noout"]);
    assert!(of_key.status.success() && !of_key.stdout.is_empty());
    assert_eq!(of_key.stdout, of_certificate.stdout, "the key is that of the certificate");

    let text = openssl(directory, &["x509", "-in", "tls.crt", "-noout", "-ext", "subjectAltName,extendedKeyUsage"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("URI:urn:appreg:default:shop.storefront, DNS:storefront.shop.svc"), "{text}");
    assert!(text.contains("TLS Web Client Authentication\n"), "{text}");
}

#[test]
fn openssl_verifies_an_ecdsa_p256_certificate_and_reads_its_key() {
    check(KeyType::EcdsaP256);
}

#[test]
fn openssl_verifies_an_ecdsa_p384_certificate_and_reads_its_key() {
    check(KeyType::EcdsaP384);
}

#[test]
fn openssl_verifies_an_ed25519_certificate_and_reads_its_key() {
    check(KeyType::Ed25519);
}

#[test]
fn openssl_verifies_an_rsa_2048_certificate_and_reads_its_key() {
    check(KeyType::Rsa2048);
}

#[test]
fn openssl_verifies_an_rsa_3072_certificate_and_reads_its_key() {
    check(KeyType::Rsa3072);
}

#[test]
fn openssl_verifies_an_rsa_4096_certificate_and_reads_its_key() {
    check(KeyType::Rsa4096);
}

#[test]
fn openssl_verifies_the_serving_certificate_for_its_host_and_its_address() {
    if openssl_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (_, signing) = authority(directory);
    let order = ServingOrder {
        names: vec!["appreg.example".into(), "127.0.0.1".into()],
        minted_at: at(NOW),
        not_after: at("2027-02-20T07:00:00Z"),
    };
    let minted = certificate::mint_serving(&order, &signing).unwrap();
    std::fs::write(directory.join("tls.crt"), &minted.certificate_pem).unwrap();
    assert_eq!(verify(directory, "sslserver", NOW, "tls.crt"), Ok(()));
    assert!(verify(directory, "sslclient", NOW, "tls.crt").is_err(), "it is no client's");
    for name in [["-checkhost", "appreg.example"], ["-checkip", "127.0.0.1"]] {
        let output = openssl(directory, &["x509", "-in", "tls.crt", "-noout", name[0], name[1]]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("does match"), "{text}");
    }
}

#[test]
fn openssl_verifies_each_leaf_against_a_bundle_of_two_authorities() {
    if openssl_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let authorities = [(); 2].map(|()| authority(directory));
    let bundle: String = authorities.iter().map(|(record, _)| record.certificate.as_str()).collect();
    std::fs::write(directory.join("ca.crt"), bundle).unwrap();
    for (_, signing) in &authorities {
        let order = CertificateOrder {
            key_type: KeyType::EcdsaP256,
            server: "default".into(),
            client_id: "shop.storefront".into(),
            dns_names: Vec::new(),
            minted_at: at(NOW),
            not_after: at("2027-02-20T07:00:00Z"),
        };
        let minted = certificate::mint(&order, signing).unwrap();
        std::fs::write(directory.join("tls.crt"), &minted.certificate_pem).unwrap();
        assert_eq!(verify(directory, "sslclient", NOW, "tls.crt"), Ok(()));
    }
}

/// The members of a JWK that are the key itself, as bytes one after the other.
fn public_bytes(jwk: &serde_json::Value, members: &[&str]) -> Vec<u8> {
    members.iter().flat_map(|name| URL_SAFE_NO_PAD.decode(jwk[*name].as_str().unwrap()).unwrap()).collect()
}

/// An ECDSA signature as OpenSSL wants it (RFC 3279 §2.2.3) instead of r and s one after the other (RFC 7518 §3.4).
fn ecdsa_der(signature: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let mut bytes: Vec<u8> = half.iter().copied().skip_while(|byte| *byte == 0).collect();
        if bytes.first().is_none_or(|byte| *byte >= 0x80) {
            bytes.insert(0, 0);
        }
        [vec![2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    };
    let (r, s) = signature.split_at(32);
    let body = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
}

/// Runs OpenSSL over a signing key of this algorithm, its JWK and a token of it.
fn check_signing_key(algorithm: Algorithm) {
    if openssl_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let minted = signing_key::mint(algorithm, at(NOW), at(NOW)).unwrap();
    std::fs::write(directory.join("key.pem"), minted.private_key_pem.expose()).unwrap();
    let checked = openssl(directory, &["pkey", "-in", "key.pem", "-check", "-noout"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let written = openssl(directory, &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    assert!(written.status.success());

    // The JWK is the public half of the PEM: its numbers stand in OpenSSL's encoding of it.
    let key = SigningKey::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
    let der = openssl(directory, &["pkey", "-pubin", "-in", "public.pem", "-outform", "DER"]).stdout;
    let (members, verify, digest) = match algorithm {
        Algorithm::ES256 => (&["x", "y"][..], &["-rawin", "-digest"][..], Some("sha256")),
        Algorithm::EdDSA => (&["x"][..], &["-rawin"][..], None),
        Algorithm::RS256 => (&["n"][..], &["-rawin", "-digest"][..], Some("sha256")),
    };
    let numbers = public_bytes(key.jwk(), members);
    assert!(der.windows(numbers.len()).any(|window| window == numbers), "{}", key.jwk());
    if algorithm == Algorithm::RS256 {
        assert_eq!((numbers.len() * 8, key.jwk()["e"].as_str()), (2048, Some("AQAB")));
    }

    let claims = Claims {
        issuer: "https://auth.example",
        client_id: "shop.storefront",
        audiences: &["https://api.example"],
        scope: "orders:read",
        issued_at: at(NOW),
        expires_at: at("2026-11-22T08:00:00Z"),
        not_before: None,
        entry: None,
        revision: None,
        customers: None,
        customer_groups: None,
        certificate: None,
    };
    let token = String::from_utf8(token::sign(&key, &claims).unwrap().expose().to_vec()).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    if algorithm == Algorithm::ES256 {
        signature = ecdsa_der(&signature);
    }
    std::fs::write(directory.join("signature"), signature).unwrap();
    for (message, holds) in [(message.to_owned(), true), (format!("{message}A"), false)] {
        std::fs::write(directory.join("message"), message).unwrap();
        let arguments =
            ["pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-in", "message", "-sigfile", "signature"];
        let output = openssl(directory, &[&arguments[..], verify, digest.as_slice()].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), holds, "{algorithm}: {said}");
    }
}

#[test]
fn openssl_reads_an_es256_signing_key_and_verifies_its_token() {
    check_signing_key(Algorithm::ES256);
}

#[test]
fn openssl_reads_an_eddsa_signing_key_and_verifies_its_token() {
    check_signing_key(Algorithm::EdDSA);
}

#[test]
fn openssl_reads_an_rs256_signing_key_and_verifies_its_token() {
    check_signing_key(Algorithm::RS256);
}
