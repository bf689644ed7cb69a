//! `docs/lint.md` shows files, and what is said of them: it is run as the page says.

use std::fs;
use std::path::{Path, PathBuf};

use appreg::cli::lint::{Options, Output, lint};
use appreg::config::Config;
use expect_test::expect_file;

use super::{file, options, written};

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lint.md")
}

/// The block that follows `<!-- name -->`, and where it stands.
fn block<'a>(page: &'a str, name: &str) -> &'a str {
    let after = page.split_once(&format!("<!-- {name} -->\n")).unwrap_or_else(|| panic!("the page has no {name}")).1;
    let (_, inside) = after.split_once('\n').unwrap();
    inside.split_once("```\n").unwrap().0
}

/// `UPDATE_EXPECT=1 cargo test --test it lint::page` writes the answer anew.
#[test]
fn the_page_shows_what_is_said_of_its_files() {
    let text = fs::read_to_string(page()).unwrap();
    let config = Some(Config::parse(block(&text, "operator.yaml")).unwrap());
    let files = ["app.yaml", "platform.yaml"].map(|name| file(name, block(&text, name)));
    let report = lint(&files, &Options { config, ..options() }).unwrap();
    let command = "appreg lint --config operator.yaml app.yaml platform.yaml";
    let answer = format!("$ {command}\n{}", written(&report, Output::Human));
    expect_file![page()].assert_eq(&text.replace(block(&text, command), &answer));
}

/// Every example with its policy, those for teams under no other policy than their own.
#[test]
fn nothing_is_found_in_the_examples() {
    let closed = "{authorizationServer: {issuer: https://login.example.com}, policy: {enabled: false}}";
    let with_policies = (&["examples", "examples/policies"][..], None);
    for (directories, config) in [with_policies, (&["examples/teams"][..], Some(Config::parse(closed).unwrap()))] {
        let all = directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap());
        let all = all.map(|file| file.unwrap().path());
        let texts = all.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        let files: Vec<_> =
            texts.map(|path| file(&path.display().to_string(), &fs::read_to_string(&path).unwrap())).collect();
        assert!(!files.is_empty());
        let report = lint(&files, &Options { config, ..options() }).unwrap();
        assert_eq!((report.findings, report.obstacles), (Vec::new(), Vec::new()), "{directories:?}");
    }
}
