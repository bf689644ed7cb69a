//! The upkeep of the token service's certificate: one for all servers, signed by the configured server's certificate
//! authority. Its names are those that the issuers have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;

use crate::config::Server;
use crate::credential::{Fields, field, text};
use crate::kubernetes::ObjectName;
use crate::mint;
use crate::mint::certificate::{self, ServingOrder};
use crate::rotation;
use crate::signer::ca::CaIndex;

use super::Context;
use super::keys::{Body, Problem, current, put};
use super::objects::SERVING_CERTIFICATE;

/// How long a serving certificate lives, and how long before its end it is replaced.
const SERVING_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
const SERVING_RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Renews the certificate, and makes it anew where it does not fit; returns when it is renewed.
pub(super) async fn upkeep(ctx: &Context, now: Timestamp) -> Result<Timestamp, Problem> {
    let object = ObjectName::new(&ctx.ledger_namespace, SERVING_CERTIFICATE);
    let held = current(ctx, &object).await?;
    let servers = ctx.servers.load_full();
    let keys = servers.configured();
    let mut names: Vec<String> = servers.all().flat_map(|keys| names_of(&keys.environment.server)).collect();
    names.sort_unstable();
    names.dedup();
    if let Some(fields) = held.as_ref().and_then(|secret| secret.data.as_ref())
        && let Some(renewal) = serving_renewal(fields, &names, &keys.environment.authorities, now)
        && renewal > now
    {
        return Ok(renewal);
    }
    let not_after = rotation::add(now, SERVING_LIFE);
    let mint_problem = |source| Problem::Mint { what: "The serving certificate", source };
    let authority = keys.signing_authority(not_after).ok_or(mint_problem(mint::Error::NotSigned))?;
    let minted = certificate::mint_serving(&ServingOrder { names, minted_at: now, not_after }, &authority)
        .map_err(mint_problem)?;
    let fields = Fields::from([
        (field::CERTIFICATE.to_owned(), ByteString(minted.certificate_pem.into_bytes())),
        (field::PRIVATE_KEY.to_owned(), ByteString(minted.private_key_pem.expose().to_vec())),
        (field::CA.to_owned(), ByteString(keys.environment.authorities.bundle(now).into_bytes())),
    ]);
    let body = Body { fields, annotations: BTreeMap::new(), type_: "kubernetes.io/tls" };
    put(ctx, &object, held.as_deref(), body).await?;
    Ok(rotation::add(not_after, -SERVING_RENEW_BEFORE))
}

/// The names under which a server is reached, as a certificate is read: a name that is written otherwise would never fit.
fn names_of(server: &Server) -> impl Iterator<Item = String> {
    let canonical = |name: &str| name.parse().map_or_else(|_| name.to_ascii_lowercase(), |ip: IpAddr| ip.to_string());
    std::iter::once(server.host()).chain(server.serving_names.iter().map(String::as_str)).map(canonical)
}

/// When a serving certificate is renewed; none if it does not fit: other names, another authority, unreadable.
fn serving_renewal(fields: &Fields, names: &[String], authorities: &CaIndex, now: Timestamp) -> Option<Timestamp> {
    use x509_parser::prelude::FromDer as _;
    let certificate = text(fields, field::CERTIFICATE)?;
    let key = text(fields, field::PRIVATE_KEY)?;
    let bundle = text(fields, field::CA)?;
    if !authorities.bundle(now).contains(bundle.trim()) || key.is_empty() {
        return None;
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).ok()?;
    let mut actual: Vec<String> = parsed
        .subject_alternative_name()
        .ok()??
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    actual.sort_unstable();
    actual.dedup();
    let end = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
    (actual == names).then(|| rotation::add(end, -SERVING_RENEW_BEFORE))
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::mint::ca::SigningCa;

    #[test]
    fn a_certificate_fits_however_its_names_are_written() {
        let yaml = "authorizationServer: {issuer: \"https://[2001:DB8::0:1]:8443\", servingNames: [B.example, \"::ffff:10.0.0.1\", 10.0.0.1]}";
        let mut names: Vec<String> = names_of(&Config::parse(yaml).unwrap().server).collect();
        names.sort_unstable();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let minted = mint::ca::mint(now).unwrap();
        let authority = SigningCa::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap();
        let authorities = CaIndex::default().with(minted.record);
        let not_after = rotation::add(now, SERVING_LIFE);
        let order = ServingOrder { names: names.clone(), minted_at: now, not_after };
        let certificate = certificate::mint_serving(&order, &authority).unwrap();
        let fields = Fields::from([
            (field::CERTIFICATE.to_owned(), ByteString(certificate.certificate_pem.into_bytes())),
            (field::PRIVATE_KEY.to_owned(), ByteString(b"a key".to_vec())),
            (field::CA.to_owned(), ByteString(authorities.bundle(now).into_bytes())),
        ]);
        let renewal = serving_renewal(&fields, &names, &authorities, now);
        assert_eq!(renewal, Some(rotation::add(not_after, -SERVING_RENEW_BEFORE)), "{names:?}");
    }
}
