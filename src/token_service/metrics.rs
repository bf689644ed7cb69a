//! What the token service counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::refusal::Refusal;
use super::verified::Inactive;

/// The token service's counters. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    connections_refused: Family<ConnectionLabels, Counter>,
    live_reads: Family<LiveReadLabels, Counter>,
    failures_limited: Family<LimitedLabels, Counter>,
    cluster_key_reads: Family<ClusterKeyReadLabels, Counter>,
    list_writes: Family<ListWriteLabels, Counter>,
    introspected: Family<IntrospectedLabels, Counter>,
}

/// Which endpoint answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/token`.
    Token,
    /// `/introspect`.
    Introspection,
    /// `/revoke`.
    Revocation,
    /// `/jwks`.
    Jwks,
    /// The metadata of RFC 8414.
    Metadata,
    /// The metadata of `OpenID` Connect Discovery.
    OpenIdMetadata,
    /// `/authorize`.
    Authorization,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With what was asked for.
    Ok,
    /// With 304: the client has it already.
    NotModified,
    /// With an error.
    Refused(Refusal),
}

/// Why a connection was refused, or closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionRefusal {
    /// There are too many.
    TotalLimit,
    /// There are too many of this address.
    AddressLimit,
    /// This address opens too many in a short time.
    HandshakeRate,
    /// It was open, and gave way to one of its own address or of an address that has fewer.
    GaveWay,
    /// An answer on it was not taken in time.
    AnswerTimeout,
    /// A request on it was refused, because its address has too many open.
    OpenRequests,
    /// There is no serving certificate yet.
    NoCertificate,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The TLS handshake failed: no common version, suite or protocol, an alert, or not TLS at all.
    HandshakeFailed,
    /// The peer went away in the TLS handshake.
    HandshakeBroken,
}

/// How a live read of a ledger entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LiveRead {
    /// The entry was read and is newer than what the watch has shown.
    Newer,
    /// The entry was read and says nothing new.
    Same,
    /// There is no such entry.
    Absent,
    /// It was not tried: too many in this second.
    Limited,
    /// The API server did not answer, or refused.
    Failed,
}

/// Whose limit a failed authentication was beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// That of the client identifier it named.
    Client,
    /// That of the address it came from.
    Address,
}

/// How a read of the cluster's keys ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterKeyRead {
    /// They were read.
    Ok,
    /// The API server did not answer, refused, or said what cannot be understood.
    Failed,
}

/// How a write of a shared list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListWrite {
    /// It was written.
    Written,
    /// Another writer was faster: it is read and written again.
    Conflict,
    /// The API server did not answer, or refused.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: Endpoint,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    reason: ConnectionRefusal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveReadLabels {
    outcome: LiveRead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitedLabels {
    by: Limited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterKeyReadLabels {
    outcome: ClusterKeyRead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListWriteLabels {
    outcome: ListWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IntrospectedLabels {
    result: Introspected,
}

/// What introspection said of a token: that it is active, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Introspected(Option<Inactive>);

impl Metrics {
    /// The counters, shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("token_service");
        registry.register("requests", "Requests by endpoint and how they ended", metrics.requests.clone());
        registry.register(
            "connections_refused",
            "Connections refused, or closed for a limit, by reason",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "live_reads",
            "Ledger entries read live before a client is said to be unknown, by how that ended",
            metrics.live_reads.clone(),
        );
        registry.register(
            "failures_limited",
            "Failed authentications beyond a limit, answered with 429, by whose limit it was",
            metrics.failures_limited.clone(),
        );
        registry.register(
            "cluster_key_reads",
            "Reads of the keys that the cluster signs ServiceAccount tokens with, by how they ended",
            metrics.cluster_key_reads.clone(),
        );
        registry.register(
            "list_writes",
            "Writes of the lists that replicas share, by how that ended",
            metrics.list_writes.clone(),
        );
        registry.register(
            "introspected_tokens",
            "Tokens that were introspected, active or why they were not",
            metrics.introspected.clone(),
        );
        metrics
    }

    pub(super) fn answered(&self, endpoint: Endpoint, outcome: Outcome) {
        self.requests.get_or_create(&RequestLabels { endpoint, outcome }).inc();
    }

    pub(super) fn connection_refused(&self, reason: ConnectionRefusal) {
        self.connections_refused.get_or_create(&ConnectionLabels { reason }).inc();
    }

    pub(super) fn live_read(&self, outcome: LiveRead) {
        self.live_reads.get_or_create(&LiveReadLabels { outcome }).inc();
    }

    pub(super) fn failure_limited(&self, by: Limited) {
        self.failures_limited.get_or_create(&LimitedLabels { by }).inc();
    }

    /// How many failed authentications were beyond this limit.
    #[must_use]
    pub fn failures_limited(&self, by: Limited) -> u64 {
        self.failures_limited.get_or_create(&LimitedLabels { by }).get()
    }

    pub(super) fn cluster_key_read(&self, outcome: ClusterKeyRead) {
        self.cluster_key_reads.get_or_create(&ClusterKeyReadLabels { outcome }).inc();
    }

    pub(super) fn introspected(&self, inactive: Option<Inactive>) {
        self.introspected.get_or_create(&IntrospectedLabels { result: Introspected(inactive) }).inc();
    }

    pub(super) fn list_write(&self, outcome: ListWrite) {
        self.list_writes.get_or_create(&ListWriteLabels { outcome }).inc();
    }

    /// How many live reads ended like this.
    #[must_use]
    pub fn live_reads(&self, outcome: LiveRead) -> u64 {
        self.live_reads.get_or_create(&LiveReadLabels { outcome }).get()
    }

    /// How many requests to an endpoint ended like this.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint, outcome: Outcome) -> u64 {
        self.requests.get_or_create(&RequestLabels { endpoint, outcome }).get()
    }

    /// How many connections were refused for this reason.
    #[must_use]
    pub fn connections_refused(&self, reason: ConnectionRefusal) -> u64 {
        self.connections_refused.get_or_create(&ConnectionLabels { reason }).get()
    }
}

impl EncodeLabelValue for Endpoint {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Token => "token",
            Self::Introspection => "introspection",
            Self::Revocation => "revocation",
            Self::Jwks => "jwks",
            Self::Metadata => "metadata",
            Self::OpenIdMetadata => "openid_metadata",
            Self::Authorization => "authorization",
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Ok => "ok",
            Self::NotModified => "not_modified",
            Self::Refused(refusal) => refusal.as_str(),
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for ConnectionRefusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::TotalLimit => "total_limit",
            Self::AddressLimit => "address_limit",
            Self::HandshakeRate => "handshake_rate",
            Self::GaveWay => "gave_way",
            Self::AnswerTimeout => "answer_timeout",
            Self::OpenRequests => "open_requests",
            Self::NoCertificate => "no_certificate",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeBroken => "handshake_broken",
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for Limited {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Client => "client",
            Self::Address => "address",
        }
        .encode(encoder)
    }
}

impl LiveRead {
    /// Whether it is known now what the ledger has.
    #[must_use]
    pub const fn is_certain(self) -> bool {
        match self {
            Self::Newer | Self::Same | Self::Absent => true,
            Self::Limited | Self::Failed => false,
        }
    }
}

impl EncodeLabelValue for LiveRead {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Newer => "newer",
            Self::Same => "same",
            Self::Absent => "absent",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for ClusterKeyRead {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
        .encode(encoder)
    }
}

impl EncodeLabelValue for Introspected {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.map_or("active", Inactive::as_str).encode(encoder)
    }
}

impl EncodeLabelValue for ListWrite {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Written => "written",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
        .encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_closed_sets() {
        let mut registry = crate::metrics::registry();
        let metrics = Metrics::register(&mut registry);
        metrics.answered(Endpoint::Token, Outcome::Refused(Refusal::UnknownClient));
        metrics.connection_refused(ConnectionRefusal::AddressLimit);
        metrics.live_read(LiveRead::Limited);
        metrics.failure_limited(Limited::Address);
        metrics.list_write(ListWrite::Conflict);
        metrics.introspected(None);
        metrics.introspected(Some(Inactive::Entry));
        let text = crate::metrics::text(&registry);
        for line in [
            r#"appreg_token_service_requests_total{endpoint="token",outcome="unknown_client"} 1"#,
            r#"appreg_token_service_connections_refused_total{reason="address_limit"} 1"#,
            r#"appreg_token_service_live_reads_total{outcome="limited"} 1"#,
            r#"appreg_token_service_failures_limited_total{by="address"} 1"#,
            r#"appreg_token_service_list_writes_total{outcome="conflict"} 1"#,
            r#"appreg_token_service_introspected_tokens_total{result="active"} 1"#,
            r#"appreg_token_service_introspected_tokens_total{result="entry"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
