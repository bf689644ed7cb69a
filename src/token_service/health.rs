//! Whether the token service can do its work, for `/readyz` and as gauges.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch::Receiver;

use super::directory::Directory;
use super::follow::Served;
use crate::admin::{Condition, Readiness};
use crate::clock::Clock;
use crate::kubernetes::watch::Health;

/// What must hold before clients are sent here. A watch that has lost its server does not count: what is known is served
/// on, and it is said for how long nothing was heard.
pub(super) fn conditions(served: &Served, health: Receiver<Health>, clock: Arc<dyn Clock>) -> Vec<Condition> {
    let Served { directory, keys, certificate } = served.clone();
    let missing = |text: &str| Readiness::Missing(text.to_owned());
    vec![
        Condition::new("ledger", move || ledger(&directory, &health.borrow())),
        Condition::new("signing-keys", move || {
            if keys.can_sign(clock.now()) { Readiness::Ready } else { missing("no key that signs now was read") }
        }),
        Condition::new("serving-certificate", move || {
            if certificate.is_present() { Readiness::Ready } else { missing("none was read") }
        }),
    ]
}

fn ledger(directory: &Directory, health: &Health) -> Readiness {
    let problem = health.problem.as_deref().unwrap_or("no answer yet");
    if !directory.is_complete() {
        return Readiness::Missing(format!("not listed yet: {problem}"));
    }
    if health.healthy {
        return Readiness::Ready;
    }
    Readiness::Degraded(format!("nothing new for {} s: {problem}", health.since.elapsed().as_secs()))
}

/// Shows the directory's size and the watch's health in `registry`.
pub(super) fn register(registry: &mut Registry, served: &Served, health: &Receiver<Health>) {
    let gauges = Gauges { directory: served.directory.clone(), health: health.clone() };
    registry.sub_registry_with_prefix("token_service").register_collector(Box::new(gauges));
}

#[derive(Debug)]
struct Gauges {
    directory: Arc<Directory>,
    health: Receiver<Health>,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (healthy, unhealthy_seconds) = {
            let health = self.health.borrow();
            let seconds = if health.healthy { 0.0 } else { health.since.elapsed().as_secs_f64() };
            (i64::from(health.healthy), seconds)
        };
        let clients = i64::try_from(self.directory.len()).unwrap_or(i64::MAX);
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?)
        };
        #[expect(clippy::cast_precision_loss, reason = "a count below 2^52")]
        let clients = clients as f64;
        #[expect(clippy::cast_precision_loss, reason = "0 or 1")]
        let healthy = healthy as f64;
        gauge("clients", "Clients in the directory", clients)?;
        gauge("watch_healthy", "1 if the watch of the ledger namespace is healthy", healthy)?;
        gauge("watch_unhealthy_seconds", "For how long that watch has not been healthy", unhealthy_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lost_watch_degrades_readiness_only_once_the_ledger_was_read() {
        let directory = Directory::new("default");
        let mut health = Health::unknown();
        health.problem = Some("connection failed".into());
        let missing = Readiness::Missing("not listed yet: connection failed".into());
        assert_eq!(ledger(&directory, &health), missing);
        directory.set_complete();
        tokio::time::advance(std::time::Duration::from_secs(40)).await;
        let degraded = Readiness::Degraded("nothing new for 40 s: connection failed".into());
        assert_eq!(ledger(&directory, &health), degraded);
        health.healthy = true;
        assert_eq!(ledger(&directory, &health), Readiness::Ready);
    }

    #[test]
    fn the_gauges_are_shown() {
        let mut registry = crate::metrics::registry();
        let (_sender, health) = Health::channel();
        register(&mut registry, &Served::nothing("default"), &health);
        let text = crate::metrics::text(&registry);
        assert!(text.contains("appreg_token_service_clients 0"), "{text}");
        assert!(text.contains("appreg_token_service_watch_healthy 0"), "{text}");
    }
}
