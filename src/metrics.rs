//! The registry that one process exposes at `/metrics`.
//!
//! Each component owns its metrics and registers them here; their label sets are closed enums. No names of people's
//! objects and no message texts become labels.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// What every metric's name starts with.
const PREFIX: &str = "appreg";

/// A registry that knows what program this is: `appreg_build_info`.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let labels = vec![("version", env!("CARGO_PKG_VERSION"))];
    registry.register("build", "The program that exposes these metrics", Info::new(labels));
    registry
}

/// Everything in `registry` in the `OpenMetrics` text format 1.0.0.
#[must_use]
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => text,
        // Writing to a `String` cannot fail; a collector could, and then less is shown.
        Err(std::fmt::Error) => "# EOF\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_tells_the_version() {
        let text = text(&registry());
        assert!(text.contains(&format!("appreg_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
