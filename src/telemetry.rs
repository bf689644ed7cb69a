//! Logs: where they go, in which form, and what may never be in them.
//!
//! Our own lines are ours to keep clean. Of other crates' lines only `info` and above is let through, whatever the
//! filter says: at `debug` and `trace` they print requests, and requests hold credentials.

use std::io;
use std::panic::{self, PanicHookInfo};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Our crate: the targets of our own lines start with it.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// kube logs every failed request as an error by itself; the caller decides whether it is one.
const SILENCED: [&str; 1] = ["kube_client::client"];

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not in the syntax of `RUST_LOG`.
    #[error("The log level is malformed: write a level such as info, or module=level pairs separated by commas")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Logging was set up before in this process.
    #[error("Logging is already set up")]
    Twice,
}

/// Sends logs to standard error, filtered by `filter` (the syntax of `RUST_LOG`, for example `info` or
/// `appreg=debug`), and makes panics a log line with their location alone. Once per process.
pub fn init(format: Format, filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::builder().parse(filter).map_err(Error::Filter)?.and(filter_fn(may_be_logged));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().map_err(|_| Error::Twice)?;
    panic::set_hook(Box::new(log_location));
    Ok(())
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    if target == OURS || target.strip_prefix(OURS).is_some_and(|rest| rest.starts_with("::")) {
        return true;
    }
    *metadata.level() <= Level::INFO && !SILENCED.iter().any(|silenced| target.starts_with(silenced))
}

/// A panic's message may quote what was being worked on, so it is not repeated.
fn log_location(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    tracing::error!(location, "panicked");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(run: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let filter = EnvFilter::builder().parse("trace").unwrap().and(filter_fn(may_be_logged));
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
        tracing::subscriber::with_default(subscriber, run);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn other_crates_are_heard_from_info_on_and_ours_always() {
        let text = logged(|| {
            tracing::trace!("ours at trace");
            tracing::debug!(target: "h2::codec", "canary");
            tracing::trace!(target: "appregistry", "canary");
            tracing::info!(target: "hyper", "theirs at info");
        });
        assert!(text.contains("ours at trace") && text.contains("theirs at info"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn kube_does_not_log_failed_requests_by_itself() {
        assert_eq!(logged(|| tracing::error!(target: "kube_client::client::builder", "failed with …")), "");
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_message() {
        let text = logged(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(log_location));
            let value = "canary".to_owned();
            let result: Result<(), String> = Err(value.clone());
            let panics: [Box<dyn Fn() + panic::UnwindSafe + panic::RefUnwindSafe>; 4] = [
                Box::new(|| panic!("canary")),
                Box::new(move || panic!("could not use {value}")),
                Box::new(move || result.clone().unwrap()),
                Box::new(|| panic::panic_any("canary".to_owned())),
            ];
            let caught = panics.iter().filter(|panics| panic::catch_unwind(panics).is_err()).count();
            panic::set_hook(before);
            assert_eq!(caught, 4);
        });
        assert_eq!(text.matches("src/telemetry.rs").count(), 4, "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn a_malformed_filter_is_refused() {
        assert!(matches!(init(Format::Text, "appreg=loud"), Err(Error::Filter(_))));
    }
}
