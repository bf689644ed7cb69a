//! `make conformance`: clients and resource servers that nobody here wrote, against the token service as users have it.
//!
//! On a real control plane with the chart installed, registrations for every method are applied, their Secrets are
//! mounted as a pod would have them, and each client is run as a process that gets a token and calls an API with it. The
//! APIs are foreign too: they validate tokens by discovery alone. Every line of the output is one thing that was tried.
//!
//! The programs are those that `docs/applications.md` and `docs/resource-servers.md` show.

mod apis;
mod clients;
mod endpoints;
mod foreign;
mod forge;
mod java;
mod resource;
mod rust;
mod stage;
mod tally;

#[path = "../harness/mod.rs"]
mod harness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use apis::Apis;
use clients::{Clients, Registrations};
use endpoints::Endpoints;
use foreign::{Foreign, Language};
use forge::{Callers, Forge};
use harness::ControlPlane;
use harness::oauth::install_provider;
use resource::{Server, Validator};
use stage::{ORDERS, Stage};
use tally::Tally;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    install_provider();
    let packages = std::env::args_os().nth(1).map(PathBuf::from);
    let packages = packages.context("the directory that tests/conformance/build prints: run `make conformance`")?;
    let mut tally = Tally::default();
    let ran = tokio::select! {
        ran = everything(&mut tally, &packages) => ran,
        // Whatever runs ends when the future is dropped.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = ran {
        tally.record("make conformance", "runs to its end", Err(error));
    }
    Ok(if tally.close() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All with the default algorithm, and what depends on the algorithm with each of the others.
async fn everything(tally: &mut Tally, packages: &Path) -> Result<()> {
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        let plane = ControlPlane::start().await?;
        let binary = std::env::current_exe()?.parent().and_then(Path::parent).map(|target| target.join("appreg"));
        let binary = binary.filter(|path| path.exists()).context("the program is not built: run `make conformance`")?;
        let set = format!("authorizationServer.signingAlgorithm={algorithm}");
        let stage = Stage::start(&plane, &binary, &[&set]).await?;
        let mut foreign = Foreign::new(packages, &stage.directory, &plane.directory().join("ca.crt"))?;
        with(tally, &stage, &mut foreign, algorithm).await?;
    }
    Ok(())
}

async fn with(tally: &mut Tally, stage: &Stage<'_>, foreign: &mut Foreign, algorithm: &str) -> Result<()> {
    let of = Registrations::apply(stage).await?;
    let mut servers = Vec::new();
    for validator in Validator::ALL {
        servers.push(Server::start(stage, foreign, validator, &of.basic.field("issuer_ca.crt")?, ORDERS).await?);
    }

    tally.section(&format!("{algorithm}: clients get a token and call an API with it"));
    let metadata = foreign.run(Language::Python, "metadata", &[(&of.basic.volume).into()]).await?;
    let what = "metadata of RFC 8414 and of OpenID Connect Discovery";
    tally.record(&Language::Python.client(), what, metadata.document().map(drop));
    let mut clients = Clients { tally, foreign, api: &servers[0] };
    if algorithm == "ES256" {
        clients.get_tokens(&of).await?;
        clients.use_every_type_of_key(stage).await?;
        clients.are_refused(stage, &of).await?;
        clients.start_from_the_issuer(stage, &of).await?;
        tally.record("kubectl", "the pod of docs/applications.md is accepted", clients::pod(stage).await);
    } else {
        clients.every("client_secret_basic", &of.basic).await?;
        clients.start_from_the_issuer_with_a_client_secret(&of.basic).await?;
    }

    if algorithm == "ES256" {
        tally.section(&format!("{algorithm}: a token is for one API"));
        Apis { tally, foreign, orders: &servers[0] }.ask(stage).await?;
    }

    tally.section(&format!("{algorithm}: APIs take and refuse tokens, by discovery alone"));
    let forge = Forge::new(stage, &of.basic.token().await?).await?;
    let callers = Callers::new(&foreign.api_ca, &of.certificate, &of.other_certificate)?;
    for server in &servers {
        if !server.validator.knows(forge.algorithm()) {
            // One line: that it refuses the bad tokens as well would show nothing.
            let refused = server.answers(401, &callers.plain, &of.basic.token().await?).await;
            let what = format!("the token as issued, {algorithm} being unknown to it: 401");
            tally.record(server.validator.name(), &what, refused);
            continue;
        }
        for tried in forge.tried()? {
            let outcome = server.answers(tried.status, &callers.plain, &tried.token).await;
            tally.record(server.validator.name(), &format!("{}: {}", tried.what, tried.status), outcome);
        }
        for (what, http, token, status) in callers.bound(&forge, server.validator)? {
            let outcome = server.answers(status, http, &token).await;
            tally.record(server.validator.name(), &format!("{what}: {status}"), outcome);
        }
    }

    tally.section(&format!("{algorithm}: introspection and revocation"));
    let mut endpoints = Endpoints { tally, foreign, stage, of: &of };
    let resource_server = endpoints.resource_server().await?;
    endpoints.introspect(&resource_server, &forge).await?;
    endpoints.revoke(&resource_server, &servers[0]).await
}
