//! A temporary directory that goes even when we are killed.

use std::{
    io::Write as _,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A temporary directory that goes even when we are killed: a `sh` waits for our end and removes it.
pub(super) struct Directory {
    path: Option<tempfile::TempDir>,
    janitor: Child,
}

const JANITOR: &str = r#"
trap "" HUP INT TERM
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -e "$1" ] || exit 0
    rm -rf "$1" 2>/dev/null || sleep 0.1 # whoever writes there is being killed by its own watchdog
done
"#;

impl Directory {
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = tempfile::Builder::new().prefix("appreg-control-plane-").tempdir()?;
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(path.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { path: Some(path), janitor })
    }

    pub(super) fn path(&self) -> &Path {
        self.path.as_ref().expect("it is taken in drop alone").path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(self.path.take());
        if let Some(mut stdin) = self.janitor.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.janitor.wait();
    }
}
