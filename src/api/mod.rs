//! What users write and read: the custom resources of `appreg.dev`, their schemas and their rules.
//!
//! Types, the CEL rules beside their fields, and the few pure functions that say what an omitted
//! field means. No decisions: what follows from a registration is `plan`'s.
//!
//! Everything decodes that an API server may have stored under an older or a newer schema, as far as
//! the shapes allow: durations and times stay text here and are parsed where they are used, so that
//! one odd value is a problem of its field and not of the whole registration.

#![allow(clippy::doc_markdown, reason = "these comments are what `kubectl explain` prints, which knows no markdown")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a broken expectation is a failed test"))]

pub mod crds;
pub mod names;

mod algorithm;
mod app_registration;
mod authorization_server;
mod conflict;
mod credential;
mod customer_scope;
mod duration;
mod message;
mod private_key;
mod reason;
mod registration_approval;
mod registration_policy;
mod schema;
mod secret_field;
mod selector;
mod status;
mod time;

pub use algorithm::Algorithm;
pub use app_registration::{
    ApiAccess, AppRegistration, AppRegistrationSpec, AuthorizationServerRef, ClientType, DEFAULT_AUTHORIZATION_SERVER,
    DeletionPolicy, GrantType, SecretTemplate, TokenEndpointAuthMethod,
};
pub use authorization_server::{AuthorizationServer, AuthorizationServerSpec, AuthorizationServerStatus, BuiltIn};
pub use credential::{
    AccessToken, Certificate, ClientSecret, DEFAULT_CLIENT_SECRET_ENTRY, DEFAULT_TOKEN_ENTRY, Entry, Kind, KindSpec,
    PublicKey, ServiceAccount, secret_name,
};
pub use customer_scope::{CustomerScope, CustomerScopeType};
pub use duration::{InvalidDuration, LongDuration};
pub use message::Message;
pub use private_key::{InvalidKeySize, KeyType, PrivateKey, PrivateKeyAlgorithm};
pub use reason::{Reason, Sighting};
pub use registration_approval::{ApprovedApi, RegistrationApproval, RegistrationApprovalSpec, RegistrationRef};
pub use registration_policy::{
    ApiApprovalRule, ApiRule, ApprovalRequired, DurationBounds, DurationRules, LongestDuration, MOST_NAMED_VIOLATIONS,
    OWN_CLIENT_IDS, OWN_SERVICE_NAMES, OWN_SERVICE_URLS, OnViolation, PolicyLimits, PrivateKeyRule, RedirectUriRules,
    RegistrationPolicy, RegistrationPolicySpec, RegistrationPolicyStatus, UriScheme,
};
pub use secret_field::SecretField;
pub use selector::{InvalidSelector, selector_text, selects};
pub use status::{
    AppRegistrationStatus, ConditionType, CredentialStatus, Granted, GrantedApi, RevisionStatus, SecretStatus,
    ServerInUse,
};
pub use time::{InvalidTime, StatusTime, parse_time};
