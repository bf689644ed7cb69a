//! The restrictions of policies: which kinds of credentials may begin, with which keys and methods, how long they live, how
//! many there are.
//!
//! A policy that states nothing of one says nothing about it. Of the policies that state one the lists add up, and of
//! bounds and limits the widest counts; where none states it, the configured default policy's value does, also while that
//! policy is off. So a policy that only adds a scope lifts no restriction of another one.

use std::sync::Arc;

use jiff::SignedDuration;

use crate::api::{
    DeletionPolicy, DurationBounds, DurationRules, GrantType, KeyType, Kind, LongDuration, LongestDuration,
    PrivateKeyRule, RegistrationPolicySpec, TokenEndpointAuthMethod,
};

use super::Governance;
use super::rules::{Invalid, Rules, invalid};

/// The restrictions that one policy states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    credential_kinds: Option<Vec<Kind>>,
    private_keys: Option<Vec<PrivateKeyRule>>,
    grant_types: Option<Vec<GrantType>>,
    auth_methods: Option<Vec<TokenEndpointAuthMethod>>,
    deletion_policies: Option<Vec<DeletionPolicy>>,
    client_secret: Stated,
    certificate: Stated,
    access_token: Stated,
    public_key: Stated,
    pub(super) most_registrations: Option<usize>,
    most_credentials: Option<usize>,
}

/// The bounds of a duration that a policy states, both inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stated {
    min: Option<SignedDuration>,
    max: Option<SignedDuration>,
}

/// A bound or a limit, and the name of the policy that states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By<'a, T> {
    /// The value.
    pub value: T,
    /// The policy's name.
    pub policy: &'a str,
}

/// The bounds that apply to a duration, as far as there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds<'a> {
    /// The shortest.
    pub min: Option<By<'a, SignedDuration>>,
    /// The longest.
    pub max: Option<By<'a, SignedDuration>>,
}

impl Restrictions {
    /// The restrictions that a policy states.
    pub(super) fn of(spec: &RegistrationPolicySpec) -> Result<Self, Invalid> {
        let DurationRules { client_secret, certificate, access_token, public_key } =
            spec.durations.clone().unwrap_or_default();
        let limits = spec.limits.clone().unwrap_or_default();
        Ok(Self {
            credential_kinds: spec.credential_kinds.clone(),
            private_keys: spec.private_keys.clone(),
            grant_types: spec.grant_types.clone(),
            auth_methods: spec.token_endpoint_auth_methods.clone(),
            deletion_policies: spec.deletion_policies.clone(),
            client_secret: read("durations.clientSecret", client_secret)?,
            certificate: read("durations.certificate", certificate)?,
            access_token: read("durations.accessToken", access_token)?,
            public_key: read("durations.publicKey", public_key.map(DurationBounds::from))?,
            most_registrations: limits.registrations_per_namespace.map(|most| most as usize),
            most_credentials: limits.credentials.map(|most| most as usize),
        })
    }

    const fn duration(&self, kind: Kind) -> Stated {
        match kind {
            Kind::ClientSecret => self.client_secret,
            Kind::Certificate => self.certificate,
            Kind::AccessToken => self.access_token,
            Kind::PublicKey => self.public_key,
            Kind::ServiceAccount => Stated { min: None, max: None },
        }
    }
}

impl Governance {
    /// Whether a kind of credential may begin.
    #[must_use]
    pub fn allows_kind(&self, kind: Kind) -> bool {
        self.lists(|stated| stated.credential_kinds.as_deref()).any(|allowed| *allowed == kind)
    }

    /// Whether certificates with such a key may begin.
    #[must_use]
    pub fn allows_key_type(&self, key_type: KeyType) -> bool {
        self.allows_kind(Kind::Certificate)
            && self.lists(|stated| stated.private_keys.as_deref()).any(|rule| rule.allows(key_type))
    }

    /// Whether a grant of RFC 6749 may be used.
    #[must_use]
    pub fn allows_grant_type(&self, grant_type: GrantType) -> bool {
        self.lists(|stated| stated.grant_types.as_deref()).any(|allowed| *allowed == grant_type)
    }

    /// Whether a way to authenticate may be used.
    #[must_use]
    pub fn allows_auth_method(&self, method: TokenEndpointAuthMethod) -> bool {
        self.lists(|stated| stated.auth_methods.as_deref()).any(|allowed| *allowed == method)
    }

    /// Whether a registration may say that this becomes of its client when it is deleted.
    #[must_use]
    pub fn allows_deletion_policy(&self, policy: DeletionPolicy) -> bool {
        self.lists(|stated| stated.deletion_policies.as_deref()).any(|allowed| *allowed == policy)
    }

    /// How many registrations of a namespace get a client; `None` for any number.
    #[must_use]
    pub fn most_registrations(&self) -> Option<By<'_, usize>> {
        self.stated(|stated| stated.most_registrations).into_iter().max_by_key(|by| by.value)
    }

    /// How many credentials a registration has; `None` for any number.
    #[must_use]
    pub fn most_credentials(&self) -> Option<By<'_, usize>> {
        self.stated(|stated| stated.most_credentials).into_iter().max_by_key(|by| by.value)
    }

    /// The bounds of the duration of a kind. Where the longest is shorter than the shortest, it is the shortest too.
    #[must_use]
    pub fn bounds(&self, kind: Kind) -> Bounds<'_> {
        let min = self.stated(|stated| stated.duration(kind).min).into_iter().min_by_key(|by| by.value);
        let max = self.stated(|stated| stated.duration(kind).max).into_iter().max_by_key(|by| by.value);
        match (min, max) {
            (Some(min), Some(max)) if max.value < min.value => Bounds { min: Some(max), max: Some(max) },
            (min, max) => Bounds { min, max },
        }
    }

    /// The names of the policies that state which kinds may begin.
    pub(super) fn stating_kinds(&self) -> String {
        names(&self.stated(|stated| stated.credential_kinds.as_deref()))
    }

    /// The names of the policies that state which private keys may begin.
    pub(super) fn stating_private_keys(&self) -> String {
        names(&self.stated(|stated| stated.private_keys.as_deref()))
    }

    /// The items of a list that policies state.
    fn lists<'a, T: 'a>(&'a self, list: impl Fn(&'a Restrictions) -> Option<&'a [T]>) -> impl Iterator<Item = &'a T> {
        self.stated(list).into_iter().flat_map(|by| by.value)
    }

    /// The values that policies state; where none does, the configured one's.
    fn stated<'a, T>(&'a self, value: impl Fn(&'a Restrictions) -> Option<T>) -> Vec<By<'a, T>> {
        let of = |rules: &'a Arc<Rules>| Some(By { value: value(&rules.restrictions)?, policy: &rules.name });
        let stated: Vec<_> = self.policies.iter().filter_map(of).collect();
        if stated.is_empty() { of(&self.configured).into_iter().collect() } else { stated }
    }
}

impl Bounds<'_> {
    /// The nearest duration within the bounds, and the policy that moved it if one did.
    #[must_use]
    pub fn clamp(&self, asked: SignedDuration) -> (SignedDuration, Option<String>) {
        let shorter = self.max.filter(|max| asked > max.value);
        let longer = self.min.filter(|min| asked < min.value);
        shorter.or(longer).map_or((asked, None), |bound| (bound.value, Some(bound.policy.to_owned())))
    }
}

impl From<LongestDuration> for DurationBounds {
    fn from(LongestDuration { max }: LongestDuration) -> Self {
        Self { min: None, max: Some(max) }
    }
}

fn names<T>(stated: &[By<'_, T>]) -> String {
    stated.iter().map(|by| format!("policy/{}", by.policy)).collect::<Vec<_>>().join(", ")
}

fn read(field: &str, bounds: Option<DurationBounds>) -> Result<Stated, Invalid> {
    let DurationBounds { min, max } = bounds.unwrap_or_default();
    let bound = |name: &str, text: Option<String>| {
        let parsed = text.map(|text| text.parse::<LongDuration>().map(LongDuration::signed)).transpose();
        parsed.map_err(|problem| invalid(&format!("{field}.{name}"), &problem))
    };
    let (min, max) = (bound("min", min)?, bound("max", max)?);
    let is_wrong = min.is_some_and(|min| !min.is_positive() || max.is_some_and(|max| max < min));
    if is_wrong || max.is_some_and(|max| !max.is_positive()) {
        return Err(invalid(field, &"must have a min longer than 0s and a max at least as long as min: change them"));
    }
    Ok(Stated { min, max })
}
