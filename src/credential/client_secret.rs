//! Client secrets in a Secret.

use subtle::ConstantTimeEq as _;

use super::{Fields, Held, Shown, field};
use crate::ledger::{Credential, Digest, Verifier};

/// What the fields `client_secret` and `previous_client_secret` hold, by the ledger's verifiers.
#[must_use]
pub fn inspect(fields: &Fields, ledger: Option<&Credential>) -> Shown {
    let held = |name| match fields.get(name) {
        None => Held::Nothing,
        Some(value) if value.0.is_empty() => Held::Nothing,
        Some(value) => revision_of(&value.0, ledger),
    };
    Shown::ClientSecret { current: held(field::CLIENT_SECRET), previous: held(field::PREVIOUS_CLIENT_SECRET) }
}

fn revision_of(value: &[u8], ledger: Option<&Credential>) -> Held {
    let presented = Digest::of(value);
    ledger
        .into_iter()
        .flat_map(|credential| &credential.revisions)
        .find(|revision| match &revision.verifier {
            Verifier::ClientSecret(verifier) => verifier.sha256.0.ct_eq(&presented.0).into(),
            Verifier::Certificate(_) | Verifier::PublicKey(_) => false,
        })
        .map_or(Held::Unknown, |revision| Held::Revision(revision.revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;
    use crate::ledger::{ClientSecretVerifier, Revision};
    use k8s_openapi::ByteString;

    #[test]
    fn current_is_what_the_secret_holds_whatever_its_number() {
        let revision = |revision: u64, text: &str| Revision {
            revision,
            minted_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2026-04-01T00:00:00Z".parse().unwrap(),
            hint: None,
            verifier: Verifier::ClientSecret(ClientSecretVerifier { sha256: Digest::of(text.as_bytes()) }),
        };
        let ledger = Credential {
            revisions: vec![revision(1, "one"), revision(2, "two")],
            ..Credential::new(Kind::ClientSecret)
        };
        let fields = |pairs: &[(&str, &str)]| -> Fields {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect()
        };
        for (given, current, previous) in [
            (
                fields(&[("client_secret", "one"), ("previous_client_secret", "two")]),
                Held::Revision(1),
                Held::Revision(2),
            ),
            (fields(&[("client_secret", "three")]), Held::Unknown, Held::Nothing),
            (fields(&[("client_secret", "")]), Held::Nothing, Held::Nothing),
            (fields(&[]), Held::Nothing, Held::Nothing),
        ] {
            assert_eq!(inspect(&given, Some(&ledger)), Shown::ClientSecret { current, previous });
        }
        let shown = inspect(&fields(&[("client_secret", "one")]), None);
        assert_eq!(
            shown,
            Shown::ClientSecret { current: Held::Unknown, previous: Held::Nothing },
            "no ledger, no trust"
        );
    }
}
