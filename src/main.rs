//! The program: subcommands and wiring.

mod args;

use anyhow::Context;
use clap::Parser;

use args::{Cli, Command, Controller, Crds, Observation, TokenService};

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Controller(args) => controller(args),
        Command::TokenService(args) => token_service(args),
        Command::Crds(args) => crds(args),
    }
}

fn controller(args: Controller) -> anyhow::Result<()> {
    let Controller { config, ledger_namespace, controller_namespace, concurrency, observation } = args;
    let Observation { admin_address, log_filter, log_format } = observation;
    let _ = (config, ledger_namespace, controller_namespace, concurrency, admin_address, log_filter, log_format);
    anyhow::bail!("not wired yet")
}

fn token_service(args: TokenService) -> anyhow::Result<()> {
    let TokenService { config, ledger_namespace, listen, connections, connections_per_address, observation } = args;
    let Observation { admin_address, log_filter, log_format } = observation;
    let _ = (config, ledger_namespace, listen, connections, connections_per_address);
    let _ = (admin_address, log_filter, log_format);
    anyhow::bail!("not wired yet")
}

fn crds(args: Crds) -> anyhow::Result<()> {
    let Crds { output } = args;
    appreg::api::crds::write(&output).with_context(|| format!("cannot write to {}", output.display()))
}
