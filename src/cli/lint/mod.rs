//! `appreg lint`: what an API server and the operator would say of files, without a cluster.
//!
//! An object is held against the definition of its kind as for a creation: its schema, and its rules in CEL. Rules about
//! changes compare with what a cluster has stored; they are listed as not evaluated. Registrations that an API server
//! would take are then held against the policies and approvals of the files, by the function with which the controller
//! plans.

mod definition;
mod field_path;
mod files;
mod finding;
mod governance;
mod input;
mod names;
mod output;
mod renamed;
mod report;

#[cfg(test)]
mod properties;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::definition::{Checked, Definition};
use self::governance::Governors;
use self::input::Object;
use crate::api::names::GROUP;
use crate::api::{AppRegistration, AuthorizationServer, RegistrationApproval, RegistrationPolicy};
use crate::config::Config;
use crate::policy::Invalid;

pub use self::definition::Unusable;
pub use self::field_path::FieldPath;
pub use self::files::{File, read};
pub use self::finding::{Level, Place, Rule, Violation};
pub use self::input::Unreadable;
pub use self::output::{Output, write};
pub use self::report::{Finding, ObjectName, Obstacle, Report, Status};

/// What the files do not say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of objects that name none: `kubectl` takes that of its context.
    pub namespace: String,
    /// Labels of namespaces whose objects are not in the files.
    pub namespace_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// The operator's configuration; none is that of the chart.
    pub config: Option<Config>,
    /// Whether approvals are in force is asked for this time.
    pub now: Timestamp,
}

/// Why nothing can be evaluated at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kind of ours cannot be evaluated: a fault of the program.
    #[error("A definition of this version of appreg cannot be evaluated")]
    Definition(#[from] Unusable),
    /// The configured policy cannot be understood.
    #[error("The policy of the configuration cannot be understood")]
    Policy(#[from] Invalid),
}

/// Holds the objects of files against the definitions of their kinds and, where those accept them, against policies.
pub fn lint(files: &[File], options: &Options) -> Result<Report, Error> {
    let chart = chart_config();
    let config = options.config.as_ref().unwrap_or(&chart);
    let mut run = Run {
        options,
        definitions: Definition::all()?,
        governors: Governors::new(config, options.namespace_labels.clone())?,
        servers: Vec::new(),
        registrations: Vec::new(),
        seen: BTreeMap::new(),
        report: Report::default(),
    };
    for file in files {
        match file.text.as_deref().map_err(Clone::clone).and_then(input::objects) {
            Ok(objects) => objects.into_iter().for_each(|object| run.object(&file.name, object)),
            Err(Unreadable { place, message }) => {
                let message = format!("{} {message}", file.name);
                run.report.obstacles.push(Obstacle { file: file.name.clone(), place, message });
            }
        }
    }
    run.servers();
    run.registrations();
    run.unseen();
    run.report.findings.sort();
    Ok(run.report)
}

struct Run<'a> {
    options: &'a Options,
    definitions: Vec<Definition>,
    governors: Governors,
    /// Those that an API server would take: whether they are in force is known with the last of them.
    servers: Vec<Source>,
    /// Those that an API server would take: they wait until every policy is known.
    registrations: Vec<(Source, AppRegistration)>,
    seen: BTreeMap<ObjectName, String>,
    report: Report,
}

/// Where an object is from.
struct Source {
    file: String,
    name: ObjectName,
    object: Object,
}

impl Run<'_> {
    fn object(&mut self, file: &str, object: Object) {
        let text = |pointer: &str| object.text(pointer).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("/apiVersion"), text("/kind"));
        if api_version == "v1" && kind == "Namespace" {
            self.governors.namespace(&text("/metadata/name"), labels(&object.json));
            *self.report.checked.entry(kind).or_default() += 1;
            return;
        }
        if api_version.split('/').next() != Some(GROUP) {
            self.report.skipped += 1;
            return;
        }
        let definition = self.definitions.iter().find(|known| known.kind == kind && known.api_version == api_version);
        let namespaced = definition.is_some_and(|definition| definition.namespaced);
        let name = self.name(&object, namespaced);
        let Checked { stored, mut violations, unevaluated, rules_left_out } = match definition {
            Some(definition) => definition.check(&object.json),
            None => Checked { violations: vec![self.unknown_kind(&kind)], ..Checked::default() },
        };
        if definition.is_some() {
            violations.extend(names::check(&object.json, namespaced));
        }
        violations.extend(self.twice(&name, file, object.place(&FieldPath::default())));
        if rules_left_out {
            let note = format!("{name}: its rules were not evaluated, because other errors must be mended first");
            self.report.notes.push(note);
        }
        *self.report.checked.entry(kind).or_default() += 1;
        let source = Source { file: file.to_owned(), name, object };
        for rule in &unevaluated {
            let message = format!("{}: the rule {} could not be evaluated: {}", rule.field, rule.rule, rule.reason);
            self.obstacle(&source, &rule.field, &message);
        }
        if violations.is_empty() && unevaluated.is_empty() {
            self.accepted(source, &stored);
        } else {
            self.findings(&source, violations);
        }
    }

    /// Takes up what an API server would store.
    fn accepted(&mut self, source: Source, stored: &Value) {
        match source.name.kind.as_str() {
            "AppRegistration" => {
                if let Some(registration) = self.typed(&source, stored) {
                    self.registrations.push((source, registration));
                }
            }
            "RegistrationPolicy" => {
                let policy = self.typed::<RegistrationPolicy>(&source, stored);
                let refused = policy.and_then(|policy| self.governors.policy(policy).err());
                self.findings(&source, refused.into_iter().collect());
            }
            "RegistrationApproval" => {
                if let Some(approval) = self.typed::<RegistrationApproval>(&source, stored) {
                    self.governors.approval(approval);
                }
            }
            "AuthorizationServer" => {
                if let Some(server) = self.typed::<AuthorizationServer>(&source, stored) {
                    self.governors.server(server);
                    self.servers.push(source);
                }
            }
            _ => {}
        }
    }

    /// Holds the authorization servers against each other.
    fn servers(&mut self) {
        for source in std::mem::take(&mut self.servers) {
            let refused = self.governors.refusal(&source.name.name);
            self.findings(&source, refused.into_iter().collect());
        }
    }

    /// Holds the registrations against what governs them.
    fn registrations(&mut self) {
        for (source, registration) in std::mem::take(&mut self.registrations) {
            let namespace = source.name.namespace.clone().unwrap_or_default();
            let violations = self.governors.check(&registration, &namespace, self.options.now);
            self.findings(&source, violations);
        }
    }

    fn typed<T: DeserializeOwned>(&mut self, source: &Source, stored: &Value) -> Option<T> {
        let typed = governance::typed(stored);
        if let Err(message) = &typed {
            self.obstacle(source, &FieldPath::default(), message);
        }
        typed.ok()
    }

    fn findings(&mut self, source: &Source, violations: Vec<Violation>) {
        self.report.findings.extend(violations.into_iter().map(|violation| Finding {
            file: source.file.clone(),
            place: source.object.place(&violation.field),
            object: source.name.clone(),
            violation,
        }));
    }

    fn obstacle(&mut self, source: &Source, field: &FieldPath, message: &str) {
        self.report.obstacles.push(Obstacle {
            file: source.file.clone(),
            place: Some(source.object.place(field)),
            message: format!("{}: {message}", source.name),
        });
    }

    fn name(&self, object: &Object, namespaced: bool) -> ObjectName {
        let namespace = object.text("/metadata/namespace").filter(|namespace| !namespace.is_empty());
        ObjectName {
            kind: object.text("/kind").unwrap_or_default().to_owned(),
            namespace: namespaced.then(|| namespace.unwrap_or(&self.options.namespace).to_owned()),
            name: object.text("/metadata/name").unwrap_or_default().to_owned(),
        }
    }

    fn unknown_kind(&self, kind: &str) -> Violation {
        let known = self.definitions.iter().map(|known| format!("{} of {}", known.kind, known.api_version));
        let known = known.collect::<Vec<_>>().join(", or ");
        let field = if self.definitions.iter().any(|known| known.kind == kind) { "apiVersion" } else { "kind" };
        Violation::error(
            Rule::UnknownKind,
            FieldPath::default().field(field),
            "Unsupported value: there is no such kind",
        )
        .to_fix(format!("write {known}"))
    }

    /// Whoever applies the files would overwrite one with the other.
    fn twice(&mut self, name: &ObjectName, file: &str, Place { line, column }: Place) -> Option<Violation> {
        if name.name.is_empty() {
            return None;
        }
        let first = self.seen.insert(name.clone(), format!("{file}:{line}:{column}"))?;
        let message = format!("stands in the files twice: before at {first}");
        let field = FieldPath::default().below("metadata.name");
        Some(Violation::error(Rule::DuplicateObject, field, message).to_fix("remove one of them, or rename it"))
    }

    /// Says what was never meant to be evaluated, and what was assumed.
    fn unseen(&mut self) {
        for definition in self.definitions.iter().filter(|known| self.report.checked.contains_key(&known.kind)) {
            let fields: Vec<_> = definition.fields_of_changes().into_iter().collect();
            if !fields.is_empty() {
                self.report.notes.push(format!(
                    "{}: rules about changes were not evaluated, because they compare with what a cluster has stored: \
                     those of {}",
                    definition.kind,
                    fields.join(", ")
                ));
            }
        }
        self.report.notes.extend(self.governors.notes());
        if self.options.config.is_none() && self.report.checked.contains_key("AppRegistration") {
            self.report.notes.push(
                "the default policy was taken to be the chart's, which allows no scope, API or customer: --config reads yours"
                    .to_owned(),
            );
        }
    }
}

fn labels(namespace: &Value) -> BTreeMap<String, String> {
    let labels = namespace.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// The configuration that the chart writes; its issuer, which nobody else can know, is of no consequence here.
#[expect(clippy::expect_used, reason = "a constant, which a test reads")]
fn chart_config() -> Config {
    Config::parse("authorizationServer: {issuer: https://issuer.invalid}").expect("a configuration")
}
