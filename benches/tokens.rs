//! What the token service answers on one core, and how far that is from the bare signature: `make bench-token`.
//!
//! ```text
//! core 0: the token service as shipped      core 1: the load generator (a child: role=load)
//! scenario `token`: a real control plane, the chart, its rights
//! all others: a stand-in for the API server (a child: role=stand-in), which can list 100,000 clients in seconds
//! ```
//!
//! TLS 1.3 on connections that stay, unless a scenario says otherwise. The bare signature is measured on the same core in
//! the same minute: rates differ between machines and hours, the ratio of the two does much less.
//!
//! Arguments: `only=token,algorithms,clients,documents,introspection,assertion,handshakes,overload,slow seconds=5
//! rounds=2 connections=64 binary=<another appreg>`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    reason = "a broken expectation ends the benchmark; it measures time, counts in floats and prints"
)]

#[path = "rig/connection.rs"]
mod connection;
#[path = "rig/generator.rs"]
mod generator;
#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "rig/requests.rs"]
mod requests;
mod rig;
#[path = "rig/roles.rs"]
mod roles;
#[path = "rig/slow.rs"]
mod slow;
#[path = "rig/stand_in.rs"]
mod stand_in;
#[path = "rig/target.rs"]
mod target;

use anyhow::{Result, bail, ensure};

use rig::{Arguments, Figures};
use target::{Measured, Setup, Target};

fn main() -> Result<()> {
    let Some(arguments) = Arguments::of_process()? else { return Ok(()) };
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    match arguments.role() {
        None => tokio::runtime::Runtime::new()?.block_on(measure(&arguments)),
        Some("load") => roles::load(&arguments),
        Some("sign" | "verify") => roles::bare(&arguments),
        Some("awake") => roles::stay_awake(),
        Some("stand-in") => tokio::runtime::Runtime::new()?.block_on(stand_in::serve(&arguments)),
        Some(role) => bail!("role={role} is none of this benchmark's"),
    }
}

/// What was said on the command line.
struct Options {
    seconds: f64,
    rounds: usize,
    connections: usize,
    clients: usize,
    setup: Setup,
}

const SCENARIOS: [&str; 9] =
    ["token", "algorithms", "clients", "documents", "introspection", "assertion", "handshakes", "overload", "slow"];

async fn measure(arguments: &Arguments) -> Result<()> {
    let only: String = arguments.or("only", SCENARIOS.join(","))?;
    let options = Options {
        seconds: arguments.or("seconds", 5.0)?,
        rounds: arguments.or("rounds", 2)?,
        connections: arguments.or("connections", 64)?,
        clients: arguments.or("clients", 1000)?,
        setup: Setup::new(arguments.or("binary", String::new())?),
    };
    let Options { seconds, rounds, connections, .. } = &options;
    let command =
        format!("make bench-token ARGS='only={only} seconds={seconds} rounds={rounds} connections={connections}'");
    rig::print_environment(&command, &target::surroundings()?)?;
    println!(
        "void: a generator that was busy above 0.8 while the server was not above 0.97; strangers above 0.2 cores"
    );
    for scenario in only.split(',') {
        match scenario {
            "token" => token(&options).await?,
            "algorithms" => algorithms(&options).await?,
            "clients" => clients(&options).await?,
            "documents" => documents(&options).await?,
            "introspection" => introspection(&options).await?,
            "assertion" => assertion(&options).await?,
            "handshakes" => handshakes(&options).await?,
            "overload" => overload(&options).await?,
            "slow" => slow_connections(&options).await?,
            other => bail!("only={other} is none of {}", SCENARIOS.join(", ")),
        }
    }
    Ok(())
}

const RATE: &str = "answers/s, closed loop";
const CPU: &str = "CPU per answer (user and system), µs";
const SIGN: &str = "bare signature, same minute and core, µs";
const VERIFY: &str = "bare verification, same minute and core, µs";
const RATIO: &str = "CPU per answer / bare signature";
const MEMORY: &str = "memory (VmRSS), MB";

/// Tokens as most clients get them, in front of a real control plane.
async fn token(options: &Options) -> Result<()> {
    let target = Target::on_control_plane(&options.setup, options.clients).await?;
    let figures = tokens(options, &target, "ES256", &[0.5, 0.7])?;
    figures.print(&format!("`token`: ES256, client_secret_basic, {} clients, a real control plane", options.clients));
    aim("≥ 30,000 tokens/s", figures.median(RATE));
    aim("CPU ≤ 2.2 × the bare signature", figures.median(RATIO));
    aim("p99 ≤ 1 ms at half load", figures.median(LATENCIES[0][2]));
    Ok(())
}

async fn algorithms(options: &Options) -> Result<()> {
    for alg in ["EdDSA", "RS256"] {
        let target = Target::on_stand_in(&options.setup, options.clients, alg, "clientSecret").await?;
        let figures = tokens(options, &target, alg, &[0.5, 0.7])?;
        figures.print(&format!("`algorithms`: {alg}, client_secret_basic, {} clients, stand-in", options.clients));
    }
    Ok(())
}

async fn clients(options: &Options) -> Result<()> {
    for clients in [1, 100_000] {
        let target = Target::on_stand_in(&options.setup, clients, "ES256", "clientSecret").await?;
        let options = Options { clients, setup: options.setup.clone(), ..*options };
        let figures = tokens(&options, &target, "ES256", &[0.5])?;
        figures.print(&format!("`clients`: ES256, client_secret_basic, {clients} clients, stand-in"));
        if clients > 1 {
            aim("≤ 60 MB with 100,000 clients", figures.median(MEMORY));
        }
    }
    Ok(())
}

/// Offered load as a share of saturation: the names of its figures.
const LATENCIES: [[&str; 5]; 2] = [
    [
        "half of that, open loop: answered/s",
        "half: p50, ms",
        "half: p99, ms",
        "half: p99.9, ms",
        "half: p99 of what no stall of the generator's core has touched, ms",
    ],
    [
        "70 % of that, open loop: answered/s",
        "70 %: p50, ms",
        "70 %: p99, ms",
        "70 %: p99.9, ms",
        "70 %: p99 of what no stall of the generator's core has touched, ms",
    ],
];
const HELD_UP: &str = "share of time in which the machine kept a mere loop from the server's core, same minute";
const GENERATOR_HELD_UP: &str = "the same of the generator's core, meanwhile";

/// Saturation, and latency at these shares of it.
fn tokens(options: &Options, target: &Target, alg: &str, shares: &[f64]) -> Result<Figures> {
    let mut figures = Figures::default();
    let what = ["what=token".to_owned(), format!("clients={}", options.clients)];
    for _ in 0..options.rounds {
        let sign = target.bare("sign", alg)?;
        let saturation = load(options, target, &what, 0.0)?;
        let rate = record(&saturation, &mut figures)?;
        let cpu = saturation.outcome.server_cpu * 1e6 / saturation.outcome.answers as f64;
        figures.add(SIGN, 1, sign.micros);
        figures.add(RATIO, 2, cpu / sign.micros);
        figures.add(HELD_UP, 4, sign.held_up);
        for (share, [answered, p50, p99, p999, undisturbed]) in shares.iter().zip(LATENCIES) {
            let open = load(options, target, &what, rate * share)?;
            ensure!(open.outcome.refused == 0, "{} answers were no tokens", open.outcome.refused);
            figures.add(answered, 0, open.outcome.answers as f64 / open.outcome.seconds);
            figures.add(p50, 3, open.outcome.p50);
            figures.add(p99, 2, open.outcome.p99);
            figures.add(p999, 2, open.outcome.p999);
            figures.add(undisturbed, 2, open.outcome.undisturbed_p99);
            figures.add(GENERATOR_HELD_UP, 4, open.outcome.held_up);
            figures.add("sent away at less than saturation", 0, open.outcome.sent_away as f64);
            figures.add(STRANGERS, 2, open.strangers);
        }
        figures.add(MEMORY, 1, target.service.usage()?.memory as f64 / 1e6);
    }
    Ok(figures)
}

async fn documents(options: &Options) -> Result<()> {
    for (what, title) in [("jwks", "GET /jwks, 200"), ("jwks-304", "GET /jwks, 304")] {
        let target = Target::on_stand_in(&options.setup, 1, "ES256", "clientSecret").await?;
        let figures = saturations(options, &target, &[format!("what={what}")])?;
        figures.print(&format!("`documents`: {title}"));
        aim("JWKS ≥ 150,000/s", figures.median(RATE));
    }
    Ok(())
}

async fn introspection(options: &Options) -> Result<()> {
    for (what, title, least) in [
        ("introspection", "every token for the first time: its signature is verified", "≥ 15,000/s verified"),
        ("introspection-again", "1,000 tokens again and again", "≥ 80,000/s from the cache"),
    ] {
        let target = Target::on_stand_in(&options.setup, options.clients, "ES256", "resourceServer").await?;
        let figures = saturations(options, &target, &[format!("what={what}"), format!("clients={}", options.clients)])?;
        figures.print(&format!("`introspection`: ES256, {title}"));
        aim(least, figures.median(RATE));
    }
    Ok(())
}

async fn assertion(options: &Options) -> Result<()> {
    let target = Target::on_stand_in(&options.setup, options.clients, "ES256", "publicKey").await?;
    let figures =
        saturations(options, &target, &["what=assertion".to_owned(), format!("clients={}", options.clients)])?;
    figures.print(&format!("`assertion`: private_key_jwt ES256, {} clients", options.clients));
    aim("private_key_jwt ≥ 12,000/s", figures.median(RATE));
    Ok(())
}

/// A new connection and a whole handshake for every request.
async fn handshakes(options: &Options) -> Result<()> {
    for (kind, what, title) in [
        ("clientSecret", "handshake", "TLS 1.3, client_secret_basic"),
        ("certificate", "mutual-handshake", "mutual TLS 1.3, tls_client_auth"),
    ] {
        let target = Target::on_stand_in(&options.setup, options.clients, "ES256", kind).await?;
        let figures = saturations(options, &target, &[format!("what={what}"), format!("clients={}", options.clients)])?;
        figures.print(&format!("`handshakes`: {title}, a new handshake for every token"));
    }
    Ok(())
}

/// Twice as much as can be answered.
async fn overload(options: &Options) -> Result<()> {
    let target = Target::on_stand_in(&options.setup, options.clients, "ES256", "clientSecret").await?;
    let mut figures = Figures::default();
    let what = ["what=token".to_owned(), format!("clients={}", options.clients)];
    // First: for some seconds after an overload a closed loop, which never pauses, is sent away itself.
    for _ in 0..options.rounds {
        record(&load(options, &target, &what, 0.0)?, &mut figures)?;
    }
    let rate = figures.median(RATE);
    for _ in 0..options.rounds {
        let crowd = Options { connections: 512, setup: options.setup.clone(), ..*options };
        let Measured { outcome, strangers } = load(&crowd, &target, &what, 2.0 * rate)?;
        ensure!(outcome.refused == 0, "{} answers were neither tokens nor 503", outcome.refused);
        figures.add("twice that on 512 connections: tokens/s", 0, outcome.answers as f64 / outcome.seconds);
        figures.add("tokens: p50, ms", 2, outcome.p50);
        figures.add("tokens: p99, ms", 2, outcome.p99);
        figures.add("tokens: p99 of what no stall of the generator's core has touched, ms", 2, outcome.undisturbed_p99);
        figures.add("503 with Retry-After, per second", 0, outcome.sent_away as f64 / outcome.seconds);
        figures.add("503: p99, ms", 2, outcome.sent_away_p99);
        figures.add(BUSY, 2, outcome.busy);
        figures.add(STRANGERS, 2, strangers);
    }
    figures.print("`overload`: ES256, client_secret_basic, an open loop at twice saturation");
    aim("p99 of the accepted ≤ 10 ms", figures.median("tokens: p99, ms"));
    Ok(())
}

/// 10,000 connections of another address that stop in the middle of the handshake.
async fn slow_connections(options: &Options) -> Result<()> {
    let target = Target::on_stand_in(&options.setup, options.clients, "ES256", "clientSecret").await?;
    let mut figures = Figures::default();
    let what = ["what=token".to_owned(), format!("clients={}", options.clients)];
    for _ in 0..options.rounds {
        let rate = record(&load(options, &target, &what, 0.0)?, &mut figures)? / 2.0;
        let peace = load(options, &target, &what, rate)?;
        let attacked = [&what[..], &["slow=10000".to_owned()]].concat();
        // Longer than the handshake's deadline, so that those which are held expire.
        let siege = Options { seconds: options.seconds.max(10.0), setup: options.setup.clone(), ..*options };
        let Measured { outcome, strangers } = load(&siege, &target, &attacked, rate)?;
        ensure!(outcome.refused == 0, "{} answers were no tokens", outcome.refused);
        figures.add("half of that, in peace: p99, ms", 2, peace.outcome.p99);
        figures.add("the same beside 10,000 slow connections: p50, ms", 3, outcome.p50);
        figures.add(SIEGE, 2, outcome.p99);
        figures.add("the same of what no stall of the generator's core has touched, ms", 2, outcome.undisturbed_p99);
        figures.add("the same: p99.9, ms", 2, outcome.p999);
        figures.add("slow connections that the generator sees open at the end", 0, outcome.slow_open as f64);
        figures.add(
            "slow connections closed by the server, per second",
            0,
            outcome.slow_closed as f64 / outcome.seconds,
        );
        figures.add(MEMORY, 1, target.service.usage()?.memory as f64 / 1e6);
        figures.add(BUSY, 2, outcome.busy);
        figures.add(STRANGERS, 2, strangers);
    }
    figures.print("`slow`: ES256, client_secret_basic, 64 honest connections");
    aim("honest p99 ≤ 3 ms", figures.median(SIEGE));
    Ok(())
}

const SIEGE: &str = "the same beside 10,000 slow connections: p99, ms";
const BUSY: &str = "share of its time that the generator was busy";
const STRANGERS: &str = "cores that others used meanwhile";

fn saturations(options: &Options, target: &Target, what: &[String]) -> Result<Figures> {
    let mut figures = Figures::default();
    for _ in 0..options.rounds {
        let [sign, verify] = [target.bare("sign", "ES256")?, target.bare("verify", "ES256")?];
        record(&load(options, target, what, 0.0)?, &mut figures)?;
        figures.add(SIGN, 1, sign.micros);
        figures.add(VERIFY, 1, verify.micros);
        figures.add(MEMORY, 1, target.service.usage()?.memory as f64 / 1e6);
    }
    Ok(figures)
}

/// `rate` 0 is a closed loop.
fn load(options: &Options, target: &Target, what: &[String], rate: f64) -> Result<Measured> {
    let Options { seconds, connections, .. } = options;
    let pace = [format!("connections={connections}"), format!("seconds={seconds}"), format!("rate={rate}")];
    target.load(&[what, &pace].concat())
}

/// A closed loop; returns the rate.
fn record(measured: &Measured, figures: &mut Figures) -> Result<f64> {
    let outcome = &measured.outcome;
    let (refused, sent_away) = (outcome.refused, outcome.sent_away);
    ensure!(refused + sent_away == 0, "{refused} answers were refusals, {sent_away} were 503");
    let (rate, used) = (outcome.answers as f64 / outcome.seconds, outcome.server_cpu / outcome.seconds);
    figures.add(RATE, 0, rate);
    figures.add(CPU, 1, outcome.server_cpu * 1e6 / outcome.answers as f64);
    figures.add("share of its core that the server used", 2, used);
    figures.add(BUSY, 2, outcome.busy);
    figures.add(STRANGERS, 2, measured.strangers);
    if (outcome.busy > 0.8 && used < 0.97) || measured.strangers > 0.2 {
        println!("void: generator busy {:.2}, server {used:.2}, strangers {:.2}", outcome.busy, measured.strangers);
    }
    Ok(rate)
}

fn aim(aim: &str, measured: f64) {
    println!("\naim: {aim}; measured (median): {measured:.2}");
}
