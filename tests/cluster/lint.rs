//! The exit status of `appreg lint`, for what runs it in a pull request. It needs no control plane.

use std::io::Write as _;
use std::process::{Command, Stdio};

fn status_and_error(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut lint = Command::new(env!("CARGO_BIN_EXE_appreg"))
        .arg("lint")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input is done with it before we are.
    let _ = lint.stdin.take().unwrap().write_all(input.as_bytes());
    let output = lint.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_exit_status_says_whether_something_is_wrong_or_not_known() {
    let registration = |spec: &str| {
        format!("{{apiVersion: appreg.dev/v1alpha1, kind: AppRegistration, metadata: {{name: a}}, spec: {spec}}}")
    };
    let good = registration("{displayName: A}");
    for (arguments, input, status, said) in [
        (&["-"][..], good.as_str(), 0, ""),
        (&["-", "--output=sarif"], &good, 0, ""),
        (&["-"], &registration("{}"), 1, ""),
        (&["-"], "a: [", 2, ""),
        (&["no-such-file.yaml"], "", 2, ""),
        (&["-", "--config=no-such-file.yaml"], &good, 2, "Cannot read no-such-file.yaml"),
        (&[], "", 2, "<FILE>"),
    ] {
        let (code, error) = status_and_error(arguments, input);
        assert_eq!(code, Some(status), "{arguments:?}: {error}");
        assert!(error.contains(said) && (error.is_empty() || !said.is_empty()), "{arguments:?}: {error}");
    }
}
