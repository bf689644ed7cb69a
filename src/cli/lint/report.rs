//! What came of it: findings in files, what could not be evaluated, and what was not meant to be.

use std::collections::BTreeMap;

use super::finding::{Level, Place, Violation};

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, by file and place.
    pub findings: Vec<Finding>,
    /// What could not be evaluated: the answer is not known then.
    pub obstacles: Vec<Obstacle>,
    /// What a reader must know to trust the answer, in sentences.
    pub notes: Vec<String>,
    /// How many objects were looked at, by kind.
    pub checked: BTreeMap<String, usize>,
    /// How many objects of other kinds were not.
    pub skipped: usize,
}

/// A violation in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, as it was named.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// The object.
    pub object: ObjectName,
    /// What is wrong.
    pub violation: Violation,
}

/// Something that could not be read or evaluated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Obstacle {
    /// The file, as it was named.
    pub file: String,
    /// Where in it, if it is known.
    pub place: Option<Place>,
    /// Why, and what to do.
    pub message: String,
}

/// An object by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its kind.
    pub kind: String,
    /// Its namespace; none of a kind that is in none.
    pub namespace: Option<String>,
    /// Its name; empty where it has none.
    pub name: String,
}

/// The answer in a word: the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is wrong.
    Clean = 0,
    /// Something is.
    Findings = 1,
    /// It is not known, because something could not be read or evaluated.
    Unknown = 2,
}

impl Report {
    /// The answer.
    #[must_use]
    pub fn status(&self) -> Status {
        match (self.obstacles.is_empty(), self.findings.is_empty()) {
            (false, _) => Status::Unknown,
            (true, false) => Status::Findings,
            (true, true) => Status::Clean,
        }
    }

    /// How many findings have this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.violation.level == level).count()
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name.is_empty() { "(without a name)" } else { &self.name };
        match &self.namespace {
            Some(namespace) => write!(out, "{} {namespace}/{name}", self.kind),
            None => write!(out, "{} {name}", self.kind),
        }
    }
}
