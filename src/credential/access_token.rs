//! Access tokens in a Secret.
//!
//! No verifier of a token stands in the ledger: it is ours if one of our published keys signed it. Its signature is
//! verified by the caller (`signer::jwt`), its times are compared by the plan.

use jiff::Timestamp;

use super::{Fields, Held, Shown, ShownToken, field, shape_of, text};

/// What a verified token of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The key it was signed with.
    pub kid: String,
    /// `client_id`.
    pub client_id: String,
    /// `jti`: `<entry>~<random>`.
    pub jti: String,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub not_after: Timestamp,
    /// `scope`, split.
    pub scopes: Vec<String>,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `customers`.
    pub customers: Option<Vec<String>>,
    /// `customer_groups`.
    pub customer_groups: Option<Vec<String>>,
    /// `iss`.
    pub issuer: String,
}

/// What the field `access_token` holds: `claims` are those of its value if a key of ours signed it.
#[must_use]
pub fn inspect(entry: &str, is_empty: bool, claims: Option<Claims>) -> Shown {
    if is_empty {
        return Shown::AccessToken(Err(Held::Nothing));
    }
    let ours = claims.filter(|claims| claims.jti.split_once('~').is_some_and(|(of, _)| of == entry));
    Shown::AccessToken(ours.ok_or(Held::Unknown).map(|claims| ShownToken {
        shape: shape(&Asked {
            issuer: &claims.issuer,
            client_id: &claims.client_id,
            scopes: &claims.scopes,
            audiences: &claims.audiences,
            customers: claims.customers.as_deref(),
            customer_groups: claims.customer_groups.as_deref(),
        }),
        kid: claims.kid,
        issued_at: claims.issued_at,
        not_after: claims.not_after,
    }))
}

/// Whether the fields beside the token say what it says.
#[must_use]
pub fn is_described(fields: &Fields, claims: &Claims) -> bool {
    let mut said: Vec<&str> = text(fields, field::SCOPE).unwrap_or_default().split_ascii_whitespace().collect();
    let mut scopes: Vec<&str> = claims.scopes.iter().map(String::as_str).collect();
    said.sort_unstable();
    scopes.sort_unstable();
    said == scopes
        && text(fields, field::TOKEN_TYPE) == Some("Bearer")
        && text(fields, field::EXPIRES_AT) == Some(claims.not_after.as_second().to_string().as_str())
}

/// What a token is asked to say.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `client_id` and `sub`.
    pub client_id: &'a str,
    /// `scope`.
    pub scopes: &'a [String],
    /// `aud`.
    pub audiences: &'a [String],
    /// `customers`; `None` where the token has no such claim.
    pub customers: Option<&'a [String]>,
    /// `customer_groups`; `None` where the token has no such claim.
    pub customer_groups: Option<&'a [String]>,
}

/// A comparison of what tokens say; two of the same shape can stand for each other.
#[must_use]
pub fn shape(asked: &Asked<'_>) -> String {
    let mut parts = vec![asked.issuer, asked.client_id];
    for (mark, list) in [
        ("\u{1}scope", Some(asked.scopes)),
        ("\u{1}aud", Some(asked.audiences)),
        ("\u{1}customers", asked.customers),
        ("\u{1}groups", asked.customer_groups),
    ] {
        let mut items: Vec<&str> = list.into_iter().flatten().map(String::as_str).collect();
        items.sort_unstable();
        parts.push(mark);
        parts.extend(items);
    }
    // An empty list of customers is another token than one without the claim.
    parts.extend((asked.customers == Some(&[])).then_some("\u{1}no customers"));
    shape_of(parts)
}
