//! Children that the tests start: what they log, how they end, what they leave behind.

use std::{fs, path::Path, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Process, Program, eventually, eventually::holds};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_process_is_watched_by_its_log_and_ends_on_sigterm() {
    let scratch = tempfile::tempdir().unwrap();
    let process = shell(
        "trap 'exit 7' TERM; echo \"hello $NAME, $(echo \"${KUBECONFIG-no kubeconfig}\")\"; while :; do sleep 0.05; done",
        scratch.path(),
    );

    let line = process.wait_for_line("hello", SOON).await.unwrap();
    assert_eq!(line, "hello test, no kubeconfig");
    assert!(process.is_running());
    assert_eq!(process.terminate(SOON).await.unwrap().code(), Some(7));
    process.terminate(SOON).await.expect_err("it has ended");
}

#[tokio::test]
async fn waiting_for_a_process_that_ended_says_what_it_logged() {
    let scratch = tempfile::tempdir().unwrap();
    let process = shell("echo no such flag >&2; exit 2", scratch.path());

    let error = process.wait_for_line("ready", SOON).await.unwrap_err().to_string();

    assert!(error.contains("ended before") && error.contains("no such flag"), "{error}");
    let error = process.wait_for_http("127.0.0.1:1", "/", SOON).await.unwrap_err().to_string();
    assert!(error.contains("ended before"), "{error}");
}

#[tokio::test]
async fn an_endpoint_is_waited_for() {
    let scratch = tempfile::tempdir().unwrap();
    let process = shell("sleep 60", scratch.path());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _request = connection.read(&mut [0; 256]).await.unwrap();
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });

    process.wait_for_http(&address, "/readyz", SOON).await.unwrap();
}

#[tokio::test]
async fn what_a_process_started_ends_with_it() {
    let scratch = tempfile::tempdir().unwrap();
    let process = shell("sleep 61 & echo \"child=$!\"; wait", scratch.path());
    let line = process.wait_for_line("child=", SOON).await.unwrap();
    let grandchild = line.split_once('=').unwrap().1.to_owned();
    eventually("the grandchild is what it is told to be", async || {
        let line = command_line(&grandchild);
        holds(line == "sleep 61", || line)
    })
    .await;

    drop(process);

    eventually("the grandchild is gone", async || {
        let line = command_line(&grandchild);
        holds(line.is_empty(), || line)
    })
    .await;
}

#[tokio::test]
async fn cpu_time_and_memory_are_counted() {
    let scratch = tempfile::tempdir().unwrap();
    let process = shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; sleep 60", scratch.path());
    process.wait_for_line("done", SOON).await.unwrap();

    let usage = process.usage().unwrap();

    assert!(usage.cpu >= Duration::from_millis(10) && usage.cpu < SOON, "{usage:?}");
    assert!(usage.memory > 0 && usage.peak_memory >= usage.memory, "{usage:?}");
}

fn shell(script: &str, scratch: &Path) -> Process {
    Program::new("shell", "/bin/sh", scratch).args(["-c", script]).env("NAME", "test").start().unwrap()
}

/// Empty for a process that has ended.
fn command_line(pid: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}
