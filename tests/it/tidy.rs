//! The repository is consistent with itself: who imports whom, what pure modules do without, how things are called, and
//! that ARCHITECTURE.md speaks of what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules without async, clock, client or randomness. `mint` is nearly one: it has the entropy.
const PURE: [&str; 11] = [
    "api",
    "config",
    "authority",
    "jws",
    "rotation",
    "ledger",
    "shared_lists",
    "signer",
    "credential",
    "policy",
    "plan",
];

/// The aim is 400; a file of more than this has two jobs for certain.
const MOST_LINES_BEFORE_TESTS: usize = 520;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Files below a directory, by their paths in the repository, in order.
fn files(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from(directory)];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => pending.push(path),
                kind if kind.is_file() => found.push(path.to_str().unwrap().to_owned()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

struct Source {
    path: String,
    /// The module of `src/lib.rs` that it belongs to.
    module: String,
    /// What stands before its tests, without comments.
    code: String,
    lines_before_tests: usize,
}

/// The program without its tests.
fn sources() -> Vec<Source> {
    let tests = ["plan/cases.rs", "plan/cases/", "plan/model.rs", "plan/properties.rs", "lint/properties.rs"];
    let is_test = |path: &str| tests.iter().any(|test| path.contains(test));
    files("src")
        .into_iter()
        .filter(|path| is_rust(path) && !is_test(path))
        .map(|path| {
            let text = read(&path);
            let at_tests =
                ["mod tests", "pub(crate) mod tests"].map(|start| text.find(&format!("#[cfg(test)]\n{start}")));
            let before_tests = at_tests.into_iter().flatten().min().map_or(text.as_str(), |at| &text[..at]);
            let code = before_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
            let module = path.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
            Source {
                module,
                code: code.flat_map(|line| [line, "\n"]).collect(),
                lines_before_tests: before_tests.lines().count(),
                path,
            }
        })
        .collect()
}

/// The words of a text that follow `prefix`; `prefix{a, b::c}` gives both.
fn named_after(prefix: &str, text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let head = |text: &str| text.trim().split(|c| !is_word(c)).next().unwrap_or_default().to_owned();
    let mut found = BTreeSet::new();
    for after in text.split(prefix).skip(1) {
        match after.strip_prefix('{') {
            Some(group) => found.extend(group.split('}').next().unwrap().split(',').map(head)),
            None => drop(found.insert(head(after))),
        }
    }
    found.remove("");
    found
}

/// ARCHITECTURE.md's table "Who may import whom".
fn import_table() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("ARCHITECTURE.md");
    let section = text.split("## Who may import whom").nth(1).unwrap().split("\n## ").next().unwrap();
    let names = |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let mut cells = row.split('|').skip(1);
        let (modules, uses) = (names(cells.next().unwrap()), names(cells.next().unwrap()));
        modules.into_iter().map(move |module| (module, uses.clone()))
    })
    .collect()
}

#[test]
fn modules_import_only_what_architecture_md_allows_them() {
    let table = import_table();
    let mut used: BTreeMap<String, BTreeSet<String>> = table.keys().map(|m| (m.clone(), BTreeSet::new())).collect();
    for source in sources() {
        if ["lib", "main", "args"].contains(&source.module.as_str()) {
            continue;
        }
        let allowed = table.get(&source.module).unwrap_or_else(|| panic!("{} has no row", source.module));
        let mut imports = named_after("crate::", &source.code);
        imports.remove(&source.module);
        for import in imports {
            assert!(allowed.contains(&import), "{} may not use `{import}`", source.path);
            used.get_mut(&source.module).unwrap().insert(import);
        }
    }
    assert_eq!(used, table, "the table allows what nothing uses, or a module that does not exist");
}

#[test]
fn pure_modules_have_no_async_no_clock_no_client_no_environment_and_no_randomness() {
    let impure =
        ["async ", ".await", "tokio", "::now()", "SystemTime", "std::env", "rand::", "kube::Client", "kube::Api"];
    for source in sources().into_iter().filter(|source| PURE.contains(&source.module.as_str())) {
        for word in impure {
            assert!(!source.code.contains(word), "{}: `{word}`", source.path);
        }
    }
}

#[test]
fn entropy_is_drawn_in_mint_alone() {
    for source in sources().into_iter().filter(|source| source.module != "mint") {
        for word in ["rand::fill", "SystemRandom", "KeyPair::generate", "getrandom"] {
            assert!(!source.code.contains(word), "{}: `{word}`", source.path);
        }
    }
}

#[test]
fn names_say_what_a_thing_is() {
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            let declares = ["fn ", "struct ", "enum ", "trait ", "mod ", "type "].iter().find_map(|word| {
                let after = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
                after.trim_start_matches("pub ").trim_start_matches("async ").strip_prefix(word)
            });
            let Some(name) = declares.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
            else {
                continue;
            };
            let banned = name.starts_with("get_")
                || ["Manager", "Handler", "Helper"].iter().any(|word| name.ends_with(word))
                || ["util", "utils", "helpers", "common", "misc"].contains(&name);
            assert!(!banned, "{}, about line {number}: {name}", source.path);
        }
    }
}

#[test]
fn a_file_has_one_job() {
    for source in sources() {
        let lines = source.lines_before_tests;
        assert!(lines <= MOST_LINES_BEFORE_TESTS, "{} has {lines} lines before its tests", source.path);
    }
}

#[test]
fn every_dependency_has_a_reason_and_is_used() {
    let manifest = read("Cargo.toml");
    let rust: String = sources().into_iter().map(|source| source.code).collect();
    let tests: String = files("tests").iter().chain(&files("src")).filter(|path| is_rust(path)).map(read).collect();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let code = match section {
            "[dependencies]" => &rust,
            "[dev-dependencies]" => &tests,
            _ => continue,
        };
        let Some((name, _)) = line.split_once(" = ").filter(|(name, _)| !name.starts_with('#')) else { continue };
        assert!(line.contains(" # "), "{name} has no reason beside it");
        let path = format!("{}::", name.replace('-', "_"));
        assert!(code.contains(&path), "{name} is not used");
    }
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let homes = ["/ho", "/Us", "/ro", "/tmp/"].map(|start| match start {
        "/ho" => start.to_owned() + "me/",
        "/Us" => start.to_owned() + "ers/",
        "/ro" => start.to_owned() + "ot/",
        _ => start.to_owned() + "wt",
    });
    let mut all = vec!["Cargo.toml".to_owned(), "Makefile".to_owned(), "clippy.toml".to_owned()];
    all.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned));
    for directory in ["src", "tests", "fuzz", "charts", "crds", "examples", ".ci"] {
        all.extend(files(directory));
    }
    for path in all {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_default();
        for home in &homes {
            assert!(!text.contains(home.as_str()), "{path} has {home}");
        }
    }
}

#[test]
fn every_path_and_every_test_that_the_documents_name_exists() {
    let code: String = files("tests").iter().chain(&files("src")).filter(|path| is_rust(path)).map(read).collect();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/keys.md"] {
        let text = read(document);
        let outside_blocks: String = text.split("```").step_by(2).collect();
        for name in outside_blocks.split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "fuzz/", "charts/", "crds/", "docs/", "examples/", "benches/", ".ci/"]
                .iter()
                .any(|d| name.starts_with(d));
            let is_pattern = name.contains(['*', '<', '…', '{', ' ']);
            if is_path && !is_pattern {
                assert!(root().join(name).exists(), "{document} names {name}");
            }
            let is_test = name.matches('_').count() >= 4 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let is_metric = name.starts_with("appreg_");
            if is_test && !is_metric {
                assert!(code.contains(&format!("fn {name}(")), "{document} names the test {name}");
            }
        }
    }
}
