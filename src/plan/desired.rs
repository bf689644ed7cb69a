//! The registration's credential entries with every default, bound and watermark resolved.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::api::{self, KeyType, Kind, KindSpec, LongDuration, Reason, names};
use crate::ledger::Grant;
use crate::policy::{self, Subject};
use crate::rotation::{self, LONGEST_DURATION, LONGEST_TOKEN_LIFETIME, Rhythm};

use super::Problem;
use super::facts::{Environment, Registration};

/// One credential entry as it shall be.
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
        /// Its scopes, as far as they are granted.
        scopes: Vec<String>,
        /// Its audiences, as far as they are granted.
        audiences: Vec<String>,
    },
}

/// The entries, and what stands in the way of some.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolved {
    /// The entries that can be acted on.
    pub entries: Vec<Desired>,
    /// The names of all entries of the spec, also of those that cannot: what is misspelt is not removed.
    pub names: BTreeSet<String>,
    /// What stands in the way.
    pub problems: Vec<Problem>,
    /// What was changed by a bound, for the report.
    pub notes: Vec<String>,
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
}

/// Resolves the entries of a registration.
#[must_use]
pub(super) fn resolve(
    registration: &Registration,
    environment: &Environment,
    grant: &Grant,
    now: Timestamp,
) -> Resolved {
    let mut resolved = Resolved::default();
    let common = Common {
        now,
        registration,
        environment,
        grant,
        rotate: watermarks(registration, Watermark::Rotate, &mut resolved.problems),
        revoke: watermarks(registration, Watermark::Revoke, &mut resolved.problems),
    };
    for entry in registration.spec.effective_credentials().iter() {
        resolved.names.insert(entry.name.clone());
        match common.entry(entry, &mut resolved.problems, &mut resolved.notes) {
            Ok(desired) => match resolved.entries.iter().find(|other| desired.conflicts_with(other)) {
                None => resolved.entries.push(desired),
                Some(other) => resolved.problems.push(Problem::new(
                    Reason::InvalidSpec,
                    format!(
                        "spec.credentials[{}] and [{}] would write the same field of the Secret {}: give one of them a \
                         secretName of its own",
                        other.name, desired.name, desired.secret
                    ),
                )),
            },
            Err(problem) => resolved.problems.push(problem),
        }
    }
    resolved
}

impl Desired {
    /// Whether both cannot stand in the same registration: the API server's rule, for objects that it never asked.
    /// Neither would find in the Secret what it wrote, and both would mint for ever.
    fn conflicts_with(&self, other: &Self) -> bool {
        let shares = |a: &Self, b: &Self| {
            a.settings.kind() == Kind::ClientSecret && b.settings.kind() == Kind::Certificate && !b.names_its_secret
        };
        self.name == other.name || (self.secret == other.secret && !shares(self, other) && !shares(other, self))
    }
}

struct Common<'a> {
    now: Timestamp,
    registration: &'a Registration,
    environment: &'a Environment,
    grant: &'a Grant,
    rotate: Vec<(Option<String>, Timestamp)>,
    revoke: Vec<(Option<String>, Timestamp)>,
}

impl Common<'_> {
    fn entry(
        &self,
        entry: &api::Entry,
        problems: &mut Vec<Problem>,
        notes: &mut Vec<String>,
    ) -> Result<Desired, Problem> {
        let path = |field: &str| format!("spec.credentials[{}].{field}", entry.name);
        let Some(spec) = entry.kind_spec() else {
            return Err(Problem::new(
                Reason::InvalidSpec,
                format!("{}: name exactly one kind of credential that this version knows", path("*").replace(".*", "")),
            ));
        };
        let kind = spec.kind();
        let longest = if kind == Kind::AccessToken { LONGEST_TOKEN_LIFETIME } else { LONGEST_DURATION };
        let asked = duration(entry.effective_duration.as_deref(), &path("effectiveDuration"))?;
        if asked.is_some_and(|asked| !asked.is_positive() || asked > longest) {
            let most = LongDuration::from_seconds(longest.as_secs().unsigned_abs());
            return Err(Problem::new(
                Reason::InvalidSpec,
                format!("{} must be more than 0s and at most {most}", path("effectiveDuration")),
            ));
        }
        let renew_before = duration(entry.renew_before.as_deref(), &path("renewBefore"))?;
        let bounded = policy::effective_duration(&self.environment.policy, kind, asked);
        if bounded.clamped {
            let to = LongDuration::from_seconds(bounded.duration.as_secs().unsigned_abs());
            let by = &self.environment.policy.name;
            notes.push(format!("{} is bounded to {to} by policy/{by}", path("effectiveDuration")));
        }
        if renew_before.is_some_and(|before| before >= bounded.duration) {
            notes.push(format!(
                "{} is not shorter than the effective duration: a third of it is used",
                path("renewBefore")
            ));
        }
        let (settings, denied) = self.settings(spec);
        problems.extend(
            denied.into_iter().map(|(field, item)| {
                Problem::new(Reason::PolicyDenied, format!("{} {item} is not granted", path(field)))
            }),
        );
        let rotate = marks(&self.rotate, entry.rotate_minted_before.as_deref(), &entry.name, problems);
        let revoke = marks(&self.revoke, entry.revoke_minted_before.as_deref(), &entry.name, problems);
        Ok(Desired {
            name: entry.name.clone(),
            secret: api::secret_name(entry, &self.registration.name),
            names_its_secret: entry.secret_name.is_some(),
            rhythm: Rhythm::new(bounded.duration, renew_before),
            rotate_before: self.latest(&rotate),
            revoke_before: self.latest(&revoke),
            next_watermark: rotate.iter().chain(&revoke).filter(|mark| **mark > self.now).min().copied(),
            settings,
        })
    }

    /// What the credential is made of, and which items asked for are not granted.
    fn settings(&self, spec: KindSpec<'_>) -> (Settings, Vec<(&'static str, String)>) {
        let Registration { namespace, name, .. } = self.registration;
        match spec {
            KindSpec::ClientSecret(api::ClientSecret {}) => (Settings::ClientSecret, Vec::new()),
            KindSpec::Certificate(api::Certificate { key_type, dns_names }) => {
                let (dns_names, denied) =
                    policy::dns_names(&self.environment.policy, dns_names, Subject { namespace, name });
                let settings = Settings::Certificate { key_type: key_type.unwrap_or_default(), dns_names };
                (settings, denied.into_iter().map(|item| ("certificate.dnsNames", item)).collect())
            }
            KindSpec::AccessToken(api::AccessToken { scopes, audiences }) => {
                let mut denied = Vec::new();
                let mut of = |field, asked: &[String], granted: &std::collections::BTreeMap<String, String>| {
                    if asked.is_empty() {
                        return granted.keys().cloned().collect();
                    }
                    let (yes, no): (Vec<_>, Vec<_>) =
                        asked.iter().cloned().partition(|item| granted.contains_key(item));
                    denied.extend(no.into_iter().map(|item| (field, item)));
                    yes
                };
                let scopes = of("accessToken.scopes", scopes, &self.grant.scopes);
                let mut audiences: Vec<String> = of("accessToken.audiences", audiences, &self.grant.audiences);
                if audiences.is_empty() {
                    audiences.push(self.environment.server.default_audience().to_owned());
                }
                (Settings::AccessToken { scopes, audiences }, denied)
            }
        }
    }

    /// The latest that has come: one that is still to come must not hold up a revocation that is due.
    fn latest(&self, marks: &[Timestamp]) -> Option<Timestamp> {
        marks.iter().filter(|mark| **mark <= self.now).max().copied()
    }
}

/// The watermarks of an entry: its own, the spec's, the annotations'.
fn marks(
    common: &[(Option<String>, Timestamp)],
    own: Option<&str>,
    entry: &str,
    problems: &mut Vec<Problem>,
) -> Vec<Timestamp> {
    let own = own.and_then(|text| match api::parse_time(text) {
        Ok(time) => Some(rotation::whole_seconds_up(time)),
        Err(error) => {
            let message = format!("spec.credentials[{entry}]: a watermark {error}");
            problems.push(Problem::new(Reason::InvalidSpec, message));
            None
        }
    });
    let common = common.iter().filter(|(of, _)| of.as_deref().is_none_or(|of| of == entry)).map(|(_, time)| *time);
    common.chain(own).collect()
}

/// The two watermarks.
#[derive(Clone, Copy)]
enum Watermark {
    Rotate,
    Revoke,
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
    let (field, spec, annotation) = match watermark {
        Watermark::Rotate => {
            ("spec.rotateMintedBefore", &registration.spec.rotate_minted_before, names::ROTATE_MINTED_BEFORE_ANNOTATION)
        }
        Watermark::Revoke => {
            ("spec.revokeMintedBefore", &registration.spec.revoke_minted_before, names::REVOKE_MINTED_BEFORE_ANNOTATION)
        }
    };
    let annotated = registration.annotations.get(annotation).map(String::as_str).unwrap_or_default();
    let of_annotation = annotated.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (entry, text) = part.split_once('=').map_or((None, part), |(entry, text)| (Some(entry.to_owned()), text));
        (annotation, entry, text.to_owned())
    });
    let of_spec = spec.iter().map(|text| (field, None, text.clone()));
    of_spec
        .chain(of_annotation)
        .filter_map(|(origin, entry, text)| match api::parse_time(&text) {
            Ok(time) => Some((entry, rotation::whole_seconds_up(time))),
            Err(error) => {
                problems.push(Problem::new(Reason::InvalidSpec, format!("{origin} {error}")));
                None
            }
        })
        .collect()
}

fn duration(text: Option<&str>, path: &str) -> Result<Option<SignedDuration>, Problem> {
    text.map(|text| text.parse::<LongDuration>().map(LongDuration::signed))
        .transpose()
        .map_err(|error| Problem::new(Reason::InvalidSpec, format!("{path} {error}")))
}
