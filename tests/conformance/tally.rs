//! What was tried, line by line, and how it ended.

use std::io::Write as _;

use anyhow::Result;

/// Counts and prints.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// A heading.
    #[expect(clippy::unused_self, reason = "it prints where the lines are printed")]
    pub(crate) fn section(&self, title: &str) {
        line(&format!("\n{title}"));
    }

    /// One line: who tried what, and how it ended.
    pub(crate) fn record(&mut self, who: &str, what: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                line(&format!("  ok    {who:<36} {what}"));
            }
            Err(error) => {
                self.failed += 1;
                line(&format!("  FAIL  {who:<36} {what}"));
                format!("{error:#}").lines().for_each(|said| line(&format!("          {said}")));
            }
        }
    }

    /// The last line, and whether all went well.
    pub(crate) fn close(self) -> bool {
        line(&format!("\n{} passed, {} failed", self.passed, self.failed));
        self.failed == 0
    }
}

fn line(text: &str) {
    // Nobody is left to be told if standard output is gone.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
