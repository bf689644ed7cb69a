//! The upkeep of the token signing keys: rotation, another algorithm, and their emergency replacement.
//!
//! When which key is made, published and removed is decided by `signer`, pure; here keys are made and the Secret
//! `signing-keys` is written, over exactly what was read. What cannot be read is never written over.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;

use crate::api::{names, parse_time};
use crate::credential::Fields;
use crate::kubernetes::ObjectName;
use crate::mint;
use crate::mint::signing_key::{self, MintedSigningKey, SigningKey};
use crate::plan::facts::Environment;
use crate::signer::jwt::PublicKey;
use crate::signer::{self, Algorithm, Change, Index};

use super::Context;
use super::keys::{self, Body, CRD_UID_ANNOTATION, Problem};
use super::objects::SIGNING_KEYS;

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

/// What is told of an annotation that cannot be read.
const MALFORMED: &str = "the annotation appreg.dev/revoke-minted-before of the Secret signing-keys does nothing: it is not \
                         an RFC 3339 time with an offset, such as 2026-11-22T07:00:00Z or 2026-11-22T08:00:00+01:00";

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

    /// What is wrong with it, without its text.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self {
            Self::None | Self::Before(_) => None,
            Self::Malformed(_) => Some(MALFORMED),
        }
    }
}

/// The index and its keys.
struct Loaded {
    index: Index,
    keys: HashMap<String, Arc<SigningKey>>,
}

/// Brings the signing keys in order and loads them; returns when to look again.
pub(super) async fn upkeep(ctx: &Context, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let object = ObjectName::new(&ctx.ledger_namespace, SIGNING_KEYS);
    let held = keys::current(ctx, &object, SIGNING_KEYS).await?;
    let annotations = held.as_ref().and_then(|secret| secret.metadata.annotations.clone()).unwrap_or_default();
    let emergency = Emergency::of(annotations.get(names::REVOKE_MINTED_BEFORE_ANNOTATION).map(String::as_str));
    tell(ctx, &emergency, now);

    let mut fields = held.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
    let before = if held.is_some() {
        Index::parse(keys::bytes(&fields, signer::INDEX_FIELD)).map_err(|_| Problem::Unreadable(SIGNING_KEYS))?
    } else {
        Index::default()
    };
    let mut body = Body::opaque(Fields::new());
    body.annotations = annotations;
    let mut is_changed = false;
    if !body.annotations.contains_key(CRD_UID_ANNOTATION) {
        let request = |source| Problem::Request { what: "the custom resource definition", source };
        if let Some(uid) = keys::live_crd(ctx).await.map_err(request)? {
            body.annotations.insert(CRD_UID_ANNOTATION.to_owned(), uid);
            is_changed = true;
        }
    }
    let Changed { index, revoked } = change(ctx, before.clone(), &mut fields, &emergency, now).await?;
    if is_changed || index != before {
        fields.insert(signer::INDEX_FIELD.to_owned(), ByteString(index.to_json()));
        body.fields = fields.clone();
        keys::put(ctx, &object, SIGNING_KEYS, held.as_deref(), body).await?;
    }
    if !revoked.is_empty() {
        ctx.metrics.signing_keys_revoked.inc_by(u64::try_from(revoked.len()).unwrap_or(u64::MAX));
        tracing::warn!(?revoked, "signing keys are revoked: no token of theirs is accepted any more");
    }
    let loaded = load(index, &fields)?;
    let next = loaded.index.next_transition(now, emergency.revoked_before());
    take(ctx, loaded);
    Ok(next)
}

/// What came of the changes that were due.
struct Changed {
    index: Index,
    revoked: Vec<String>,
}

/// Makes all changes that are due, in the index and in the fields: they are written at once.
async fn change(
    ctx: &Context,
    mut index: Index,
    fields: &mut Fields,
    emergency: &Emergency,
    now: Timestamp,
) -> Result<Changed, Problem> {
    let algorithm = ctx.config.server.signing_algorithm;
    let mut revoked = Vec::new();
    while let Some(change) = index.due(now, algorithm, emergency.revoked_before()) {
        match change {
            Change::Add { sign_from } => {
                let minted = mint(ctx, algorithm, now, sign_from)
                    .await
                    .map_err(|source| Problem::Mint { what: "a token signing key", source })?;
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

fn load(index: Index, fields: &Fields) -> Result<Loaded, Problem> {
    let mut keys = HashMap::new();
    for record in index.keys() {
        let pem = keys::bytes(fields, &field(&record.kid)).ok_or(Problem::Unreadable(SIGNING_KEYS))?;
        let key = SigningKey::from_pem(record, pem).map_err(|_| Problem::Unreadable(SIGNING_KEYS))?;
        keys.insert(record.kid.clone(), Arc::new(key));
    }
    Ok(Loaded { index, keys })
}

/// The field of a key's PEM.
fn field(kid: &str) -> String {
    format!("{kid}.pem")
}

/// Has plans and passes go on with what was loaded. Delivered tokens of a key that is gone are signed again by them.
fn take(ctx: &Context, loaded: Loaded) {
    if ctx.keys.load().environment.keys == loaded.index {
        return;
    }
    keys::replace(ctx, |keys| {
        keys.environment = Arc::new(Environment { keys: loaded.index, ..Environment::clone(&keys.environment) });
        keys.public = loaded.keys.values().filter_map(|key| PublicKey::from_jwk(key.jwk())).collect();
        keys.signing = loaded.keys;
    });
}

/// Tells of an emergency once, and of a mistake in it: it comes here at every upkeep.
fn tell(ctx: &Context, emergency: &Emergency, now: Timestamp) {
    let is_pending = emergency.revoked_before().is_some_and(|mark| mark > now);
    ctx.metrics.signing_keys_revocation_pending.set(i64::from(is_pending));
    ctx.metrics.signing_keys_revocation_malformed.set(i64::from(emergency.problem().is_some()));
    if ctx.keys.load().emergency == *emergency {
        return;
    }
    keys::change(ctx, |keys| keys.emergency = emergency.clone());
    match emergency {
        Emergency::None => {}
        Emergency::Malformed(_) => tracing::error!("{MALFORMED}"),
        Emergency::Before(mark) if is_pending => {
            tracing::warn!(%mark, "signing keys made before this time will be revoked when it comes");
        }
        Emergency::Before(mark) => tracing::info!(%mark, "signing keys made before this time are revoked"),
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
            let problem = emergency.problem().unwrap();
            assert!(problem.contains(names::REVOKE_MINTED_BEFORE_ANNOTATION) && problem.contains(SIGNING_KEYS));
            assert!(!problem.contains("canary"));
        }
    }
}
