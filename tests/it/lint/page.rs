//! `docs/lint.md` and `docs/teams.md` show files, and what is said of them: it is run as the pages say.

use std::fs;
use std::path::{Path, PathBuf};

use appreg::cli::lint::{Options, Output, lint};
use appreg::config::Config;
use expect_test::expect_file;

use super::{file, options, written};

/// The pages, each with the command that it shows.
const PAGES: [(&str, &str); 2] = [
    ("docs/lint.md", "appreg lint --config operator.yaml app.yaml platform.yaml"),
    (
        "docs/teams.md",
        "appreg lint --config operator.yaml namespace.yaml baseline.yaml shop.yaml storefront.yaml partner.yaml",
    ),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The block that follows `<!-- name -->`, and where it stands.
fn block<'a>(page: &'a str, name: &str) -> &'a str {
    let after = page.split_once(&format!("<!-- {name} -->\n")).unwrap_or_else(|| panic!("the page has no {name}")).1;
    let (_, inside) = after.split_once('\n').unwrap();
    inside.split_once("```\n").unwrap().0
}

/// A file that a page shows, or else one of the examples for teams.
fn shown(page: &str, name: &str) -> String {
    if page.contains(&format!("<!-- {name} -->\n")) {
        return block(page, name).to_owned();
    }
    fs::read_to_string(path("examples/teams").join(name)).unwrap()
}

/// `UPDATE_EXPECT=1 cargo test --test it lint::page` writes the answers anew.
#[test]
fn the_pages_show_what_is_said_of_their_files() {
    for (page, command) in PAGES {
        let text = fs::read_to_string(path(page)).unwrap();
        let config = Some(Config::parse(block(&text, "operator.yaml")).unwrap());
        let names = command.split(' ').skip_while(|word| *word != "operator.yaml").skip(1);
        let files: Vec<_> = names.map(|name| file(name, &shown(&text, name))).collect();
        let report = lint(&files, &Options { config, ..options() }).unwrap();
        let answer = format!("$ {command}\n{}", written(&report, Output::Human));
        expect_file![path(page)].assert_eq(&text.replace(block(&text, command), &answer));
    }
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
