//! The command line: one struct per subcommand, every flag and every variable.
//!
//! It parses and checks what can be checked without opening anything; `main` takes each struct apart field by field, so
//! that the compiler finds a flag that nothing uses. Access to the Kubernetes API has no flag: it is that of
//! `KUBECONFIG`, or of the pod's service account.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Registers applications with an authorization server, as Kubernetes resources, and rotates their credentials.
#[derive(Debug, Parser)]
#[command(name = "appreg", version)]
pub(crate) struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controller: it mints, publishes and rotates credentials
    Controller(Controller),
    /// Run the token service: the built-in authorization server
    TokenService(TokenService),
    /// Check files as the API server and the operator would, without a cluster
    ///
    /// The exit status is 0 where nothing is wrong, 1 where something is, and 2 where it is not known because something
    /// could not be read or evaluated.
    Lint(Lint),
    /// Write the `CustomResourceDefinitions` as files
    Crds(Crds),
    /// Write the reference pages of the documentation
    #[command(hide = true)]
    Reference(Reference),
}

/// Flags of `appreg controller`.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "a field is named as its flag")]
pub(crate) struct Controller {
    /// The configuration file: the built-in authorization server and the default policy
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// The namespace of the ledger, the token signing keys and the serving certificate
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    pub(crate) ledger_namespace: String,

    /// The namespace of the CA's private keys: the controller's own, and never the ledger's
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    pub(crate) controller_namespace: String,

    /// How many registrations are worked on at the same time, 16 to 32
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(16..=32))]
    pub(crate) concurrency: u16,

    /// What is told to whoever runs it.
    #[command(flatten)]
    pub(crate) observation: Observation,
}

/// Flags of `appreg token-service`.
#[derive(Debug, Args)]
pub(crate) struct TokenService {
    /// The configuration file: the same as the controller's
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// The namespace of the ledger, the token signing keys and the serving certificate
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    pub(crate) ledger_namespace: String,

    /// Where to listen for clients, with TLS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub(crate) listen: SocketAddr,

    /// How many connections may be open at the same time
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// How many of them may come from one address
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections_per_address: u32,

    /// How many new connections of one address a second are accepted; at once, 5 seconds' worth
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) handshakes_per_address: u32,

    /// How many leading bits of an IPv6 address are one address: 128 where clients are pods, because the pods of a node share
    /// a /64; 64 where they are outside of the cluster
    #[arg(long, value_name = "BITS", default_value_t = 128, value_parser = clap::value_parser!(u8).range(32..=128))]
    pub(crate) ipv6_address_prefix: u8,

    /// How many failed authentications of one client a second are answered with 401, the others with 429; at once, 20
    /// seconds' worth
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) failures_per_client: u32,

    /// How many from one address; at once, 10 seconds' worth
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) failures_per_address: u32,

    /// What is told to whoever runs it.
    #[command(flatten)]
    pub(crate) observation: Observation,
}

/// Flags of `appreg lint`.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Files of YAML or JSON; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// What is written to standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LintOutput::Human)]
    pub(crate) output: LintOutput,

    /// The operator's configuration file, for its default policy; without it, that of the chart
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The namespace of objects that name none
    #[arg(long, short, value_name = "NAMESPACE", value_parser = namespace, default_value = "default")]
    pub(crate) namespace: String,

    /// Labels of a namespace whose Namespace is in none of the files, as `NAMESPACE:NAME=VALUE,NAME=VALUE`; may be repeated
    #[arg(long, value_name = "LABELS", value_parser = namespace_labels)]
    pub(crate) namespace_labels: Vec<(String, Vec<(String, String)>)>,
}

/// How `appreg lint` tells what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LintOutput {
    /// For people
    Human,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for what shows findings beside a change
    Sarif,
}

/// Flags of `appreg crds`.
#[derive(Debug, Args)]
pub(crate) struct Crds {
    /// The directory to write to; made if it is missing
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output: PathBuf,
}

/// Flags of `appreg reference`.
#[derive(Debug, Args)]
pub(crate) struct Reference {
    /// The directory to write to; made if it is missing
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output: PathBuf,
}

/// How a long-running subcommand tells what it does: probes, metrics, logs.
#[derive(Debug, Args)]
pub(crate) struct Observation {
    /// Where to listen for probes and metrics, without TLS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) admin_address: SocketAddr,

    /// The log level: error, warn, info, debug, trace, or levels by module such as `info,appreg::controller=debug`
    #[arg(long, value_name = "LEVEL", env = "APPREG_LOG", default_value = "info")]
    pub(crate) log_level: String,

    /// How it is logged
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// A namespace's name is an RFC 1123 label; an empty one would mean all namespaces to the API.
fn namespace(text: &str) -> Result<String, String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let fits =
        (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a namespace is 1 to 63 of a-z, 0-9 and -, not first or last -".to_owned())
    }
}

fn namespace_labels(text: &str) -> Result<(String, Vec<(String, String)>), String> {
    const SHAPE: &str = "write a namespace, a colon and its labels, such as shop:team=web,tier=front";
    let (name, labels) = text.split_once(':').ok_or(SHAPE)?;
    let label = |label: &str| {
        let (name, value) = label.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or(SHAPE)?;
        Ok((name.to_owned(), value.to_owned()))
    };
    Ok((namespace(name)?, labels.split(',').map(label).collect::<Result<_, String>>()?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const CONTROLLER: [&str; 5] =
        ["appreg", "controller", "--config=c.yaml", "--ledger-namespace=ledger", "--controller-namespace=appreg"];

    fn parsed(args: &[&str], more: &[&str]) -> Result<Command, String> {
        Cli::try_parse_from(args.iter().chain(more)).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_and_every_subcommand_says_what_it_is() {
        for subcommand in Cli::command().get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
            for argument in subcommand.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", subcommand.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn nothing_listens_beyond_loopback_unless_it_is_told_to() {
        let Ok(Command::Controller(controller)) = parsed(&CONTROLLER, &[]) else { panic!("a controller") };
        assert!(controller.observation.admin_address.ip().is_loopback());
        assert_eq!(controller.concurrency, 16);

        let args = ["appreg", "token-service", "--config=c.yaml", "--ledger-namespace=ledger"];
        let Ok(Command::TokenService(service)) = parsed(&args, &[]) else { panic!("a token service") };
        assert!(service.listen.ip().is_loopback() && service.observation.admin_address.ip().is_loopback());
        assert_eq!((service.connections, service.connections_per_address), (4096, 256));
        assert_eq!((service.handshakes_per_address, service.ipv6_address_prefix), (100, 128));
        assert_eq!((service.failures_per_client, service.failures_per_address), (1, 10));
    }

    #[test]
    fn labels_of_namespaces_are_read_and_what_is_none_is_refused() {
        let lint = |labels: &str| parsed(&["appreg", "lint", "-"], &["--namespace-labels", labels]);
        let Ok(Command::Lint(args)) = lint("shop:team=web,a.example/tier=") else { panic!("a lint") };
        let labels = [("team".to_owned(), "web".to_owned()), ("a.example/tier".to_owned(), String::new())];
        assert_eq!(args.namespace_labels, [("shop".to_owned(), labels.to_vec())]);
        for text in ["", "shop", "shop:", "shop:team", "shop:=web", "Shop:team=web"] {
            assert!(lint(text).unwrap_err().contains("--namespace-labels"), "{text}");
        }
    }

    #[test]
    fn a_bad_value_is_refused_by_the_name_of_its_flag() {
        for (flag, value) in [
            ("--concurrency", "15"),
            ("--concurrency", "33"),
            ("--admin-address", "localhost"),
            ("--log-format", "xml"),
            ("--ledger-namespace", ""),
            ("--ledger-namespace", "a/b"),
            ("--controller-namespace", "-a"),
        ] {
            // A flag of CONTROLLER is taken out first: given twice would be another error.
            let args: Vec<&str> = CONTROLLER.into_iter().filter(|arg| !arg.starts_with(flag)).collect();
            let error = parsed(&args, &[&format!("{flag}={value}")]).unwrap_err();
            assert!(error.contains(flag), "{flag}={value}: {error}");
        }
    }
}
