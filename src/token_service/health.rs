//! Whether the token service can do its work, for `/readyz` and as gauges.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch::Receiver;

use super::directory::Directory;
use super::follow::Served;
use super::lists::Lists;
use crate::admin::{Condition, Readiness};
use crate::clock::Clock;
use crate::kubernetes::watch::Health;

/// What must hold before clients are sent here. A watch that has lost its server does not count: what is known is served
/// on, and it is said for how long nothing was heard.
pub(super) fn conditions(served: &Served, health: Receiver<Health>, clock: Arc<dyn Clock>) -> Vec<Condition> {
    let Served { directory, keys, certificate, lists, others } = served.clone();
    let others_clock = clock.clone();
    let missing = |text: &str| Readiness::Missing(text.to_owned());
    vec![
        Condition::new("ledger", move || ledger(&directory, &health.borrow())),
        Condition::new("signing-keys", move || {
            let is_missing = !keys.can_sign(clock.now());
            let text = "no key that signs now was read from the Secret signing-keys; the controller writes it";
            if is_missing { missing(text) } else { Readiness::Ready }
        }),
        Condition::new("serving-certificate", move || {
            let text = "none was read from the Secret token-service-tls; the controller writes it";
            if certificate.is_present() { Readiness::Ready } else { missing(text) }
        }),
        // The configured server is served all the same.
        Condition::new("other-servers", move || match &*others.without_a_key(others_clock.now()) {
            [] => Readiness::Ready,
            names => Readiness::Degraded(format!(
                "no key that signs now was read of {}; the controller writes them",
                names.join(", ")
            )),
        }),
        // Tokens are issued all the same.
        Condition::new("shared-lists", move || lists.problem().map_or(Readiness::Ready, Readiness::Degraded)),
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
    let (directory, lists) = (served.directory.clone(), served.lists.clone());
    let gauges = Gauges { directory, lists, health: health.clone() };
    registry.sub_registry_with_prefix("token_service").register_collector(Box::new(gauges));
}

#[derive(Debug)]
struct Gauges {
    directory: Arc<Directory>,
    lists: Arc<Lists>,
    health: Receiver<Health>,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (healthy, unhealthy_seconds) = {
            let health = self.health.borrow();
            let seconds = if health.healthy { 0.0 } else { health.since.elapsed().as_secs_f64() };
            (i64::from(health.healthy), seconds)
        };
        let counts = self.lists.counts();
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?)
        };
        #[expect(clippy::cast_precision_loss, reason = "a count below 2^52")]
        let count = |count: usize| count as f64;
        #[expect(clippy::cast_precision_loss, reason = "0 or 1")]
        let healthy = healthy as f64;
        gauge("clients", "Clients in the directory", count(self.directory.len()))?;
        gauge("revoked_tokens", "Access tokens that were revoked and have not ended", count(counts.revoked))?;
        gauge("revoked_tokens_unwritten", "Those that are not in the shared lists", count(counts.revoked_unwritten))?;
        gauge("used_assertions", "Client assertions that were used and are remembered", count(counts.used))?;
        gauge("used_assertions_unwritten", "Those that wait to be shared", count(counts.used_unwritten))?;
        gauge(
            "used_assertions_surplus",
            "Those since the start that were not shared because their list was full",
            count(counts.used_surplus),
        )?;
        gauge("watch_healthy", "1 if the watch of the ledger namespace is healthy", healthy)?;
        gauge("watch_unhealthy_seconds", "For how long that watch has not been healthy", unhealthy_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lost_watch_degrades_readiness_only_once_the_ledger_was_read() {
        let directory = Directory::default();
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
        for gauge in ["clients", "watch_healthy", "revoked_tokens", "used_assertions_unwritten"] {
            assert!(text.contains(&format!("appreg_token_service_{gauge} 0")), "{text}");
        }
    }
}
