//! The children of the benchmark that run on one core: the load, and the bare signature.

use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    ParsedPublicKey, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::generator::{self, HELD_UP, Lives, Load, Order, Pace};
use crate::requests;
use crate::rig::{self, Arguments};

/// How long bare signatures are made, or verified.
const BARE_FOR: Duration = Duration::from_secs(2);
/// As long as what is signed in a token.
const MESSAGE_BYTES: usize = 420;
/// How many tokens are introspected again and again.
const FEW_TOKENS: usize = 1000;
/// More requests than can be answered in a second, where each may be sent once only.
const ONCE_PER_SECOND: f64 = 40_000.0;

/// Loads the token service, and prints what came of it.
pub(crate) fn load(arguments: &Arguments) -> Result<()> {
    let what = arguments.text("what")?;
    let directory = Path::new(arguments.text("directory")?);
    let (host, clients) = (arguments.text("address")?, arguments.or("clients", 1000)?);
    let address: SocketAddr = host.parse()?;
    let seconds: f64 = arguments.or("seconds", 5.0)?;
    let tls = Arc::new(tls(directory, what == "mutual-handshake")?);
    let once = ((seconds + 2.0) * ONCE_PER_SECOND) as usize;
    let all = |request: &dyn Fn(&str, usize) -> Vec<u8>| (0..clients).map(|number| request(host, number)).collect();
    let introspections = |count: usize| -> Result<Vec<Vec<u8>>> {
        let tokens = requests::fetch_tokens(address, &tls, clients, count)?;
        Ok(tokens.iter().enumerate().map(|(n, token)| requests::introspection(host, n % clients, token)).collect())
    };
    let (requests, order, lives): (Vec<Vec<u8>>, _, _) = match what {
        "token" => (all(&requests::token), Order::Random, Lives::On),
        "handshake" => (all(&requests::token), Order::Random, Lives::Once),
        "mutual-handshake" => (all(&requests::token_by_certificate), Order::Random, Lives::Once),
        "jwks" => (vec![requests::jwks(host, None)], Order::Random, Lives::On),
        "jwks-304" => {
            let etag = requests::fetch_etag(address, &tls)?;
            (vec![requests::jwks(host, Some(&etag))], Order::Random, Lives::On)
        }
        "introspection" => (introspections(once)?, Order::Once, Lives::On),
        "introspection-again" => (introspections(FEW_TOKENS)?, Order::Random, Lives::On),
        "assertion" => {
            let key = directory.join("client-key.der");
            let issuer = format!("https://{host}");
            (requests::assertions(host, &issuer, &key, clients, once)?, Order::Once, Lives::On)
        }
        what => bail!("what={what}"),
    };
    let rate: f64 = arguments.or("rate", 0.0)?;
    let load = Load {
        address,
        tls,
        connections: arguments.or("connections", 64)?,
        lives,
        requests,
        order,
        pace: if rate > 0.0 { Pace::Open(rate) } else { Pace::Closed },
        seconds,
        slow: arguments.or("slow", 0)?,
    };
    let pid = arguments.text("pid")?;
    println!("{}", serde_json::to_string(&generator::run(&load, || rig::cpu_of(pid))?)?);
    Ok(())
}

fn tls(directory: &Path, is_mutual: bool) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(directory.join("ca.pem"))? {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = if is_mutual {
        let chain = CertificateDer::pem_file_iter(directory.join("client.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivatePkcs8KeyDer::from(std::fs::read(directory.join("client-key.der"))?);
        config.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))?
    } else {
        config.with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Computes for ever, and nothing.
pub(crate) fn stay_awake() -> ! {
    let mut turns = 0_u64;
    loop {
        // Not a hint that this is a loop: a hypervisor takes the core away for it.
        turns = black_box(turns.wrapping_add(1));
    }
}

/// What a bare signature or verification costs.
#[derive(Serialize, Deserialize)]
pub(crate) struct Bare {
    /// CPU time, in microseconds.
    pub micros: f64,
    /// The share of time in which something kept this loop from its core.
    pub held_up: f64,
}

/// Prints what one signature costs, or one verification (`role=verify`).
pub(crate) fn bare(arguments: &Arguments) -> Result<()> {
    let (random, message) = (SystemRandom::new(), [b'x'; MESSAGE_BYTES]);
    let once: Box<dyn Fn() -> Result<u8>> = match (arguments.text("role")?, arguments.text("alg")?) {
        ("sign", "ES256") => {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
            Box::new(move || Ok(key.sign(&random, &message)?.as_ref()[0]))
        }
        ("sign", "EdDSA") => {
            let key = Ed25519KeyPair::generate()?;
            Box::new(move || Ok(key.sign(&message).as_ref()[0]))
        }
        ("sign", "RS256") => {
            let key = RsaKeyPair::generate(KeySize::Rsa2048)?;
            let signature = RefCell::new(vec![0; key.public_modulus_len()]);
            Box::new(move || {
                key.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature.borrow_mut())?;
                Ok(signature.borrow()[0])
            })
        }
        ("verify", "ES256") => {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
            let signature = key.sign(&random, &message)?;
            let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key())?;
            Box::new(move || Ok(public.verify_sig(&message, signature.as_ref()).map(|()| 0)?))
        }
        (role, alg) => bail!("role={role} alg={alg}"),
    };
    let (started, before) = (Instant::now(), rig::cpu_of("self")?);
    let (mut count, mut held_up, mut last) = (0_u32, Duration::ZERO, started);
    while last - started < BARE_FOR {
        black_box(once()?);
        count += 1;
        let now = Instant::now();
        if now - last > HELD_UP {
            held_up += now - last;
        }
        last = now;
    }
    let micros = rig::cpu_of("self")?.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(count);
    let held_up = held_up.as_secs_f64() / (last - started).as_secs_f64();
    println!("{}", serde_json::to_string(&Bare { micros, held_up })?);
    Ok(())
}
