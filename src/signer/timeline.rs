//! A resource server's view of rotation, in tests: whatever it cached, and whenever, it verifies every fresh token.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{Algorithm, Change, Index, KEY_LIFE, KeyRecord, PUBLISH_BEFORE};
use crate::rotation::{self, LONGEST_TOKEN_LIFETIME};

/// `max-age` of the JWKS.
const MAX_AGE: SignedDuration = SignedDuration::from_secs(300);

/// The most by which the two clocks of a replica and of the controller differ here, and the longest that a written index
/// takes to reach a replica: together with [`MAX_AGE`] within `PUBLISHED_WITHIN`.
const CLOCKS_DIFFER: i64 = 120;
const LONGEST_DELAY: i64 = 150;

/// The seconds before and after a transition at which everything is looked at.
const AROUND: [i64; 9] = [-301, -120, -1, 0, 1, 60, 120, 150, 300];
const LOOKED_AFTER: SignedDuration = SignedDuration::from_secs(301);

/// The controller: it decides when it wakes, by its own clock.
struct Controller {
    index: Index,
    algorithm: Algorithm,
    made: u32,
}

impl Controller {
    fn upkeep(&mut self, now: Timestamp) {
        while let Some(change) = self.index.due(now, self.algorithm, None) {
            let index = std::mem::take(&mut self.index);
            self.index = match change {
                Change::Revoke { kids } | Change::Remove { kids } => index.without(&kids),
                Change::Add { sign_from } => {
                    self.made += 1;
                    let kid = format!("{}-{}", self.algorithm, self.made);
                    let (alg, created_at, publish_until) = (self.algorithm, now, None);
                    index.with(KeyRecord { kid, alg, created_at, sign_from, publish_until })
                }
            };
        }
    }
}

/// A replica of the token service: its clock, and how long it takes to hear of what was written.
struct Replica {
    clock: SignedDuration,
    delay: SignedDuration,
}

impl Replica {
    fn now(&self, now: Timestamp) -> Timestamp {
        rotation::add(now, self.clock)
    }

    fn index<'a>(&self, written: &'a [(Timestamp, Index)], now: Timestamp) -> &'a Index {
        let heard = written.iter().rev().find(|(at, _)| rotation::add(*at, self.delay) <= now);
        &heard.unwrap_or(&written[0]).1
    }

    fn jwks(&self, written: &[(Timestamp, Index)], now: Timestamp) -> BTreeSet<String> {
        self.index(written, now).published(self.now(now)).map(|key| key.kid.clone()).collect()
    }

    fn kid(&self, written: &[(Timestamp, Index)], now: Timestamp) -> String {
        self.index(written, now).signing(self.now(now)).expect("a key signs at every moment").kid.clone()
    }
}

/// A resource server: what it has of the JWKS, how old that may grow before it asks again, and how stale the answer of a
/// shared cache between it and the token service may be.
struct ResourceServer {
    keeps: SignedDuration,
    stale: SignedDuration,
    cached: (Timestamp, BTreeSet<String>),
}

/// What one history does.
#[derive(Clone, Debug)]
struct History {
    /// Seconds between moments that are looked at.
    steps: Vec<i64>,
    /// At which step which algorithm is configured.
    switches: Vec<(prop::sample::Index, usize)>,
    clocks: [i64; 2],
    delays: [i64; 2],
    /// How long each resource server keeps its copy, in seconds.
    keeps: Vec<i64>,
}

fn history() -> impl Strategy<Value = History> {
    let step = prop_oneof![1 => 1_i64..600, 2 => 600_i64..20_000, 2 => 20_000_i64..86_400];
    let keeps = prop_oneof![Just(MAX_AGE.as_secs()), 1..PUBLISH_BEFORE.as_secs(), Just(PUBLISH_BEFORE.as_secs())];
    let clocks = -CLOCKS_DIFFER..=CLOCKS_DIFFER;
    let delays = 0..=LONGEST_DELAY;
    (
        prop::collection::vec(step, 600..1200),
        prop::collection::vec((any::<prop::sample::Index>(), 0_usize..3), 0..12),
        [clocks.clone(), clocks],
        [delays.clone(), delays],
        prop::collection::vec(keeps, 6),
    )
        .prop_map(|(steps, switches, clocks, delays, keeps)| History { steps, switches, clocks, delays, keeps })
}

/// Everyone who takes part in a history.
struct World {
    controller: Controller,
    replicas: [Replica; 2],
    servers: Vec<ResourceServer>,
    /// Tokens that live: their key and their end.
    tokens: Vec<(String, Timestamp)>,
    /// What the controller wrote, and when.
    written: Vec<(Timestamp, Index)>,
    signed: BTreeSet<String>,
}

impl World {
    fn new(history: &History, now: Timestamp) -> Self {
        let mut controller = Controller { index: Index::default(), algorithm: Algorithm::ES256, made: 0 };
        controller.upkeep(now);
        let secs = SignedDuration::from_secs;
        let replicas = [0, 1].map(|n| Replica { clock: secs(history.clocks[n]), delay: secs(history.delays[n]) });
        let written = vec![(now, controller.index.clone())];
        let jwks = replicas[0].jwks(&written, now);
        let server = |(n, keeps): (usize, &i64)| ResourceServer {
            keeps: secs(*keeps),
            stale: if n % 2 == 0 { SignedDuration::ZERO } else { MAX_AGE },
            cached: (now, jwks.clone()),
        };
        let servers = history.keeps.iter().enumerate().map(server).collect();
        Self { controller, replicas, servers, tokens: Vec::new(), written, signed: BTreeSet::new() }
    }

    /// One moment: the controller decides, resource servers whose copy is as old as it may be ask again, every replica
    /// signs a token, and every resource server verifies what is fresh and what still lives.
    fn moment(&mut self, now: Timestamp, asked: usize) -> Result<(), TestCaseError> {
        self.controller.upkeep(now);
        if self.written.last().is_none_or(|(_, index)| *index != self.controller.index) {
            self.written.push((now, self.controller.index.clone()));
        }
        for (n, server) in self.servers.iter_mut().enumerate() {
            if now.duration_since(server.cached.0) >= server.keeps {
                let answered = rotation::add(now, -server.stale);
                server.cached = (now, self.replicas[(n + asked) % 2].jwks(&self.written, answered));
            }
        }
        for replica in &self.replicas {
            let kid = replica.kid(&self.written, now);
            self.signed.insert(kid.clone());
            self.tokens.push((kid, rotation::add(replica.now(now), LONGEST_TOKEN_LIFETIME)));
        }
        self.tokens.retain(|(_, end)| now < *end);
        self.tokens.sort_unstable_by(|a, b| b.cmp(a));
        // Of one key's tokens the one that lives longest says it for all.
        self.tokens.dedup_by(|a, b| a.0 == b.0);
        for (kid, end) in &self.tokens {
            for replica in &self.replicas {
                let is_published = replica.jwks(&self.written, now).contains(kid);
                prop_assert!(is_published, "{kid} lives until {end} and is not published at {now}");
            }
            for ResourceServer { cached: (since, keys), .. } in &self.servers {
                prop_assert!(keys.contains(kid), "a copy of {since} does not verify a token of {kid} at {now}");
            }
        }
        prop_assert!(self.controller.index.keys().len() <= 5, "{:?}", self.controller.index);
        Ok(())
    }
}

fn run(history: &History) -> Result<(BTreeSet<String>, Timestamp), TestCaseError> {
    let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut world = World::new(history, now);
    let switches: Vec<_> = history.switches.iter().map(|(at, n)| (at.index(history.steps.len()), *n)).collect();
    for (number, step) in history.steps.iter().enumerate() {
        if let Some((_, n)) = switches.iter().find(|(at, _)| *at == number) {
            world.controller.algorithm = Algorithm::ALL[*n];
        }
        let target = rotation::add(now, SignedDuration::from_secs(*step));
        // The controller wakes by itself at whatever its index announces, and everyone looks around that moment.
        while now < target {
            let next = world.controller.index.next_transition(now, None).filter(|at| *at < target);
            let last = next.map_or(target, |at| rotation::add(at, LOOKED_AFTER));
            let around =
                next.into_iter().flat_map(|at| AROUND.map(|by| rotation::add(at, SignedDuration::from_secs(by))));
            let moments: BTreeSet<_> = around.chain([last]).filter(|at| now < *at).collect();
            for at in moments {
                now = at;
                world.moment(now, number)?;
            }
        }
    }
    Ok((world.signed, now))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_cached_jwks_ever_fails_to_verify_a_token_through_rotations_and_changes_of_the_algorithm(history in history()) {
        let (signed, end) = run(&history)?;
        let rotations = end.duration_since("2026-01-01T00:00:00Z".parse().unwrap()).as_secs() / KEY_LIFE.as_secs();
        prop_assert!(i64::try_from(signed.len()).unwrap() > rotations, "{signed:?} until {end}");
    }
}
