//! The registration's credential entries with every default, bound and watermark resolved.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::api::{self, KeyType, Kind, KindSpec, LongDuration, Message, Reason, names};
use crate::config::Durations;
use crate::credential::{Held, Shown, certificate, public_key};
use crate::ledger;
use crate::policy::{self, Decision, Governance, Item, ItemKind};
use crate::rotation::{self, LONGEST_DURATION, LONGEST_TOKEN_LIFETIME, Rhythm};

use super::Problem;
use super::facts::{Environment, Law, Registration};
use super::given::{self, Given};

/// One credential entry that is minted, as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Desired {
    /// The entry's name.
    pub name: String,
    /// The Secret it is written to.
    pub secret: String,
    /// Whether the entry names that Secret itself.
    pub names_its_secret: bool,
    /// Its rhythm.
    pub rhythm: Rhythm,
    /// What was minted before this time is rotated: the latest watermark that has come.
    pub rotate_before: Option<Timestamp>,
    /// What was minted before this time is revoked: the latest watermark that has come.
    pub revoke_before: Option<Timestamp>,
    /// The first watermark that is still to come.
    pub next_watermark: Option<Timestamp>,
    /// What it is made of.
    pub settings: Settings,
}

/// What a credential is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settings {
    /// A client secret.
    ClientSecret,
    /// A certificate.
    Certificate {
        /// Its key.
        key_type: KeyType,
        /// Its DNS names, as far as they are allowed.
        dns_names: Vec<String>,
    },
    /// An access token.
    AccessToken {
        /// The API that it is for.
        audience: String,
        /// Its scopes there, as far as they are granted; or why it may not be for this API at all.
        scopes: Result<Vec<String>, Problem>,
    },
}

/// The entries, and what stands in the way of some.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolved {
    /// The entries that are minted and can be acted on.
    pub entries: Vec<Desired>,
    /// The entries that are given.
    pub given: Vec<Given>,
    /// The names of all entries of the spec, also of those that cannot: what is misspelt is not removed.
    pub names: BTreeSet<String>,
    /// What stands in the way.
    pub problems: Vec<Problem>,
    /// What was changed by a bound, for the report.
    pub notes: Vec<Message>,
}

impl Settings {
    /// The kind.
    #[must_use]
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::ClientSecret => Kind::ClientSecret,
            Self::Certificate { .. } => Kind::Certificate,
            Self::AccessToken { .. } => Kind::AccessToken,
        }
    }

    /// The key type of a certificate.
    #[must_use]
    pub(super) const fn key_type(&self) -> Option<KeyType> {
        match self {
            Self::Certificate { key_type, .. } => Some(*key_type),
            Self::ClientSecret | Self::AccessToken { .. } => None,
        }
    }

    /// An access token for an API that is not granted cannot be signed; one that is out stays until its end.
    #[must_use]
    pub(super) fn obstacle(&self) -> Option<Problem> {
        match self {
            Self::AccessToken { scopes: Err(problem), .. } => Some(problem.clone()),
            Self::AccessToken { scopes: Ok(_), .. } | Self::ClientSecret | Self::Certificate { .. } => None,
        }
    }

    /// What a Secret without it shows of it.
    #[must_use]
    pub(super) fn nothing_shown(&self) -> Shown {
        let (current, previous) = (Held::Nothing, Held::Nothing);
        match self {
            Self::ClientSecret => Shown::ClientSecret { current, previous },
            Self::Certificate { .. } => Shown::Certificate { current, previous, shape: String::new() },
            Self::AccessToken { .. } => Shown::AccessToken(Err(Held::Nothing)),
        }
    }
}

/// Resolves the entries of a registration.
#[must_use]
pub(super) fn resolve(
    registration: &Registration,
    Law { environment, governance }: Law<'_>,
    before: Option<&ledger::Entry>,
    decision: &Decision,
    now: Timestamp,
) -> Resolved {
    let mut resolved = Resolved::default();
    let is_empty = registration.spec.credentials.as_ref().is_some_and(Vec::is_empty);
    if is_empty && !registration.spec.is_public() {
        let text = "must not be empty: set clientType: Public for a client without credentials, or leave credentials out for a \
                    client secret and an access token";
        resolved.problems.push(Problem::of_field(Reason::InvalidSpec, "spec.credentials", text));
    }
    let common = Common {
        now,
        registration,
        environment,
        governance,
        before,
        decision,
        rotate: watermarks(registration, Watermark::Rotate, &mut resolved.problems),
        revoke: watermarks(registration, Watermark::Revoke, &mut resolved.problems),
    };
    for entry in registration.spec.effective_credentials().iter() {
        if !resolved.names.insert(entry.name.clone()) {
            let text = format!("two have the name {}: rename one of them", entry.name);
            resolved.problems.push(Problem::of_field(Reason::InvalidSpec, "spec.credentials", text));
            continue;
        }
        match common.entry(entry, &mut resolved) {
            Ok(()) => {}
            Err(problem) => resolved.problems.push(problem),
        }
    }
    resolved
}

impl Resolved {
    /// Takes up a minted entry, if it does not stand in another one's way.
    fn push(&mut self, desired: Desired) {
        match self.entries.iter().find(|other| desired.conflicts_with(other)) {
            None => self.entries.push(desired),
            Some(other) => self.problems.push(Problem::of_field(
                Reason::InvalidSpec,
                format!("spec.credentials[{}]", desired.name),
                format!(
                    "{} writes the same field of the Secret {}: give one of them a secretName of its own",
                    other.name, desired.secret
                ),
            )),
        }
    }
}

impl Desired {
    /// Whether both cannot stand in the same registration: the API server's rule, for objects that it never asked.
    /// Neither would find in the Secret what it wrote, and both would mint for ever.
    fn conflicts_with(&self, other: &Self) -> bool {
        let shares = |a: &Self, b: &Self| {
            a.settings.kind() == Kind::ClientSecret && b.settings.kind() == Kind::Certificate && !b.names_its_secret
        };
        self.secret == other.secret && !shares(self, other) && !shares(other, self)
    }
}

struct Common<'a> {
    now: Timestamp,
    registration: &'a Registration,
    environment: &'a Environment,
    governance: &'a Governance,
    before: Option<&'a ledger::Entry>,
    decision: &'a Decision,
    rotate: Vec<(Option<String>, Timestamp)>,
    revoke: Vec<(Option<String>, Timestamp)>,
}

impl Common<'_> {
    fn entry(&self, entry: &api::Entry, resolved: &mut Resolved) -> Result<(), Problem> {
        match entry.kind_spec() {
            Some(KindSpec::ClientSecret(api::ClientSecret {})) => self.minted(entry, Settings::ClientSecret, resolved),
            Some(KindSpec::Certificate(certificate)) => {
                let settings = self.certificate(entry, certificate, &mut resolved.problems);
                self.minted(entry, settings, resolved)
            }
            Some(KindSpec::AccessToken(token)) => {
                let settings = self.access_token(entry, token, &mut resolved.problems);
                self.minted(entry, settings, resolved)
            }
            Some(KindSpec::PublicKey(key)) => {
                let key = public_key::read(key).map(Box::new);
                self.given(entry, given::Settings::PublicKey(key), resolved);
                Ok(())
            }
            Some(KindSpec::ServiceAccount(api::ServiceAccount { name })) => {
                let subject = format!("system:serviceaccount:{}:{name}", self.registration.namespace);
                self.given(entry, given::Settings::ServiceAccount { subject }, resolved);
                Ok(())
            }
            None => Err(Problem::of_field(
                Reason::InvalidSpec,
                format!("spec.credentials[{}]", entry.name),
                "must have exactly one kind of credential that this version of appreg knows: remove the others, or upgrade \
                 appreg",
            )),
        }
    }

    /// An entry that is minted.
    fn minted(&self, entry: &api::Entry, settings: Settings, resolved: &mut Resolved) -> Result<(), Problem> {
        // The API server refuses this, except of an object that it never asked about.
        let Some(secret) = api::secret_name(entry, &self.registration.name) else { return Ok(()) };
        let path = |field: &str| path(entry, field);
        let policy = &self.environment.policy;
        let (durations, longest): (&Durations, _) = match settings {
            Settings::ClientSecret => (&policy.durations.client_secret, LONGEST_DURATION),
            Settings::Certificate { .. } => (&policy.durations.certificate, LONGEST_DURATION),
            Settings::AccessToken { .. } => (&policy.durations.access_token, LONGEST_TOKEN_LIFETIME),
        };
        let asked = duration(entry.effective_duration.as_deref(), &path("effectiveDuration"))?;
        if asked.is_some_and(|asked| !asked.is_positive() || asked > longest) {
            let most = LongDuration::from_seconds(longest.as_secs().unsigned_abs());
            let text = format!("must be more than 0s and at most {most}: change it");
            return Err(Problem::of_field(Reason::InvalidSpec, path("effectiveDuration"), text));
        }
        let renew_before = duration(entry.renew_before.as_deref(), &path("renewBefore"))?;
        let bounded = policy::effective_duration(self.governance, settings.kind(), durations, asked);
        if let Some(by) = &bounded.clamped_by {
            let to = LongDuration::from_seconds(bounded.duration.as_secs().unsigned_abs());
            let text =
                format!("bounded to {to} by policy/{by}: set a duration within its bounds, or change the bounds");
            resolved.notes.push(Message::of_field(path("effectiveDuration"), text));
        }
        if renew_before.is_some_and(|before| before >= bounded.duration) {
            let text = "is not shorter than the effective duration, so a third of that is used: shorten it";
            resolved.notes.push(Message::of_field(path("renewBefore"), text));
        }
        let problems = &mut resolved.problems;
        let rotate = marks(&self.rotate, Watermark::Rotate, entry, problems);
        let revoke = marks(&self.revoke, Watermark::Revoke, entry, problems);
        resolved.push(Desired {
            name: entry.name.clone(),
            secret,
            names_its_secret: entry.secret_name.is_some(),
            rhythm: Rhythm::new(bounded.duration, renew_before),
            rotate_before: self.latest(&rotate),
            revoke_before: self.latest(&revoke),
            next_watermark: self.next(rotate.iter().chain(&revoke)),
            settings,
        });
        Ok(())
    }

    /// An entry that is given.
    fn given(&self, entry: &api::Entry, settings: given::Settings, resolved: &mut Resolved) {
        let Resolved { problems, given, .. } = resolved;
        for (field, is_written) in [
            ("secretName", entry.secret_name.is_some()),
            ("effectiveDuration", entry.effective_duration.is_some()),
            ("renewBefore", entry.renew_before.is_some()),
            ("rotateMintedBefore", entry.rotate_minted_before.is_some()),
        ] {
            if is_written {
                let text = "must not be set for publicKey or serviceAccount credentials: remove it";
                problems.push(Problem::of_field(Reason::InvalidSpec, path(entry, field), text));
            }
        }
        let revoke = marks(&self.revoke, Watermark::Revoke, entry, problems);
        given.push(Given {
            name: entry.name.clone(),
            revoke_before: self.latest(&revoke),
            next_watermark: self.next(&revoke),
            longest: self.governance.bounds(Kind::PublicKey).max.map(|longest| longest.value),
            settings,
        });
    }

    fn certificate(&self, entry: &api::Entry, asked: &api::Certificate, problems: &mut Vec<Problem>) -> Settings {
        let granted = |name: &&String| self.decision.grant.dns_names.contains_key(*name);
        let dns_names = asked.dns_names.iter().filter(granted).cloned().collect();
        let field = path(entry, "certificate.privateKey");
        let mut key_type = asked.private_key.unwrap_or_default().key_type().unwrap_or_else(|problem| {
            problems.push(Problem::of_field(Reason::InvalidSpec, field.clone(), problem.to_string()));
            KeyType::default()
        });
        let credential = self.before.and_then(|before| before.credentials.get(&entry.name));
        let before =
            credential.and_then(|known| known.revisions.last()).and_then(|r| certificate::key_type(&r.verifier));
        if let Some(before) = before.filter(|before| *before != key_type && !self.governance.allows_key_type(key_type))
        {
            let text = format!(
                "{key_type} is not allowed by any policy, so {before} stays: put it back, or add {key_type} to privateKeys of \
                 a RegistrationPolicy"
            );
            problems.push(Problem::of_field(Reason::PolicyDenied, field, text));
            key_type = before;
        }
        Settings::Certificate { key_type, dns_names }
    }

    /// The token's API and its scopes there. A token is for one API: where that one is not granted, none other takes its
    /// place.
    fn access_token(&self, entry: &api::Entry, asked: &api::AccessToken, problems: &mut Vec<Problem>) -> Settings {
        let grant = &self.decision.grant;
        let server_audience = self.environment.server.default_audience();
        let audience = asked.audience.as_deref().unwrap_or_else(|| grant.audience_or(server_audience));
        let Some(granted) = grant.scopes_at(audience, server_audience) else {
            let field = if asked.audience.is_some() { "accessToken.audience" } else { "accessToken" };
            let problem = self.not_granted(&path(entry, field), &Item::new(ItemKind::Api, audience));
            return Settings::AccessToken { audience: audience.to_owned(), scopes: Err(problem) };
        };
        let mut scopes: Vec<String> = granted.iter().map(|scope| (*scope).to_owned()).collect();
        if !asked.scopes.is_empty() {
            let (yes, no): (Vec<_>, Vec<_>) =
                asked.scopes.iter().cloned().partition(|scope| granted.contains(scope.as_str()));
            let item = |scope: &str| {
                let is_of_api = grant.apis.contains_key(audience);
                if is_of_api { Item::api_scope(audience, scope) } else { Item::new(ItemKind::Scope, scope) }
            };
            let field = path(entry, "accessToken.scopes");
            problems.extend(no.iter().map(|scope| self.not_granted(&field, &item(scope))));
            scopes = yes;
        }
        Settings::AccessToken { audience: audience.to_owned(), scopes: Ok(scopes) }
    }

    /// An item that a token asks for and that the registration does not have: because it is denied, or because the
    /// registration does not ask for it.
    fn not_granted(&self, field: &str, item: &Item) -> Problem {
        let name = &item.name;
        if let Some(denied) = self.decision.denied.iter().find(|denied| denied.item == *item) {
            let text = format!("{name} is not granted to the registration, see {}", item.path());
            return Problem::of_field(denied.reason(), field, text);
        }
        let text = format!("{name} must be asked for by the registration as well: add it to {}", item.path());
        Problem::of_field(Reason::InvalidSpec, field, text)
    }

    /// The latest that has come: one that is still to come must not hold up a revocation that is due.
    fn latest(&self, marks: &[Timestamp]) -> Option<Timestamp> {
        marks.iter().filter(|mark| **mark <= self.now).max().copied()
    }

    /// The first that is still to come.
    fn next<'a>(&self, marks: impl IntoIterator<Item = &'a Timestamp>) -> Option<Timestamp> {
        marks.into_iter().filter(|mark| **mark > self.now).min().copied()
    }
}

fn path(entry: &api::Entry, field: &str) -> String {
    format!("spec.credentials[{}].{field}", entry.name)
}

/// The watermarks of an entry: its own, the spec's, the annotations'.
fn marks(
    common: &[(Option<String>, Timestamp)],
    watermark: Watermark,
    entry: &api::Entry,
    problems: &mut Vec<Problem>,
) -> Vec<Timestamp> {
    let own = match watermark {
        Watermark::Rotate => &entry.rotate_minted_before,
        Watermark::Revoke => &entry.revoke_minted_before,
    };
    let own = own.as_deref().and_then(|text| match api::parse_time(text) {
        Ok(time) => Some(rotation::whole_seconds_up(time)),
        Err(error) => {
            let field = path(entry, watermark.field());
            problems.push(Problem::of_field(Reason::InvalidSpec, field, error.to_string()));
            None
        }
    });
    let is_meant = |of: &Option<String>| of.as_ref().is_none_or(|of| *of == entry.name);
    let common = common.iter().filter(|(of, _)| is_meant(of)).map(|(_, time)| *time);
    common.chain(own).collect()
}

/// The two watermarks.
#[derive(Clone, Copy)]
enum Watermark {
    Rotate,
    Revoke,
}

impl Watermark {
    /// The field, of the spec and of its entries.
    const fn field(self) -> &'static str {
        match self {
            Self::Rotate => "rotateMintedBefore",
            Self::Revoke => "revokeMintedBefore",
        }
    }
}

/// The latest `revokeMintedBefore` that is meant for the whole registration and has come.
#[must_use]
pub(super) fn revoked_before(registration: &Registration, now: Timestamp) -> Option<Timestamp> {
    watermarks(registration, Watermark::Revoke, &mut Vec::new())
        .into_iter()
        .filter(|(entry, time)| entry.is_none() && *time <= now)
        .map(|(_, time)| time)
        .max()
}

/// The first `revokeMintedBefore` for the whole registration that is still to come: it counts without any entry, too.
#[must_use]
pub(super) fn next_revocation(registration: &Registration, now: Timestamp) -> Option<Timestamp> {
    watermarks(registration, Watermark::Revoke, &mut Vec::new())
        .into_iter()
        .filter(|(entry, time)| entry.is_none() && *time > now)
        .map(|(_, time)| time)
        .min()
}

/// The watermarks of the spec and the annotations, each for one entry or for all.
fn watermarks(
    registration: &Registration,
    watermark: Watermark,
    problems: &mut Vec<Problem>,
) -> Vec<(Option<String>, Timestamp)> {
    let (spec, annotation) = match watermark {
        Watermark::Rotate => (&registration.spec.rotate_minted_before, names::ROTATE_MINTED_BEFORE_ANNOTATION),
        Watermark::Revoke => (&registration.spec.revoke_minted_before, names::REVOKE_MINTED_BEFORE_ANNOTATION),
    };
    let annotated = registration.annotations.get(annotation).map(String::as_str).unwrap_or_default();
    let of_annotation = annotated.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (entry, text) = part.split_once('=').map_or((None, part), |(entry, text)| (Some(entry.to_owned()), text));
        (format!("metadata.annotations[{annotation}]"), entry, text.to_owned())
    });
    let of_spec = spec.iter().map(|text| (format!("spec.{}", watermark.field()), None, text.clone()));
    of_spec
        .chain(of_annotation)
        .filter_map(|(field, entry, text)| match api::parse_time(&text) {
            Ok(time) => Some((entry, rotation::whole_seconds_up(time))),
            Err(error) => {
                problems.push(Problem::of_field(Reason::InvalidSpec, field, error.to_string()));
                None
            }
        })
        .collect()
}

fn duration(text: Option<&str>, path: &str) -> Result<Option<SignedDuration>, Problem> {
    text.map(|text| text.parse::<LongDuration>().map(LongDuration::signed))
        .transpose()
        .map_err(|error| Problem::of_field(Reason::InvalidSpec, path, error.to_string()))
}
