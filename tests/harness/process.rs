//! A child process that dies with us, however we die.
//!
//! A program is started by a `sh` that first leaves a watchdog behind and then becomes the program (`exec`), so the
//! program has the process id that we were given. The watchdog holds the reading end of a pipe whose only writing end
//! is ours: when we end, by whatever signal, it reads end of file and kills the whole process group. The group's
//! number cannot be taken by another process while the watchdog lives, so it never hits a stranger.
//!
//! `PR_SET_PDEATHSIG` would be shorter, but it fires when the *thread* ends that started the child, and libtest's
//! threads end with their tests.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Waits with this pause between two looks.
pub const POLL: Duration = Duration::from_millis(10);

/// The watchdog ignores what a terminal sends to everybody, lets go of the log, and waits for our end.
const WATCHDOG: &str = r#"
exec 3<&0 </dev/null
( trap "" HUP INT TERM; read -r _ <&3; kill -9 "-$$" ) <&3 >/dev/null 2>&1 &
exec "$@" 3<&-
"#;

/// Variables of our own environment that a program gets; everything else it gets by [`Program::env`] alone, so that
/// nobody's `KUBECONFIG` takes part in a test.
const INHERITED: [&str; 8] = ["PATH", "HOME", "TMPDIR", "USER", "LANG", "RUST_BACKTRACE", "LLVM_PROFILE_FILE", "GOGC"];

/// `program` as a command that dies with us: hold the child's standard input open as long as it may live.
pub fn supervised(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(WATCHDOG).arg("watchdog").arg(program).stdin(Stdio::piped()).process_group(0).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// What to run, and where its output goes.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
}

impl Program {
    /// The program at `path`, logging both its outputs to `<log_directory>/<name>.log` (appended).
    pub fn new(name: &str, path: impl Into<PathBuf>, log_directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: log_directory.join(format!("{name}.log")),
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it. It may be started again after it has ended, with the same log.
    pub fn start(&self) -> anyhow::Result<Process> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("opening {}", self.log.display()))?;
        let begins_at = log.metadata()?.len();
        let mut command = supervised(&self.path);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", self.path.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child without a process id")?;
        Ok(Process { name: self.name.clone(), pid, log: self.log.clone(), begins_at, child: Mutex::new(child) })
    }
}

/// A running program. Dropping it kills it and whatever it started.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    begins_at: u64,
    child: Mutex<Child>,
}

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads, to 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub memory: u64,
    /// The highest resident memory so far (`VmHWM`), in bytes.
    pub peak_memory: u64,
}

impl Process {
    /// The program's own process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What this run has logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let begin = usize::try_from(self.begins_at).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[begin..]).into_owned()
    }

    /// The last `lines` lines that this run has logged.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// How it ended, or `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().expect("no panic while held").try_wait().ok().flatten()
    }

    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.child.lock().expect("no panic while held").wait();
    }

    /// SIGTERM, and waits for its end; an error where it has not ended in time.
    pub async fn terminate(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(within).await
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {within:?}; its log ends\n{}", self.name, self.log_tail(20));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGSTOP: it keeps its connections and answers nothing. The signal alone returns before the last thread has
    /// stopped, which might still answer: this waits for that.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.is_frozen()? {
            if Instant::now() > deadline {
                bail!("{} does not stop", self.name);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn is_frozen(&self) -> anyhow::Result<bool> {
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // A thread may end meanwhile: that one does not answer either.
            let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
            if stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" T")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends `signal` to the program, not to what it started.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if let Some(status) = self.exit_status() {
            bail!("{} has ended ({status}); its log ends\n{}", self.name, self.log_tail(20));
        }
        kill_process(self.pid, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// Waits for a line of this run's log that contains `text`, and returns it.
    pub async fn wait_for_line(&self, text: &str, within: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + within;
        loop {
            let running = self.is_running(); // looked at before the log, so that a last line is not missed
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            self.check_waiting(running, deadline, &format!("logged {text:?}"))?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until `GET http://<address><path>` is answered with 200.
    pub async fn wait_for_http(&self, address: &str, path: &str, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let running = self.is_running();
            if matches!(http_status(address, path).await, Ok(200)) {
                return Ok(());
            }
            self.check_waiting(running, deadline, &format!("answered 200 at http://{address}{path}"))?;
            tokio::time::sleep(POLL).await;
        }
    }

    fn check_waiting(&self, running: bool, deadline: Instant, wanted: &str) -> anyhow::Result<()> {
        if !running {
            bail!("{} ended before it {wanted}; its log ends\n{}", self.name, self.log_tail(20));
        }
        if Instant::now() > deadline {
            bail!("{} has not {wanted} in time; its log ends\n{}", self.name, self.log_tail(20));
        }
        Ok(())
    }

    /// CPU time and memory, from /proc (Linux only).
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in parentheses may hold anything; the fields after it are numbers: state is the first of them.
        let (_, rest) = stat.rsplit_once(')').context("/proc/<pid>/stat without a name")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let bytes = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find(|line| line.starts_with(name)).with_context(|| name.to_owned())?;
            Ok(line.split_whitespace().nth(1).context("a number of kB")?.parse::<u64>()? * 1024)
        };
        Ok(Usage {
            cpu: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
            memory: bytes("VmRSS:")?,
            peak_memory: bytes("VmHWM:")?,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group, with the watchdog and whatever the program started; then the zombie.
        let _ = kill_process_group(self.pid, Signal::KILL);
        if let Ok(child) = self.child.get_mut() {
            let _ = child.wait();
        }
    }
}

/// The status of a plain-HTTP GET, by hand: a client with TLS would be a lot for a health check.
pub async fn http_status(address: &str, path: &str) -> anyhow::Result<u16> {
    let exchange = async {
        let mut connection = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut head = [0; 12]; // "HTTP/1.1 200"
        connection.read_exact(&mut head).await?;
        anyhow::Ok(std::str::from_utf8(&head[9..])?.parse()?)
    };
    tokio::time::timeout(Duration::from_secs(2), exchange).await?
}

/// A TCP port of 127.0.0.1 that is free now.
///
/// Below the range from which the kernel takes the local ports of outgoing connections, where there is room: a port
/// that is given back and taken again later (an API server restarted) is then not lost to a passing client.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let ephemeral = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u16>().ok())
        .unwrap_or(32768);
    let mut held = Vec::with_capacity(count); // all at once, so that they differ
    for attempt in 0..1000 {
        if held.len() == count {
            break;
        }
        let random = RandomState::new().build_hasher().finish();
        let port = match ephemeral.checked_sub(10_000) {
            Some(room) if room > 1000 && attempt < 900 => 10_000 + u16::try_from(random % u64::from(room))?,
            _ => 0, // whatever the kernel gives
        };
        held.extend(std::net::TcpListener::bind(("127.0.0.1", port)));
    }
    if held.len() < count {
        bail!("no {count} free ports on 127.0.0.1");
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// One such port.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(free_ports(1)?[0])
}
