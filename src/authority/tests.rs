//! Which servers are in force, and whom they take.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::api::BuiltIn;
use crate::config::Config;

fn configured() -> Server {
    Config::parse("authorizationServer: {issuer: \"https://auth.example\"}").unwrap().server
}

fn spec(issuer: &str) -> AuthorizationServerSpec {
    let built_in = BuiltIn { issuer: issuer.into(), ..BuiltIn::default() };
    AuthorizationServerSpec { built_in: Some(built_in), ..AuthorizationServerSpec::default() }
}

fn declared(servers: &[(&str, &str, i64)]) -> BTreeMap<String, Declared> {
    let of = |(name, issuer, second): &(&str, &str, i64)| {
        let created_at = Timestamp::from_second(*second).ok();
        ((*name).to_owned(), Declared::of(name, created_at, spec(issuer)))
    };
    servers.iter().map(of).collect()
}

fn published(servers: &[(&str, &str)]) -> BTreeMap<String, Server> {
    let of = |(name, issuer): &(&str, &str)| {
        let Authority::BuiltIn(server) = Authority::of(name, &spec(issuer)).unwrap();
        ((*name).to_owned(), server)
    };
    servers.iter().map(of).collect()
}

fn problem(spec: &AuthorizationServerSpec) -> String {
    Authority::of("a", spec).map(|_| ()).unwrap_err().to_string()
}

fn names(catalog: &Catalog) -> Vec<&str> {
    catalog.in_force.keys().map(String::as_str).collect()
}

#[test]
fn servers_stand_side_by_side_with_hosts_or_paths_of_their_own() {
    let objects = declared(&[("b", "https://auth.example/b", 1), ("c", "https://c.example", 1)]);
    let catalog = catalog(&configured(), Some(&objects), &BTreeMap::new());
    assert_eq!(names(&catalog), ["b", "c", "default"]);
    assert!(catalog.refused.is_empty());
    assert_eq!(catalog.in_force["default"].takes, Takes::Everyone);
    assert_eq!(catalog.in_force["b"].takes, Takes::Selected(LabelSelector::default()));
}

#[test]
fn an_issuer_is_the_configured_servers_then_the_published_ones_then_that_of_the_oldest() {
    let objects = declared(&[
        ("a", "https://AUTH.example:8443", 1),
        ("b", "https://p.example", 1),
        ("c", "https://n.example", 9),
        ("d", "https://n.example:444", 8),
    ]);
    let catalog = catalog(&configured(), Some(&objects), &published(&[("p", "https://p.example")]));
    assert_eq!(names(&catalog), ["d", "default", "p"]);
    for (name, other) in [("a", "default"), ("b", "p"), ("c", "d")] {
        let (reason, problem) = &catalog.refused[name];
        assert_eq!(*reason, Reason::IssuerConflict);
        assert_eq!(problem.field.as_deref(), Some("spec.builtIn.issuer"));
        assert!(problem.text.contains(&format!("server {other}:")), "{problem}");
    }
}

#[test]
fn what_clients_were_told_stays_in_force_whatever_becomes_of_its_object() {
    let before =
        published(&[("gone", "https://g.example"), ("broken", "https://b.example"), ("moved", "https://m.example")]);
    let mut objects = declared(&[("moved", "https://elsewhere.example", 1)]);
    objects.insert(
        "broken".into(),
        Declared { created_at: None, server: Err(Message::of_field("spec.later", "unknown")) },
    );
    let all = catalog(&configured(), Some(&objects), &before);
    assert_eq!(names(&all), ["broken", "default", "gone", "moved"]);
    assert_eq!(all.in_force["moved"].authority.server().issuer, "https://m.example");
    for name in ["broken", "gone", "moved"] {
        assert!(all.in_force[name].takes.refusal(name, "shop", None).unwrap().contains(name));
    }
    assert!(all.in_force["gone"].takes.refusal("gone", "shop", None).unwrap().contains("was deleted"));
    assert_eq!(all.refused["broken"], (Reason::InvalidSpec, Message::of_field("spec.later", "unknown")));
    assert!(all.refused["moved"].1.text.contains("https://m.example"));
    assert!(!all.refused.contains_key("gone"));
    // What was not listed was not deleted.
    let unlisted = catalog(&configured(), None, &before);
    assert!(unlisted.in_force["gone"].takes.refusal("gone", "shop", None).unwrap().contains("could not be listed"));
}

#[test]
fn the_configured_servers_name_is_taken_and_settings_that_cannot_work_are_named() {
    let objects = declared(&[("default", "https://d.example", 1), ("plain", "http://p.example", 1)]);
    let catalog = catalog(&configured(), Some(&objects), &BTreeMap::new());
    assert_eq!(names(&catalog), ["default"]);
    assert_eq!(catalog.in_force["default"].authority.server().issuer, "https://auth.example");
    assert!(catalog.refused["default"].1.to_string().starts_with("Field metadata.name: "));
    assert!(catalog.refused["plain"].1.to_string().starts_with("Field spec.builtIn.issuer: must be an https URL"));
    let mut late = spec("https://l.example");
    late.built_in.as_mut().unwrap().access_token_lifetime = Some("25h".into());
    assert!(problem(&late).starts_with("Field spec.builtIn.accessTokenLifetime: must be more than 0s"));
    late.built_in.as_mut().unwrap().access_token_lifetime = Some("soon".into());
    assert!(problem(&late).starts_with("Field spec.builtIn.accessTokenLifetime: must be a duration"));
}

#[test]
fn no_server_spoils_the_certificate_that_all_have() {
    let with = |issuer: &str, serving_names: &[&str]| {
        let mut spec = spec(issuer);
        spec.built_in.as_mut().unwrap().serving_names = serving_names.iter().map(|name| (*name).to_owned()).collect();
        problem(&spec)
    };
    for host in ["a_b.example", "a..example", "-a.example", "a.example:port", "a.example:"] {
        let problem = with(&format!("https://{host}"), &[]);
        assert!(problem.starts_with("Field spec.builtIn.issuer: must"), "{host}: {problem}");
    }
    assert!(with(&format!("https://a.example/{}", "x".repeat(250)), &[]).contains("256"));
    assert!(with("https://a.example", &["*.b.example"]).starts_with("Field spec.builtIn.servingNames: must"));
    assert!(with("https://a.example", &["b"; 5]).contains("at most 4"));
    assert!(Authority::of("a", &spec("https://[::1]:8443/a")).is_ok());
}

#[test]
fn there_is_a_limit_and_those_that_serve_are_within_it() {
    let issuers: Vec<_> = (0..=MOST_SERVERS).map(|n| (format!("s{n:02}"), format!("https://s{n}.example"))).collect();
    let objects: Vec<_> = issuers.iter().map(|(name, issuer)| (name.as_str(), issuer.as_str(), 1)).collect();
    let last = ("s32", "https://s32.example");
    let catalog = catalog(&configured(), Some(&declared(&objects)), &published(&[last]));
    assert_eq!(catalog.in_force.len(), MOST_SERVERS + 1);
    assert!(catalog.in_force.contains_key("s32"));
    assert_eq!(catalog.refused["s31"].0, Reason::QuotaExceeded);
}

#[test]
fn a_namespace_is_taken_by_its_labels_and_a_refusal_names_server_and_selector() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let selector = LabelSelector { match_labels: Some(labels(&[("tier", "partner")])), ..LabelSelector::default() };
    let takes = Takes::Selected(selector);
    assert_eq!(takes.refusal("partners", "shop", Some(&labels(&[("tier", "partner")]))), None);
    let refusal = takes.refusal("partners", "shop", Some(&labels(&[]))).unwrap();
    for part in ["partners", "shop", "tier=partner"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    assert!(takes.refusal("partners", "shop", None).unwrap().contains("not known yet"));
    assert_eq!(Takes::Selected(LabelSelector::default()).refusal("partners", "shop", None), None);
    assert_eq!(Takes::Everyone.refusal("default", "shop", None), None);
}

const NAMES: [&str; 4] = ["default", "a", "b", "c"];
const ISSUERS: [&str; 5] =
    ["https://auth.example", "https://x.example", "https://X.example:1", "https://x.example/y", "http://bad.example"];

proptest! {
    #[test]
    fn whatever_is_declared_and_published_no_two_servers_answer_in_one_place(
        objects in prop::collection::vec((0..NAMES.len(), 0..ISSUERS.len(), 0..3_i64), 0..6),
        before in prop::collection::vec((0..NAMES.len(), 0..4_usize), 0..4),
        is_listed in any::<bool>(),
    ) {
        let objects: Vec<_> = objects.into_iter().map(|(name, issuer, at)| (NAMES[name], ISSUERS[issuer], at)).collect();
        let objects = declared(&objects);
        let before: Vec<_> = before.into_iter().map(|(name, issuer)| (NAMES[name], ISSUERS[issuer])).collect();
        let before = published(&before);
        let catalog = catalog(&configured(), is_listed.then_some(&objects), &before);
        let places: BTreeSet<_> = catalog.in_force.values().map(|in_force| in_force.authority.server().place()).collect();
        prop_assert_eq!(places.len(), catalog.in_force.len());
        prop_assert_eq!(catalog.in_force["default"].authority.server(), &configured());
        // What clients were told of a server is never told otherwise.
        for (name, server) in before.iter().filter(|(name, _)| *name != "default") {
            if let Some(in_force) = catalog.in_force.get(name) {
                prop_assert_eq!(&in_force.authority.server().issuer, &server.issuer);
            }
        }
        // Each object is in force as it stands, or is told why not.
        for name in objects.keys().filter(|_| is_listed) {
            let takes = catalog.in_force.get(name).map(|in_force| &in_force.takes);
            prop_assert_eq!(matches!(takes, Some(Takes::Selected(_))), !catalog.refused.contains_key(name));
        }
    }
}
