//! Programs in other languages, each a process with a deadline. What they need they read in files that we alone can
//! read; arguments name directories and addresses.

use std::ffi::OsString;
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
    pub(crate) const ALL: [Self; 4] = [Self::Curl, Self::Python, Self::Node, Self::Go];

    /// Its client, with the version that the lock file has.
    pub(crate) fn client(self) -> String {
        let locked = |text: &str, name: &str| {
            let after = text.split_once(name).map_or("", |(_, after)| after);
            let version = after.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '\n');
            version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>()
        };
        match self {
            Self::Curl => "curl".to_owned(),
            Self::Python => format!("Python authlib {}", locked(include_str!("python/requirements.in"), "authlib==")),
            Self::Node => {
                format!("Node openid-client {}", locked(include_str!("node/package.json"), "\"openid-client\": \""))
            }
            Self::Go => format!("Go x/oauth2 {}", locked(include_str!("go/go.mod"), "golang.org/x/oauth2 v")),
        }
    }
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
        let (program, script) = match language {
            Language::Curl => ("/bin/sh".into(), Some(here.join(format!("curl/{name}.sh")))),
            Language::Python => (self.packages.join("python/bin/python"), Some(here.join(format!("python/{name}.py")))),
            Language::Node => ("node".into(), Some(self.directory.join(format!("node/{name}.mjs")))),
            Language::Go => (self.packages.join("go").join(name), None),
        };
        let label = format!("{:03}-{language:?}-{name}", self.started);
        let mut started = Program::new(&label, program, &self.directory);
        if language == Language::Python {
            started = started.arg("-B"); // leaves nothing in the repository
        }
        for variable in ["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
            started = started.env(variable, self.api_ca.as_os_str());
        }
        started.args(script).args(args.iter().cloned()).start()
    }

    /// Runs the program `name` to its end.
    pub(crate) async fn run(&mut self, language: Language, name: &str, args: &[OsString]) -> Result<Ended> {
        let process = self.start(language, name, args)?;
        let status = process.wait(DEADLINE).await?;
        let output = process.log();
        // Client secrets and tokens begin so. What they have printed is not repeated in the message.
        for beginning in ["apr_", "eyJ", "PRIVATE KEY"] {
            ensure!(!output.contains(beginning), "it has printed a credential ({beginning}…)");
        }
        Ok(Ended { has_succeeded: status.success(), output })
    }
}

impl Ended {
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
