//! The authorization servers that there are: what each one is, whom it takes, and what must be told to whoever wrote it
//! down. Pure; the controller acts on it.
//!
//! [`Authority`] is the seam for other types of servers. The built-in type is told nothing: its token service follows the
//! ledger, so a client is registered with the ledger entry and removed with it. A type that must be told (RFC 7591, RFC
//! 7592) becomes a variant, and the compiler names the places where the controller has to: after a ledger entry was
//! written, and before one is swept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::api::{self, AuthorizationServerSpec, InvalidDuration, InvalidSelector, Message, Reason};
use crate::config::{self, Fault, Server};

/// The most servers beside the configured one: each has keys that every replica of the token service holds, and its
/// names are in the certificate that every connection begins with.
pub const MOST_SERVERS: usize = 32;

/// The field with the issuer.
const ISSUER: &str = "spec.builtIn.issuer";
/// The longest issuer and default audience.
const LONGEST_TEXT: usize = 256;
/// The most names in the serving certificate besides the issuer's host.
const MOST_SERVING_NAMES: usize = 4;

/// An authorization server, by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The operator's own: the token service serves it.
    BuiltIn(Server),
}

/// A server as an object declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// When the object was made: of two that want the same issuer the older has it.
    pub created_at: Option<Timestamp>,
    /// What it declares, or why that cannot be understood.
    pub server: Result<(Authority, LabelSelector), Message>,
}

/// A server that is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// What it is.
    pub authority: Authority,
    /// Whom it takes.
    pub takes: Takes,
}

/// Which namespaces may register with a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Takes {
    /// All: the configured server.
    Everyone,
    /// Those with such labels.
    Selected(LabelSelector),
    /// None, for this reason, as a clause: what exists goes on.
    Nobody(String),
}

/// All servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// Those in force, by name; the configured one among them.
    pub in_force: BTreeMap<String, InForce>,
    /// Why a declared one is not in force as it stands, by name.
    pub refused: BTreeMap<String, (Reason, Message)>,
}

impl Authority {
    /// Reads what an object declares. The error names the field.
    pub fn of(name: &str, spec: &AuthorizationServerSpec) -> Result<Self, Message> {
        let Some(built_in) = &spec.built_in else {
            let text = "must be set, because the server has no other type that this version of appreg knows: add it";
            return Err(Message::of_field("spec.builtIn", text));
        };
        let wrong = |field: &str, problem: &str| Message::of_field(format!("spec.builtIn.{field}"), problem);
        let lifetime = match &built_in.access_token_lifetime {
            None => config::default_token_lifetime(),
            Some(text) => {
                text.parse().map_err(|error: InvalidDuration| wrong("accessTokenLifetime", &error.to_string()))?
            }
        };
        let server = Server {
            name: name.to_owned(),
            issuer: built_in.issuer.clone(),
            default_audience: built_in.default_audience.clone(),
            access_token_lifetime: lifetime,
            signing_algorithm: built_in.signing_algorithm.unwrap_or_default(),
            serving_names: built_in.serving_names.clone(),
            forwarded_certificates: None,
        };
        server.check().map_err(|Fault { field, problem }| wrong(field, problem))?;
        limits(&server).map_err(|(field, problem)| wrong(field, problem))?;
        Ok(Self::BuiltIn(server))
    }

    /// The server as clients see it.
    #[must_use]
    pub const fn server(&self) -> &Server {
        match self {
            Self::BuiltIn(server) => server,
        }
    }
}

/// What the API server has refused already, unless its definition was another one: one server must spoil neither the
/// certificate that all have, nor what is published.
fn limits(server: &Server) -> Result<(), (&'static str, &'static str)> {
    let is_long = |text: &str| text.len() > LONGEST_TEXT;
    if is_long(&server.issuer) {
        return Err(("issuer", "must have at most 256 characters: shorten it"));
    }
    let authority = server.issuer.trim_start_matches("https://").trim_end_matches(server.path());
    let after_host = authority.trim_start_matches('[').trim_start_matches(server.host()).trim_start_matches(']');
    let is_port = after_host.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if !is_name(server.host()) || !(after_host.is_empty() || is_port) {
        return Err((
            "issuer",
            "must have a DNS name or an IP address as its host, and a number as its port: change it",
        ));
    }
    if server.default_audience.as_deref().is_some_and(is_long) {
        return Err(("defaultAudience", "must have at most 256 characters: shorten it"));
    }
    if server.serving_names.len() > MOST_SERVING_NAMES {
        return Err(("servingNames", "must have at most 4 items: remove the others"));
    }
    if !server.serving_names.iter().all(|name| is_name(name)) {
        return Err(("servingNames", "must be DNS names or IP addresses: change the others"));
    }
    Ok(())
}

/// Whether a certificate can have this name.
fn is_name(name: &str) -> bool {
    let is_letter = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(is_letter)
    };
    name.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(is_label))
}

impl Declared {
    /// Reads an object's spec.
    #[must_use]
    pub fn of(name: &str, created_at: Option<Timestamp>, spec: AuthorizationServerSpec) -> Self {
        let selector =
            |InvalidSelector { field, problem }| Message::of_field(format!("spec.namespaceSelector.{field}"), problem);
        let server = Authority::of(name, &spec).and_then(|authority| {
            // Whether it can be evaluated does not depend on the labels.
            api::selects(&spec.namespace_selector, &BTreeMap::new()).map_err(selector)?;
            Ok((authority, spec.namespace_selector))
        });
        Self { created_at, server }
    }
}

impl Takes {
    /// Why nothing new begins in a namespace with these labels, as a clause that follows the name of a field; `None` if it
    /// may. Labels that are not known are `None`.
    #[must_use]
    pub fn refusal(&self, server: &str, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> Option<String> {
        match (self, labels) {
            (Self::Everyone, _) => None,
            (Self::Nobody(reason), _) => Some(reason.clone()),
            (Self::Selected(selector), _) if *selector == LabelSelector::default() => None,
            (Self::Selected(_), None) => Some(format!(
                "whether the authorization server {server} takes registrations of {namespace} is not known yet, because the \
                 labels of the namespace could not be read: the controller retries"
            )),
            (Self::Selected(selector), Some(labels)) => (!api::selects(selector, labels).unwrap_or(false)).then(|| {
                format!(
                    "the authorization server {server} takes no registrations of the namespace {namespace}, because its \
                     namespaceSelector is {}: use another server, or label the namespace",
                    api::selector_text(selector)
                )
            }),
        }
    }
}

/// Which servers are in force.
///
/// `published` are the settings that the token service has, by name: what clients were told. They stay in force where
/// their object is gone or cannot be understood, and take nobody then. `declared` is `None` while objects could not be
/// listed: that is not their deletion.
#[must_use]
pub fn catalog(
    configured: &Server,
    declared: Option<&BTreeMap<String, Declared>>,
    published: &BTreeMap<String, Server>,
) -> Catalog {
    let mut catalog = Catalog::default();
    let mut places = BTreeMap::from([(configured.place(), &*configured.name)]);
    catalog.put(configured, Takes::Everyone);
    for (name, server) in published.iter().filter(|(name, _)| **name != configured.name) {
        if places.contains_key(&server.place()) {
            continue;
        }
        places.insert(server.place(), name);
        let reason = match declared {
            None => {
                format!("AuthorizationServers could not be listed yet, {name} among them: the controller retries")
            }
            Some(declared) if declared.contains_key(name) => format!(
                "the settings of the authorization server {name} cannot be used, so that nothing new begins at it: mend its \
                 AuthorizationServer"
            ),
            Some(_) => format!(
                "the authorization server {name} was deleted, so that only existing clients continue: use another server, \
                 or create its AuthorizationServer again"
            ),
        };
        catalog.put(server, Takes::Nobody(reason));
    }
    let mut candidates: Vec<_> = declared.into_iter().flatten().collect();
    candidates.sort_by_key(|(name, declared)| (!published.contains_key(*name), declared.created_at, (*name).clone()));
    for (name, declared) in candidates {
        let (authority, selector) = match &declared.server {
            _ if *name == configured.name => {
                let text = format!("{name} is the name of the configured server: create it under another name");
                catalog.refuse(name, Reason::InvalidSpec, Message::of_field("metadata.name", text));
                continue;
            }
            Err(problem) => {
                catalog.refuse(name, Reason::InvalidSpec, problem.clone());
                continue;
            }
            Ok(understood) => understood,
        };
        let server = authority.server();
        let before = published.get(name);
        if let Some(before) = before.filter(|before| before.issuer != server.issuer) {
            let text = format!(
                "must be {}, which the clients of {name} know: put it back, or create a server with another name",
                before.issuer
            );
            catalog.refuse(name, Reason::IssuerConflict, Message::of_field(ISSUER, text));
            continue;
        }
        if let Some(other) = places.get(&server.place()).filter(|other| **other != *name) {
            let text = format!("host and path are those of the authorization server {other}: choose others");
            catalog.refuse(name, Reason::IssuerConflict, Message::of_field(ISSUER, text));
            continue;
        }
        if before.is_none() && catalog.in_force.len() > MOST_SERVERS {
            let text = format!("There are {MOST_SERVERS} authorization servers already, which is the most: delete one");
            catalog.refuse(name, Reason::QuotaExceeded, Message::new(text));
            continue;
        }
        places.insert(server.place(), name);
        catalog.put(server, Takes::Selected(selector.clone()));
    }
    catalog
}

impl Catalog {
    fn put(&mut self, server: &Server, takes: Takes) {
        let authority = Authority::BuiltIn(server.clone());
        self.in_force.insert(server.name.clone(), InForce { authority, takes });
    }

    fn refuse(&mut self, name: &str, reason: Reason, message: Message) {
        self.refused.insert(name.to_owned(), (reason, message));
    }
}

#[cfg(test)]
mod tests;
