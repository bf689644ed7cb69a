//! The corpus of the fuzz targets, replayed: what was found once is not found again.

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use targets::TARGETS;

/// The largest input that is kept: a corpus is read by people too.
const LARGEST_INPUT_BYTES: usize = 16 * 1024;
/// The most inputs of a target: `fuzz/run` keeps what it finds elsewhere, and what is here is chosen.
const MOST_INPUTS: usize = 64;

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

#[test]
fn every_input_of_the_corpus_holds_what_its_target_says() {
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for input in fs::read_dir(corpus().join(name)).unwrap() {
            let bytes = fs::read(input.unwrap().path()).unwrap();
            assert!(bytes.len() <= LARGEST_INPUT_BYTES, "{name}: {} bytes", bytes.len());
            target(&bytes);
            inputs += 1;
        }
        assert!((4..=MOST_INPUTS).contains(&inputs), "{name}: {inputs} inputs");
        target(b"");
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let directories = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = TARGETS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(directories.collect::<BTreeSet<_>>(), names.collect());
}
