//! What a registration would not get, item by item: for who asks before anything is made.

use jiff::Timestamp;

use crate::api::Message;
use crate::policy;
use crate::rotation;

use super::facts::Facts;
use super::ledger::{self, Blocked};
use super::{Draft, Problem};

/// What a plan would say in conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objections {
    /// Items that are not granted.
    pub denied: Vec<policy::Denied>,
    /// What else stands in the way.
    pub problems: Vec<Problem>,
    /// What was changed by a bound.
    pub notes: Vec<Message>,
}

/// What [`super::decide`] would object to. Where no client can come to be, that is all that is said.
#[must_use]
pub fn objections(facts: &Facts, now: Timestamp) -> Objections {
    let now = rotation::whole_seconds(now);
    let client = match ledger::client(facts, now) {
        Ok(client) => client,
        Err(Blocked::Problem(problem)) => return Objections { problems: vec![problem], ..Objections::default() },
        // Nothing is known yet that could be objected to.
        Err(Blocked::Confirm | Blocked::Read(_)) => return Objections::default(),
    };
    let Draft { decision, problems, resolved, .. } = Draft::of(facts, &client, now);
    Objections { denied: decision.denied, problems, notes: resolved.notes }
}
