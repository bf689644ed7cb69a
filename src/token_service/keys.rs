//! The signing keys, as the Secret `signing-keys` has them: which one signs now, and the JWKS.
//!
//! What cannot be read changes nothing: the keys in memory go on. Which key signs at which time is decided by
//! [`crate::signer`] alone, so every replica signs with the same one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::json;

use crate::config::published;
use crate::ledger::Digest;
use crate::mint::signing_key::SigningKey;
use crate::signer::jwt::PublicKey;
use crate::signer::{self, INDEX_FIELD, Index};

/// The Secret's name.
pub const SECRET: &str = "signing-keys";

/// Every key that is published, parsed.
#[derive(Debug)]
pub struct LoadedKeys {
    index: Index,
    keys: BTreeMap<String, (Arc<SigningKey>, Arc<Verifying>)>,
}

/// A published key, ready to verify.
#[derive(Debug)]
pub struct Verifying {
    /// The first segment of every token that it signed, with the dot after it: it holds the algorithm, the type and the
    /// key's identifier, so it is compared and not parsed.
    pub header: Vec<u8>,
    /// The public half.
    pub key: PublicKey,
}

/// Why a Secret's keys cannot be used. The texts hold no byte of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] signer::Unreadable),
    /// A server's settings cannot be read.
    #[error(transparent)]
    Settings(#[from] published::Unreadable),
    /// A key of the index cannot be read, or is not there.
    #[error("the field {kid}.pem is missing, malformed or another key's")]
    Key {
        /// Which.
        kid: String,
    },
}

/// The keys in use. Empty until a first Secret could be read.
#[derive(Debug, Default)]
pub struct SigningKeys {
    /// What holds now; made again when a key starts to sign or is no longer published.
    moment: ArcSwapOption<Moment>,
}

/// What holds between two transitions of the index.
#[derive(Debug)]
pub struct Moment {
    loaded: Arc<LoadedKeys>,
    from: Timestamp,
    until: Timestamp,
    /// The key that signs; `None` if the index has none for this time.
    pub signing: Option<Arc<SigningKey>>,
    /// The published keys as a JWK Set (RFC 7517 §5).
    pub jwks: Bytes,
    /// The JWKS' entity tag (RFC 9110 §8.8.3), with its quotes.
    pub etag: HeaderValue,
    /// The published keys, to verify with.
    pub published: Vec<Arc<Verifying>>,
}

impl LoadedKeys {
    /// Reads the fields of the Secret; `field` gives one by its name.
    pub fn parse<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, Unusable> {
        let index = Index::parse(field(INDEX_FIELD))?;
        let mut keys = BTreeMap::new();
        for record in index.keys() {
            let unusable = || Unusable::Key { kid: record.kid.chars().take(64).collect() };
            let pem = field(&format!("{}.pem", record.kid)).ok_or_else(unusable)?;
            let key = SigningKey::from_pem(record, pem).map_err(|_| unusable())?;
            let public = PublicKey::from_jwk(key.jwk()).ok_or_else(unusable)?;
            let verifying = Verifying { header: key.header().to_vec(), key: public };
            keys.insert(record.kid.clone(), (Arc::new(key), Arc::new(verifying)));
        }
        Ok(Self { index, keys })
    }
}

impl SigningKeys {
    /// Uses these keys from now on.
    pub fn replace(&self, loaded: Arc<LoadedKeys>, now: Timestamp) {
        self.moment.store(Some(Arc::new(Moment::at(loaded, now))));
    }

    /// What holds now; `None` before the first keys.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<Arc<Moment>> {
        let moment = self.moment.load_full()?;
        if moment.from <= now && now < moment.until {
            return Some(moment);
        }
        let later = Arc::new(Moment::at(moment.loaded.clone(), now));
        // If other keys have come meanwhile, they stay; the next request sees them.
        self.moment.compare_and_swap(&moment, Some(later.clone()));
        Some(later)
    }

    /// Whether there is a key to sign with.
    #[must_use]
    pub fn can_sign(&self, now: Timestamp) -> bool {
        self.at(now).is_some_and(|moment| moment.signing.is_some())
    }
}

impl Moment {
    /// Whether a key is published.
    #[must_use]
    pub fn is_published(&self, kid: &str) -> bool {
        self.published.iter().any(|published| published.key.kid() == kid)
    }

    fn at(loaded: Arc<LoadedKeys>, now: Timestamp) -> Self {
        let index = &loaded.index;
        let from = index.transitions().filter(|at| *at <= now).max().unwrap_or(Timestamp::MIN);
        let until = index.transitions().filter(|at| *at > now).min().unwrap_or(Timestamp::MAX);
        let signing = index.signing(now).and_then(|record| loaded.keys.get(&record.kid)).map(|(key, _)| key.clone());
        let keys: Vec<_> = index.published(now).filter_map(|record| loaded.keys.get(&record.kid)).collect();
        let jwks =
            Bytes::from(json!({ "keys": keys.iter().map(|(key, _)| key.jwk()).collect::<Vec<_>>() }).to_string());
        let published = keys.iter().map(|(_, verifying)| verifying.clone()).collect();
        let etag = HeaderValue::from_str(&format!("\"{}\"", Digest::of(&jwks).to_base64url()));
        // base64url in quotes is a header value; the empty tag matches nothing.
        let etag = etag.unwrap_or(HeaderValue::from_static("\"\""));
        Self { loaded, from, until, signing, jwks, etag, published }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::signing_key::{self, MintedSigningKey};
    use crate::signer::Algorithm;
    use jiff::SignedDuration;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn minted(created_at: Timestamp, sign_from: Timestamp) -> MintedSigningKey {
        signing_key::mint(Algorithm::ES256, created_at, sign_from).unwrap()
    }

    fn fields(keys: &[&MintedSigningKey]) -> BTreeMap<String, Vec<u8>> {
        let index = keys.iter().fold(Index::default(), |index, key| index.with(key.record.clone()));
        let pem = |key: &&MintedSigningKey| (format!("{}.pem", key.record.kid), key.private_key_pem.expose().to_vec());
        keys.iter().map(pem).chain([(INDEX_FIELD.to_owned(), index.to_json())]).collect()
    }

    fn parse(fields: &BTreeMap<String, Vec<u8>>) -> Result<LoadedKeys, Unusable> {
        LoadedKeys::parse(|name| fields.get(name).map(Vec::as_slice))
    }

    fn kids(moment: &Moment) -> Vec<String> {
        let set: serde_json::Value = serde_json::from_slice(&moment.jwks).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_its_predecessor_until_its_last_token_has_ended() {
        let (day_one, day_two) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        let (first, second) = (minted(day_one, day_one), minted(day_one, day_two));
        let keys = SigningKeys::default();
        assert!(keys.at(day_one).is_none());
        keys.replace(Arc::new(parse(&fields(&[&first, &second])).unwrap()), day_one);
        let kid = |now: Timestamp| keys.at(now).unwrap().signing.as_ref().unwrap().kid().to_owned();
        assert_eq!(kid(day_one), first.record.kid);
        assert_eq!(kids(&keys.at(day_one).unwrap()).len(), 2);
        let before = keys.at(day_one).unwrap();
        assert!(
            Arc::ptr_eq(&before, &keys.at(day_two - SignedDuration::from_nanos(1)).unwrap()),
            "nothing is made anew"
        );
        assert_eq!(kid(day_two), second.record.kid);
        assert_eq!(kids(&keys.at(day_two).unwrap()).len(), 2);
        assert_eq!(before.etag, keys.at(day_two).unwrap().etag);
        let later = at("2026-01-03T00:05:00Z");
        assert_eq!(kids(&keys.at(later).unwrap()), std::slice::from_ref(&second.record.kid));
        assert_ne!(before.etag, keys.at(later).unwrap().etag);
        assert_eq!(kid(day_one), first.record.kid, "a clock that was set back is followed");
    }

    #[test]
    fn keys_that_cannot_be_read_are_told_without_their_bytes() {
        let now = at("2026-01-01T00:00:00Z");
        let (key, other) = (minted(now, now), minted(now, now));
        let kid = key.record.kid.clone();
        let good = fields(&[&key]);
        let with = |name: &str, value: Option<&[u8]>| {
            let mut fields = good.clone();
            fields.remove(name);
            fields.extend(value.map(|value| (name.to_owned(), value.to_vec())));
            parse(&fields).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(INDEX_FIELD, None), Unusable::Index(signer::Unreadable::Missing));
        assert_eq!(with(INDEX_FIELD, Some(b"{}")), Unusable::Index(signer::Unreadable::Malformed));
        for value in [None, Some(&b"canary"[..]), Some(other.private_key_pem.expose())] {
            let error = with(&format!("{kid}.pem"), value);
            assert_eq!(error, Unusable::Key { kid: kid.clone() });
            assert!(!error.to_string().contains("canary"));
        }
    }
}
