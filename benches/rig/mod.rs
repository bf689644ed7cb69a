//! What the benchmarks share: arguments, the machine they ran on, spreads, tables.
//!
//! A figure is never printed alone: beside it stand the smallest and the largest of all rounds, and what strangers took
//! of the machine meanwhile.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    reason = "each benchmark uses its own part; printing is what they are for"
)]

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// `key=value` arguments. `cargo bench` adds `--bench`; without it the target was started by `cargo test`.
pub struct Arguments(BTreeMap<String, String>);

impl Arguments {
    /// Those of this process; `None` where `cargo test` runs it, which measures nothing.
    pub fn of_process() -> Result<Option<Self>> {
        let (mut known, mut is_bench) = (BTreeMap::new(), false);
        for argument in std::env::args().skip(1) {
            match argument.split_once('=') {
                _ if argument == "--bench" => is_bench = true,
                Some((key, value)) => drop(known.insert(key.to_owned(), value.to_owned())),
                None => bail!("{argument}: arguments are key=value"),
            }
        }
        Ok((is_bench || known.contains_key("role")).then_some(Self(known)))
    }

    /// The value of `key`, or what it is when nothing is said.
    pub fn or<T: FromStr<Err: Display>>(&self, key: &str, default: T) -> Result<T> {
        let Some(text) = self.0.get(key) else { return Ok(default) };
        text.parse().map_err(|error| anyhow::anyhow!("{key}={text}: {error}"))
    }

    /// The value of `key`.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.0.get(key).map(String::as_str).with_context(|| format!("{key}= is missing"))
    }

    /// Which part of the benchmark this process is; `None` for the one that was started by hand.
    pub fn role(&self) -> Option<&str> {
        self.0.get("role").map(String::as_str)
    }
}

/// One figure over all rounds.
#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }

    /// `median (min-max)`.
    pub fn show(&self, decimals: usize) -> String {
        let min = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let max = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{:.decimals$} ({min:.decimals$}-{max:.decimals$})", self.median())
    }
}

/// Figures by name, in the order in which they first came.
#[derive(Default)]
pub struct Figures(Vec<(&'static str, usize, Spread)>);

impl Figures {
    /// Adds one round's value.
    pub fn add(&mut self, name: &'static str, decimals: usize, value: f64) {
        if let Some((_, _, spread)) = self.0.iter_mut().find(|(known, _, _)| *known == name) {
            return spread.add(value);
        }
        let mut spread = Spread::default();
        spread.add(value);
        self.0.push((name, decimals, spread));
    }

    pub fn median(&self, name: &str) -> f64 {
        self.0.iter().find(|(known, _, _)| *known == name).map_or(f64::NAN, |(_, _, spread)| spread.median())
    }

    /// A Markdown table.
    pub fn print(&self, title: &str) {
        println!("\n| {title} | median (min-max) |\n|---|---|");
        for (name, decimals, spread) in &self.0 {
            println!("| {name} | {} |", spread.show(*decimals));
        }
    }
}

/// What everything on this machine has computed so far, ours and strangers'.
#[derive(Clone, Copy)]
pub struct Machine {
    at: Instant,
    busy: Duration,
}

impl Machine {
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
        // user nice system idle iowait irq softirq steal
        let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index)).sum();
        Ok(Self { at: Instant::now(), busy: seconds_of_ticks(busy) })
    }

    /// Cores that others than we, who used `ours`, kept busy since then.
    pub fn strangers_since(&self, ours: Duration) -> Result<f64> {
        let now = Self::now()?;
        let busy = now.busy.saturating_sub(self.busy).saturating_sub(ours);
        Ok(busy.as_secs_f64() / (now.at - self.at).as_secs_f64())
    }
}

/// User and system time of a process so far, its ended children's not.
pub fn cpu_of(pid: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("/proc/<pid>/stat without a name")?;
    let ticks = |index: usize| -> Result<u64> {
        Ok(rest.split_whitespace().nth(index).context("too few fields")?.parse::<u64>()?)
    };
    Ok(seconds_of_ticks(ticks(11)? + ticks(12)?))
}

fn seconds_of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Prints what one must know to compare: cores, kernel, toolchain, and how busy the machine is already.
pub fn print_environment(command: &str, versions: &[String]) -> Result<()> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |pair| pair.1);
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let toolchain = include_str!("../../rust-toolchain.toml").lines().find(|line| line.starts_with("channel"));
    println!("`{command}`");
    println!("{cores} cores, {model}, Linux {}, Rust {}", kernel.trim(), toolchain.unwrap_or_default());
    for version in versions {
        println!("{version}");
    }
    println!("load before: {}", fs::read_to_string("/proc/loadavg")?.trim());
    Ok(())
}

/// The first line that `program <argument>` prints.
pub fn version_of(program: &std::path::Path, argument: &str) -> String {
    let output = std::process::Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
