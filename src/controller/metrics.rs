//! The controller's metrics. Closed label sets: reasons, never names of people's objects.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api::Reason;

/// What the controller counts.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    minted: Family<ByReason, Counter>,
    failed: Family<ByReason, Counter>,
    reconciles: Counter,
    swept: Counter,
    /// Ledger entries and registrations that cannot be read.
    pub(crate) unreadable: Gauge,
    /// 1 while the custom resource definition is not the one that the ledger was made under: nothing is swept.
    pub(crate) sweep_suspended: Gauge,
    /// Registrations that are known.
    pub(crate) registrations: Gauge,
    /// Registrations that keep what no policy allows any more.
    pub(crate) policy_violations: Gauge,
    /// Token signing keys that an emergency took out of use.
    pub(crate) signing_keys_revoked: Counter,
    /// Of how many servers an emergency is announced whose time has not come.
    pub(crate) signing_keys_revocation_pending: Gauge,
    /// Of how many servers an emergency is announced with a time that cannot be read: nothing is done about it.
    pub(crate) signing_keys_revocation_malformed: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: String,
}

impl Metrics {
    /// The metrics, registered.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("mints", "Credentials minted, by why", metrics.minted.clone());
        registry.register("failures", "Failed passes, by why", metrics.failed.clone());
        registry.register("reconciles", "Passes over one registration", metrics.reconciles.clone());
        registry.register("swept", "Ledger entries removed because their registration is gone", metrics.swept.clone());
        registry.register("unreadable", "Objects that cannot be read", metrics.unreadable.clone());
        registry.register(
            "sweep_suspended",
            "1 while nothing is removed from the ledger because the CRD was replaced",
            metrics.sweep_suspended.clone(),
        );
        registry.register("registrations", "Registrations that are known", metrics.registrations.clone());
        registry.register(
            "policy_violations",
            "Registrations that keep something granted that no policy allows any more",
            metrics.policy_violations.clone(),
        );
        metrics.register_signing_keys(registry);
        metrics
    }

    fn register_signing_keys(&self, registry: &mut Registry) {
        registry.register(
            "signing_keys_revoked",
            "Token signing keys that were unpublished by the annotation revoke-minted-before",
            self.signing_keys_revoked.clone(),
        );
        registry.register(
            "signing_keys_revocation_pending",
            "Of how many servers the annotation revoke-minted-before of the signing keys names a time to come",
            self.signing_keys_revocation_pending.clone(),
        );
        registry.register(
            "signing_keys_revocation_malformed",
            "Of how many servers the annotation revoke-minted-before of the signing keys cannot be read and does nothing",
            self.signing_keys_revocation_malformed.clone(),
        );
    }

    /// One credential was minted.
    pub(crate) fn minted(&self, reason: Reason) {
        self.minted.get_or_create(&ByReason { reason: reason.to_string() }).inc();
    }

    /// One pass failed.
    pub(crate) fn failed(&self, reason: Reason) {
        self.failed.get_or_create(&ByReason { reason: reason.to_string() }).inc();
    }

    /// One pass began.
    pub(crate) fn reconciled(&self) {
        self.reconciles.inc();
    }

    /// One ledger entry was removed.
    pub(crate) fn swept(&self) {
        self.swept.inc();
    }
}
