//! Programs in other languages, each a process with a deadline. What they need they read in files that we alone can
//! read; arguments name directories and addresses.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::harness::process::{Process, Program};

/// The programs, in the repository.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");
/// Far above what one takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whose programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Curl,
    Python,
    Node,
    Go,
    Java,
}

/// What it takes to run them.
pub(crate) struct Foreign {
    /// What `tests/conformance/build` made.
    packages: PathBuf,
    /// Where logs are, and copies of Node's programs beside its packages.
    directory: PathBuf,
    /// The certificate authority of the API that the programs call, trusted as a system's would be.
    pub(crate) api_ca: PathBuf,
    started: usize,
}

/// How one ended.
pub(crate) struct Ended {
    pub(crate) has_succeeded: bool,
    pub(crate) output: String,
}

impl Language {
    /// Those with a program for each method. Java is apart: the start of a JVM takes longer than all the others' programs.
    pub(crate) const ALL: [Self; 4] = [Self::Curl, Self::Python, Self::Node, Self::Go];

    /// Its client, with the version that the lock file has.
    pub(crate) fn client(self) -> String {
        match self {
            Self::Curl => "curl".to_owned(),
            Self::Python => format!("Python authlib {}", locked(include_str!("python/requirements.in"), "authlib==")),
            Self::Node => {
                format!("Node openid-client {}", locked(include_str!("node/package.json"), "\"openid-client\": \""))
            }
            Self::Go => format!("Go x/oauth2 {}", locked(include_str!("go/go.mod"), "golang.org/x/oauth2 v")),
            Self::Java => "Java".to_owned(),
        }
    }
}

/// How often a program is run that is asked to come again, and how long after.
const MOST_TRIES: usize = 5;
const COME_AGAIN: Duration = Duration::from_secs(2);

/// The version that follows this in a lock file.
pub(crate) fn locked(text: &str, name: &str) -> String {
    let after = text.split_once(name).map_or("", |(_, after)| after);
    let version = after.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '\n');
    version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

impl Foreign {
    pub(crate) fn new(packages: &Path, directory: &Path, api_ca: &Path) -> Result<Self> {
        let node = directory.join("node");
        std::fs::create_dir_all(&node)?;
        // Node looks for packages beside the file that imports them, links resolved: it gets copies.
        for entry in std::fs::read_dir(Path::new(HERE).join("node"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "mjs") {
                std::fs::copy(&path, node.join(path.file_name().context("a name")?))?;
            }
        }
        std::os::unix::fs::symlink(packages.join("node/node_modules"), node.join("node_modules"))?;
        let (packages, directory) = (packages.to_owned(), directory.to_owned());
        Ok(Self { packages, directory, api_ca: api_ca.to_owned(), started: 0 })
    }

    /// Starts the program `name`.
    pub(crate) fn start(&mut self, language: Language, name: &str, args: &[OsString]) -> Result<Process> {
        self.started += 1;
        let here = Path::new(HERE);
        let script = |path: PathBuf| vec![path.into_os_string()];
        let (program, before) = match language {
            Language::Curl => ("/bin/sh".into(), script(here.join(format!("curl/{name}.sh")))),
            Language::Python => {
                // -B leaves nothing in the repository.
                let before = ["-B".into(), here.join(format!("python/{name}.py")).into()];
                (self.packages.join("python/bin/python"), before.into())
            }
            Language::Node => ("node".into(), script(self.directory.join(format!("node/{name}.mjs")))),
            Language::Go => (self.packages.join("go").join(name), Vec::new()),
            Language::Java => ("java".into(), self.jvm(name)),
        };
        let label = format!("{:03}-{language:?}-{name}", self.started);
        let mut started = Program::new(&label, program, &self.directory);
        for variable in ["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
            started = started.env(variable, self.api_ca.as_os_str());
        }
        started.args(before).args(args.iter().cloned()).start()
    }

    /// What a JVM is started with for the class `name` of a package: as little as it can do with, because it shares the
    /// machine and ends soon.
    fn jvm(&self, name: &str) -> Vec<OsString> {
        let java = self.packages.join("java");
        // Each directory has an application.yaml, so the package's own comes first.
        let (own, other) = if name.starts_with("orders.") { ("api", "client") } else { ("client", "api") };
        let class_path = [java.join(own), java.join(other), java.join("lib/*")].map(PathBuf::into_os_string);
        let mut args: Vec<OsString> = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xmx256m"]
            .into_iter()
            .chain(["-Dspring.main.banner-mode=off", "-Dlogging.level.root=ERROR"])
            // It would repeat every exception with its whole stack.
            .chain(["-Dlogging.level.org.springframework.boot.SpringApplication=OFF"])
            .map(Into::into)
            .collect();
        let mut temporary = OsString::from("-Djava.io.tmpdir=");
        temporary.push(&self.directory);
        args.extend([temporary, "-cp".into(), class_path.join(OsStr::new(":")), name.into()]);
        args
    }

    /// Runs the program `name` to its end; again, as long as the token service asks it to come again: all programs share
    /// one address, and an address has two lookups of clients a second.
    pub(crate) async fn run(&mut self, language: Language, name: &str, args: &[OsString]) -> Result<Ended> {
        let mut tries = 1;
        loop {
            let process = self.start(language, name, args)?;
            let status = process.wait(DEADLINE).await?;
            let ended = Ended { has_succeeded: status.success(), output: without_credentials(process.log())? };
            if tries == MOST_TRIES || !ended.is_asked_to_come_again() {
                return Ok(ended);
            }
            tries += 1;
            tokio::time::sleep(COME_AGAIN).await;
        }
    }

    /// Runs Java programs one after the other in one JVM, each the name of its class and its arguments; again, as long as
    /// the token service asks one of them to come again.
    pub(crate) async fn run_java(&mut self, steps: &[Vec<OsString>]) -> Result<Vec<Ended>> {
        let mut tries = 1;
        loop {
            let ended = self.run_java_once(steps).await?;
            if tries == MOST_TRIES || !ended.iter().any(Ended::is_asked_to_come_again) {
                return Ok(ended);
            }
            tries += 1;
            tokio::time::sleep(COME_AGAIN).await;
        }
    }

    async fn run_java_once(&mut self, steps: &[Vec<OsString>]) -> Result<Vec<Ended>> {
        let mut args = vec![self.api_ca.clone().into_os_string()];
        args.extend(steps.iter().flat_map(|step| std::iter::once("--".into()).chain(step.iter().cloned())));
        let process = self.start(Language::Java, "shop.Steps", &args)?;
        let status = process.wait(DEADLINE * 2).await?;
        let log = without_credentials(process.log())?;
        let mut ended = Vec::new();
        let mut output = String::new();
        for line in log.lines() {
            match line {
                "step ended" | "step failed" => {
                    let has_succeeded = line == "step ended";
                    ended.push(Ended { has_succeeded, output: std::mem::take(&mut output) });
                }
                _ => output.extend([line, "\n"]),
            }
        }
        ensure!(status.success() && ended.len() == steps.len(), "it ended in the middle:\n{log}");
        Ok(ended)
    }
}

/// The output, if it shows no credential. What was printed is not repeated in the message.
fn without_credentials(output: String) -> Result<String> {
    // Client secrets and tokens begin so.
    for beginning in ["apr_", "eyJ", "PRIVATE KEY"] {
        ensure!(!output.contains(beginning), "it has printed a credential ({beginning}…)");
    }
    Ok(output)
}

impl Ended {
    /// Whether it failed because the token service had no lookup left for its address, and said so with `Retry-After`.
    fn is_asked_to_come_again(&self) -> bool {
        !self.has_succeeded && ["503", "temporarily_unavailable"].iter().any(|word| self.output.contains(word))
    }

    /// The last JSON document that it printed; an error where it failed.
    pub(crate) fn document(&self) -> Result<Value> {
        ensure!(self.has_succeeded, "it failed:\n{}", self.output);
        let line = self.output.lines().rev().find(|line| line.starts_with('{'));
        Ok(serde_json::from_str(line.with_context(|| format!("it printed no document:\n{}", self.output))?)?)
    }

    /// An error unless it failed and said one of these.
    pub(crate) fn failed_with(&self, words: &[&str]) -> Result<()> {
        if self.has_succeeded {
            bail!("it succeeded:\n{}", self.output);
        }
        ensure!(words.iter().any(|word| self.output.contains(word)), "it failed otherwise:\n{}", self.output);
        Ok(())
    }
}
