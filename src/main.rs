//! The program: subcommands and wiring.

mod args;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use appreg::admin::Admin;
use appreg::cli::{self, lint};
use appreg::clock::{Clock as _, SystemClock};
use appreg::config::Config;
use appreg::kubernetes::client::Clients;
use appreg::{controller, metrics, telemetry, token_service};
use args::{Cli, Command, Controller, Crds, Lint, LintOutput, LogFormat, Observation, Reference, TokenService};

fn main() -> ExitCode {
    let (outcome, failure) = match Cli::parse().command {
        Command::Controller(args) => (run(controller(args)).map(|()| ExitCode::SUCCESS), 1),
        Command::TokenService(args) => (run(token_service(args)).map(|()| ExitCode::SUCCESS), 1),
        Command::Crds(args) => (crds(args).map(|()| ExitCode::SUCCESS), 1),
        Command::Reference(args) => (reference(args).map(|()| ExitCode::SUCCESS), 1),
        // 1 says that something was found.
        Command::Lint(args) => (lint(args), 2),
    };
    outcome.unwrap_or_else(|error| {
        // Nothing is left to tell it to where standard error is closed.
        let _ = writeln!(io::stderr(), "Error: {error:?}");
        ExitCode::from(failure)
    })
}

async fn controller(args: Controller) -> anyhow::Result<()> {
    let Controller { config, ledger_namespace, controller_namespace, concurrency, observation } = args;
    let Observation { admin_address, log_level, log_format } = observation;
    telemetry::init(format(log_format), &log_level)?;
    let config = configuration(&config)?;
    let admin = tokio::net::TcpListener::bind(admin_address)
        .await
        .with_context(|| format!("Cannot listen on {admin_address}: free the port, or set --admin-address"))?;
    let clients = clients().await?;
    let stop = stop_on_signal()?;
    let options = controller::run::Options {
        config,
        ledger_namespace,
        controller_namespace,
        concurrency: usize::from(concurrency),
    };
    let mut registry = metrics::registry();
    let controller = controller::run::Controller::new(options, clients, Arc::new(SystemClock), &mut registry)
        .context("The configured policy cannot be used")?;
    let port = Admin { conditions: controller.conditions(), registry }.run(admin, stop.clone());
    let ((), port) = tokio::join!(controller.run(stop.clone()), port);
    port.context("The admin port failed")
}

async fn token_service(args: TokenService) -> anyhow::Result<()> {
    let TokenService {
        config,
        ledger_namespace,
        listen,
        connections,
        connections_per_address,
        handshakes_per_address,
        ipv6_address_prefix,
        failures_per_client,
        failures_per_address,
        observation,
    } = args;
    let Observation { admin_address, log_level, log_format } = observation;
    telemetry::init(format(log_format), &log_level)?;
    let settings = token_service::Settings {
        server: configuration(&config)?.server,
        ledger_namespace,
        limits: token_service::server::Limits {
            connections: usize::try_from(connections)?,
            connections_per_address: usize::try_from(connections_per_address)?,
            handshakes_per_address,
            networks: token_service::peer::Networks::new(ipv6_address_prefix),
            ..token_service::server::Limits::default()
        },
        failures: token_service::failures::Rates { per_client: failures_per_client, per_address: failures_per_address },
    };
    let listeners = token_service::Listeners::bind(listen, admin_address).await?;
    let clients = clients().await?;
    let stop = stop_on_signal()?;
    Ok(token_service::run(settings, listeners, clients, Arc::new(SystemClock), stop).await?)
}

fn lint(args: Lint) -> anyhow::Result<ExitCode> {
    let Lint { files, output, config, namespace, namespace_labels } = args;
    let output = match output {
        LintOutput::Human => lint::Output::Human,
        LintOutput::Json => lint::Output::Json,
        LintOutput::Sarif => lint::Output::Sarif,
    };
    let mut labels = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (namespace, more) in namespace_labels {
        labels.entry(namespace).or_default().extend(more);
    }
    let options = lint::Options {
        namespace,
        namespace_labels: labels,
        config: config.as_deref().map(configuration).transpose()?,
        now: SystemClock.now(),
    };
    let files: Vec<_> = files.iter().map(|file| lint::read(file, &mut io::stdin())).collect();
    let report = lint::lint(&files, &options)?;
    lint::write(&report, output, &mut io::stdout().lock()).context("Cannot write the report")?;
    Ok(ExitCode::from(report.status() as u8))
}

fn crds(args: Crds) -> anyhow::Result<()> {
    let Crds { output } = args;
    appreg::api::crds::write(&output).with_context(|| format!("Cannot write to {}", output.display()))
}

fn reference(args: Reference) -> anyhow::Result<()> {
    let Reference { output } = args;
    cli::reference::write(&output).with_context(|| format!("Cannot write to {}", output.display()))
}

/// Runs a subcommand on tokio, with the one crypto provider.
fn run(program: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("Another crypto provider was installed before ours");
    }
    runtime().context("Cannot start the runtime")?.block_on(program)
}

/// On one core a second thread only takes turns with the first: the slowest of a hundred requests waits longer then.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let is_alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if is_alone {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.enable_all().build()
}

fn configuration(path: &Path) -> anyhow::Result<Config> {
    let yaml = std::fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
    Config::parse(&yaml).with_context(|| format!("Cannot use {}", path.display()))
}

async fn clients() -> anyhow::Result<Clients> {
    let config = kube::Config::infer()
        .await
        .context("No access to a Kubernetes API server is configured: set KUBECONFIG, or run in a pod")?;
    Ok(Clients::new(config)?)
}

/// Cancelled by SIGTERM, as the kubelet sends it, or by SIGINT.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stop.clone();
    let wait = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        token.cancel();
    };
    // Detached: it waits for a signal for as long as the process lives, and holds nothing.
    #[expect(clippy::disallowed_methods, reason = "ends with the process; a panic in it cannot happen")]
    drop(tokio::spawn(wait));
    Ok(stop)
}

const fn format(format: LogFormat) -> telemetry::Format {
    match format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    }
}
