//! The pages in `docs/` show programs and manifests that `make conformance` runs: each block is held against its file.
//!
//! A block belongs to the file that the comment above it names; after a colon stands the beginning of the line with
//! which an excerpt starts: it ends with the brace that closes what starts there. `UPDATE_EXPECT=1 cargo test --test it
//! docs` writes the blocks anew.

use std::fs;
use std::path::Path;

use expect_test::expect_file;

const PAGES: [&str; 2] = ["docs/applications.md", "docs/resource-servers.md"];
/// Where every program and manifest is shown on one of the pages.
const SHOWN: [&str; 6] = ["curl", "python", "node", "go", "java", "registrations"];
/// What is not for readers: how the programs are run, and what only the runner tries.
const NOT_SHOWN: [&str; 10] = [
    "python/resource_server.py",
    "python/metadata.py",
    "python/validate_authlib.py",
    "node/resource_server.mjs",
    "node/validate_bearer.mjs",
    "go/client_secret_detected/main.go",
    "java/api/NimbusApi.java",
    "java/api/SpringApi.java",
    "java/client/Discovery.java",
    "java/client/Steps.java",
];
const CONFORMANCE: &str = "tests/conformance";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `<!-- path -->` or `<!-- path: the beginning of a line -->`.
fn source(line: &str) -> Option<(&str, Option<&str>)> {
    let inside = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    let (path, start) = inside.split_once(": ").map_or((inside, None), |(path, start)| (path, Some(start)));
    path.starts_with(CONFORMANCE).then_some((path, start))
}

/// What the page shows of a file.
fn shown(path: &str, start: Option<&str>) -> String {
    let text = read(path);
    let Some(start) = start else { return text };
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with(start)).peekable();
    let first = *lines.peek().unwrap_or_else(|| panic!("{path} has no line that begins with {start:?}"));
    let margin = &first[..first.len() - first.trim_start().len()];
    let closing = format!("{margin}}}");
    let mut excerpt = String::new();
    for line in lines {
        excerpt.push_str(line.strip_prefix(margin).unwrap_or(line));
        excerpt.push('\n');
        if line.starts_with(&closing) {
            return excerpt;
        }
    }
    panic!("{path}: nothing closes what begins with {start:?}")
}

/// The page with every block as its file has it.
fn rendered(page: &str) -> String {
    let text = read(page);
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some((path, start)) = source(line) else { continue };
        let fence =
            lines.next().filter(|line| line.starts_with("```")).unwrap_or_else(|| panic!("{page}: {line}: no block"));
        for old in lines.by_ref() {
            if old == "```" {
                break;
            }
        }
        for part in [fence, "\n", &shown(path, start), "```\n"] {
            out.push_str(part);
        }
    }
    out
}

#[test]
fn the_pages_show_the_programs_that_conformance_runs() {
    for page in PAGES {
        expect_file![Path::new(env!("CARGO_MANIFEST_DIR")).join(page)].assert_eq(&rendered(page));
    }
}

#[test]
fn every_program_and_manifest_of_conformance_is_on_a_page() {
    let pages: String = PAGES.map(read).concat();
    let mut pending: Vec<String> = SHOWN.map(|directory| format!("{CONFORMANCE}/{directory}")).into();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
                continue;
            }
            let is_program = [".sh", ".py", ".mjs", ".go", ".java", ".yaml"].iter().any(|end| path.ends_with(end));
            let is_shown = pages.contains(&format!("<!-- {path} -->")) || pages.contains(&format!("<!-- {path}: "));
            let is_hidden = NOT_SHOWN.iter().any(|hidden| path.ends_with(hidden));
            assert!(!is_program || is_shown != is_hidden, "{path}");
        }
    }
}
