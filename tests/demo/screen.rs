//! What a person sees: short headed sections, commands as they could be typed, times, marks; colours on a terminal
//! only.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The screen.
pub(crate) struct Screen {
    has_colours: bool,
    started: Instant,
}

impl Screen {
    /// The terminal, or whatever standard output is.
    pub(crate) fn new() -> Self {
        Self { has_colours: stdout().is_terminal(), started: Instant::now() }
    }

    /// A new section.
    pub(crate) fn section(&self, title: &str) {
        self.line(&format!("\n{}", self.painted("1;36", title)));
    }

    /// A sentence.
    pub(crate) fn say(&self, text: &str) {
        self.line(&format!("  {text}"));
    }

    /// What is being waited for.
    pub(crate) fn progress(&self, text: &str) {
        let text = format!("… {text}");
        self.line(&format!("  {}", self.painted("2", &text)));
    }

    /// A command, as it could be typed.
    pub(crate) fn command(&self, text: &str) {
        let text = format!("$ {text}");
        self.line(&format!("  {}", self.painted("33", &text)));
    }

    /// What a program printed.
    pub(crate) fn output(&self, text: &str) {
        text.lines().for_each(|line| self.line(&format!("    {line}")));
    }

    /// Something that happened, with its time.
    pub(crate) fn event(&self, text: &str) {
        let time = clock(now());
        self.line(&format!("  {}  {text}", self.painted("2", &time)));
    }

    /// Something that was expected, and happened.
    pub(crate) fn holds(&self, text: &str) {
        self.line(&format!("  {} {text}", self.good("✓")));
    }

    /// Something that was expected, and did not happen.
    pub(crate) fn fails(&self, text: &str) {
        self.line(&format!("  {} {text}", self.bad("✗")));
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.painted("32", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.painted("31", text)
    }

    /// How long it has been there.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.has_colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A reader that went away is no reason to leave anything behind: what it no longer sees is not printed.
    #[expect(clippy::unused_self, reason = "printing is the screen's")]
    fn line(&self, text: &str) {
        let _ = writeln!(stdout(), "{text}");
    }
}

/// The time now.
#[expect(clippy::disallowed_methods, reason = "a demonstration shows real time")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Hours, minutes and seconds, UTC.
pub(crate) fn clock(time: Timestamp) -> String {
    time.strftime("%H:%M:%SZ").to_string()
}
