//! The upkeep of the token signing keys: rotation, another algorithm, and their emergency replacement.
//!
//! When which key is made, published and removed is decided by `signer`, pure; here keys are made and the Secret
//! `signing-keys` (of another server than the configured one `signing-keys-<server>`) is written, over exactly what was read. What cannot be read is never written over.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;

use crate::api::{AppRegistration, InvalidTime, names, parse_time};
use crate::config::{Server, published};
use crate::credential::Fields;
use crate::mint;
use crate::mint::signing_key::{self, MintedSigningKey, SigningKey};
use crate::signer::jwt::PublicKey;
use crate::signer::{self, Algorithm, Change, Index};

use super::Context;
use super::keys::{self, Body, CRD_UID_ANNOTATION, KeySecrets, Keys, Problem};

/// What the annotation `appreg.dev/revoke-minted-before` of `signing-keys` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Emergency {
    /// Nothing: it is not there.
    #[default]
    None,
    /// It cannot be read, and does nothing. Its text tells one mistake from the next; it is never shown, because nobody
    /// knows what was pasted there.
    Malformed(String),
    /// Keys made before this time are unpublished once it has come.
    Before(Timestamp),
}

impl Emergency {
    fn of(annotation: Option<&str>) -> Self {
        match annotation {
            None => Self::None,
            Some(text) => parse_time(text).map_or_else(|_| Self::Malformed(text.to_owned()), Self::Before),
        }
    }

    /// The watermark for [`Index::due`].
    fn revoked_before(&self) -> Option<Timestamp> {
        match self {
            Self::None | Self::Malformed(_) => None,
            Self::Before(mark) => Some(*mark),
        }
    }

    /// What is wrong with it, without its text. `secret` is the name of the Secret with the keys.
    pub(super) fn problem(&self, secret: &str) -> Option<String> {
        match self {
            Self::None | Self::Before(_) => None,
            Self::Malformed(_) => Some(format!(
                "the annotation appreg.dev/revoke-minted-before of the Secret {secret} does nothing, because it {InvalidTime}"
            )),
        }
    }

    /// Whether it cannot be read.
    pub(super) const fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }

    /// Whether it names a time to come.
    pub(super) fn is_pending(&self, now: Timestamp) -> bool {
        self.revoked_before().is_some_and(|mark| mark > now)
    }
}

/// The index and its keys.
struct Loaded {
    index: Index,
    keys: HashMap<String, Arc<SigningKey>>,
}

/// Brings the signing keys in order and loads them; returns when to look again.
pub(super) async fn upkeep(ctx: &Context, keys: &mut Keys, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let object = KeySecrets::of(ctx, keys.server()).signing_keys;
    let unreadable = || Problem::Unreadable(object.name.to_string());
    let held = keys::current(ctx, &object).await?;
    let annotations = held.as_ref().and_then(|secret| secret.metadata.annotations.clone()).unwrap_or_default();
    let emergency = Emergency::of(annotations.get(names::REVOKE_MINTED_BEFORE_ANNOTATION).map(String::as_str));
    tell(&object.name, &keys.emergency, &emergency, now);
    keys.emergency = emergency;

    let mut fields = held.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
    let before = if held.is_some() {
        Index::parse(keys::bytes(&fields, signer::INDEX_FIELD)).map_err(|_| unreadable())?
    } else {
        Index::default()
    };
    let mut body = Body::opaque(Fields::new());
    body.annotations = annotations;
    let is_configured = keys.server() == ctx.config.server.name;
    let mut is_changed = !is_configured && publish(&keys.environment.server, &mut fields).map_err(|()| unreadable())?;
    if is_configured && !body.annotations.contains_key(CRD_UID_ANNOTATION) {
        let request = |source| Problem::Request { what: "The definition of AppRegistration".to_owned(), source };
        if let Some(uid) = keys::live_crd::<AppRegistration>(ctx).await.map_err(request)? {
            body.annotations.insert(CRD_UID_ANNOTATION.to_owned(), uid);
            is_changed = true;
        }
    }
    let Changed { index, revoked } = change(ctx, keys, before.clone(), &mut fields, now).await?;
    if is_changed || index != before {
        fields.insert(signer::INDEX_FIELD.to_owned(), ByteString(index.to_json()));
        body.fields = fields.clone();
        keys::put(ctx, &object, held.as_deref(), body).await?;
    }
    if !revoked.is_empty() {
        ctx.metrics.signing_keys_revoked.inc_by(u64::try_from(revoked.len()).unwrap_or(u64::MAX));
        tracing::warn!(?revoked, "signing keys are revoked: no token of theirs is accepted any more");
    }
    let loaded = load(index, &fields).ok_or_else(unreadable)?;
    let next = loaded.index.next_transition(now, keys.emergency.revoked_before());
    take(keys, loaded);
    Ok(next)
}

/// Has the token service know a server's settings: beside the keys, so that one write publishes both. What a later version
/// wrote is never written over. Says whether something changed.
fn publish(server: &Server, fields: &mut Fields) -> Result<bool, ()> {
    let before = keys::bytes(fields, published::FIELD);
    match published::parse(&server.name, before) {
        Ok(before) if before == *server => return Ok(false),
        Err(published::Unreadable::Version) => return Err(()),
        Ok(_) | Err(_) => {}
    }
    fields.insert(published::FIELD.to_owned(), ByteString(published::to_json(server)));
    Ok(true)
}

/// What came of the changes that were due.
struct Changed {
    index: Index,
    revoked: Vec<String>,
}

/// Makes all changes that are due, in the index and in the fields: they are written at once.
async fn change(
    ctx: &Context,
    keys: &Keys,
    mut index: Index,
    fields: &mut Fields,
    now: Timestamp,
) -> Result<Changed, Problem> {
    let algorithm = keys.environment.server.signing_algorithm;
    let mut revoked = Vec::new();
    while let Some(change) = index.due(now, algorithm, keys.emergency.revoked_before()) {
        match change {
            Change::Add { sign_from } => {
                let minted = mint(ctx, algorithm, now, sign_from)
                    .await
                    .map_err(|source| Problem::Mint { what: "A token signing key", source })?;
                let pem = minted.private_key_pem.expose().to_vec();
                fields.insert(field(&minted.record.kid), ByteString(pem));
                index = index.with(minted.record);
            }
            Change::Revoke { kids } => {
                index = without(index, fields, &kids);
                revoked.extend(kids);
            }
            Change::Remove { kids } => index = without(index, fields, &kids),
        }
    }
    Ok(Changed { index, revoked })
}

fn without(index: Index, fields: &mut Fields, kids: &[String]) -> Index {
    for kid in kids {
        fields.remove(&field(kid));
    }
    index.without(kids)
}

/// A new key. An RSA key takes a core for a while; it has a slot of its own, because the replacement of a leaked key must
/// not queue behind a thousand certificates.
async fn mint(
    ctx: &Context,
    algorithm: Algorithm,
    now: Timestamp,
    sign_from: Timestamp,
) -> Result<MintedSigningKey, mint::Error> {
    if !signing_key::is_slow(algorithm) {
        return signing_key::mint(algorithm, now, sign_from);
    }
    let slot = ctx.signing_key_pool.enter().await?;
    slot.run(move || signing_key::mint(algorithm, now, sign_from)).await
}

fn load(index: Index, fields: &Fields) -> Option<Loaded> {
    let mut keys = HashMap::new();
    for record in index.keys() {
        let key = SigningKey::from_pem(record, keys::bytes(fields, &field(&record.kid))?).ok()?;
        keys.insert(record.kid.clone(), Arc::new(key));
    }
    Some(Loaded { index, keys })
}

/// The field of a key's PEM.
fn field(kid: &str) -> String {
    format!("{kid}.pem")
}

/// Has plans and passes go on with what was loaded. Delivered tokens of a key that is gone are signed again by them.
fn take(keys: &mut Keys, loaded: Loaded) {
    if keys.environment.keys == loaded.index {
        return;
    }
    keys.know(|environment| environment.keys = loaded.index);
    keys.public = loaded.keys.values().filter_map(|key| PublicKey::from_jwk(key.jwk())).collect();
    keys.signing = loaded.keys;
}

/// Tells of an emergency once, and of a mistake in it: it comes here at every upkeep.
fn tell(secret: &str, before: &Emergency, emergency: &Emergency, now: Timestamp) {
    if before == emergency {
        return;
    }
    match emergency {
        Emergency::None => {}
        Emergency::Malformed(_) => tracing::error!("{}", emergency.problem(secret).unwrap_or_default()),
        Emergency::Before(mark) if emergency.is_pending(now) => {
            tracing::warn!(secret, %mark, "signing keys made before this time will be revoked when it comes");
        }
        Emergency::Before(mark) => tracing::info!(secret, %mark, "signing keys made before this time are revoked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emergency_is_one_time_with_an_offset_and_nothing_else() {
        let mark = "2026-11-22T07:00:00Z".parse().unwrap();
        assert_eq!(Emergency::of(None), Emergency::None);
        for text in ["2026-11-22T07:00:00Z", "2026-11-22T08:00:00+01:00"] {
            assert_eq!(Emergency::of(Some(text)).revoked_before(), Some(mark));
        }
        for text in ["", "now", "canary", "2026-11-22", "2026-11-22T07:00:00", "web=2026-11-22T07:00:00Z", " "] {
            let emergency = Emergency::of(Some(text));
            assert_eq!(emergency.revoked_before(), None, "{text:?}");
            let problem = emergency.problem("signing-keys-partners").unwrap();
            assert!(
                problem.contains(names::REVOKE_MINTED_BEFORE_ANNOTATION)
                    && problem.contains("Secret signing-keys-partners ")
            );
            assert!(!problem.contains("canary"));
        }
    }
}
