//! Who may do what, as the API server answers it: every persona, every kind, every verb, in one table.

#![allow(clippy::needless_raw_string_hashes, reason = "`UPDATE_EXPECT` writes them so")]

use std::fmt::Write as _;

use expect_test::expect;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::applied::{BINARY, controller_user, token_service_user};
use crate::harness::operator::{LEDGER, NAMESPACE};
use crate::harness::{ControlPlane, Controllers, Operator, Options, eventually, eventually::holds};

/// The verbs, each with its letter in the table.
const VERBS: [(char, &str); 8] = [
    ('g', "get"),
    ('l', "list"),
    ('w', "watch"),
    ('c', "create"),
    ('u', "update"),
    ('p', "patch"),
    ('d', "delete"),
    ('D', "deletecollection"),
];

/// The namespace of the people and of the tenant's automation, and one of somebody else.
const SHOP: &str = "shop";
const BANK: &str = "bank";

const TENANT: &str = "system:serviceaccount:shop:gitops";

struct Persona {
    title: &'static str,
    user: String,
    /// The cluster's own roles, bound in the namespace; the chart's, in the cluster.
    role: Option<(&'static str, Scope)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Namespace,
    Cluster,
}

fn personas() -> Vec<Persona> {
    let person = |title: &'static str, role: &'static str, scope: Scope| Persona {
        title,
        user: title.to_owned(),
        role: Some((role, scope)),
    };
    let account = |title: &'static str, user: String, role| Persona { title, user, role };
    vec![
        person("viewer", "view", Scope::Namespace),
        person("editor", "edit", Scope::Namespace),
        person("admin", "admin", Scope::Namespace),
        account("gitops", TENANT.to_owned(), Some(("admin", Scope::Namespace))),
        person("policies", "appreg-policy-administrator", Scope::Cluster),
        person("approver", "appreg-approver", Scope::Cluster),
        person("reader", "appreg-policy-viewer", Scope::Cluster),
        account("controller", controller_user(), None),
        account("tokens", token_service_user(), None),
    ]
}

/// What may be done something to: how the table calls it, resource, namespace, name.
const KINDS: [(&str, &str, &str, &str); 15] = [
    ("registrations of shop", "appregistrations.appreg.dev", SHOP, ""),
    ("  their status", "appregistrations.appreg.dev/status", SHOP, ""),
    ("registrations of bank", "appregistrations.appreg.dev", BANK, ""),
    ("  their status", "appregistrations.appreg.dev/status", BANK, ""),
    ("policies", "registrationpolicies.appreg.dev", "", ""),
    ("  their status", "registrationpolicies.appreg.dev/status", "", ""),
    ("approvals", "registrationapprovals.appreg.dev", "", ""),
    ("authorization servers", "authorizationservers.appreg.dev", "", ""),
    ("  their status", "authorizationservers.appreg.dev/status", "", ""),
    ("Secrets of shop", "secrets", SHOP, ""),
    ("Secrets of bank", "secrets", BANK, ""),
    ("the ledger", "secrets", LEDGER, ""),
    ("  a list of revocations", "secrets", LEDGER, "revocations-0"),
    ("  the signing keys", "secrets", LEDGER, "signing-keys"),
    ("the CA's keys", "secrets", NAMESPACE, "appreg-ca"),
];

async fn may(
    client: &Client,
    user: &str,
    verb: &str,
    (_, resource, namespace, name): (&str, &str, &str, &str),
) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ResourceAttributes::default()
    };
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some(namespace) = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split(':').next()) {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    let spec = SubjectAccessReviewSpec {
        user: Some(user.to_owned()),
        groups: Some(groups),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

async fn bind(plane: &ControlPlane, persona: &Persona) {
    let Some((role, scope)) = persona.role else { return };
    let (role, title) = (format!("--clusterrole={role}"), persona.title);
    let subject = match persona.user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={}", persona.user),
    };
    let mut args = match scope {
        Scope::Namespace => vec!["create", "rolebinding", title, "-n", SHOP],
        Scope::Cluster => vec!["create", "clusterrolebinding", title],
    };
    args.extend([role.as_str(), subject.as_str()]);
    plane.kubectl(&args).await.unwrap().ok().unwrap();
}

/// The letters of what a persona may do to a kind; `-` is nothing.
async fn letters(client: &Client, user: &str, kind: (&str, &str, &str, &str)) -> String {
    let mut found = String::new();
    for (letter, verb) in VERBS {
        if may(client, user, verb, kind).await {
            found.push(letter);
        }
    }
    if found.is_empty() { "-".to_owned() } else { found }
}

#[tokio::test]
async fn nobody_may_do_more_than_the_table_says_and_no_one_in_a_namespace_touches_what_governs_it() {
    let controllers = Controllers::BasicAnd(vec!["clusterrole-aggregation-controller"]);
    let plane = ControlPlane::start_with(Options { controllers, ..Options::default() }).await.unwrap();
    let client = plane.client("admin");
    Operator::install(&plane, BINARY, &[]).await.unwrap();
    for namespace in [SHOP, BANK] {
        plane.kubectl(&["create", "namespace", namespace]).await.unwrap().ok().unwrap();
    }
    let personas = personas();
    for persona in &personas {
        bind(&plane, persona).await;
    }
    // The cluster's role "admin" is put together after "edit", and that after "view".
    eventually("the aggregated roles are there", async || {
        let both = may(&client, "admin", "get", KINDS[0]).await && may(&client, "admin", "create", KINDS[0]).await;
        holds(both, || "not yet".to_owned())
    })
    .await;

    let mut table = format!("{:24}", "");
    for persona in &personas {
        write!(table, "{:11}", persona.title).unwrap();
    }
    for kind in KINDS {
        write!(table, "\n{:24}", kind.0).unwrap();
        for persona in &personas {
            let found = letters(&client, &persona.user, kind).await;
            write!(table, "{found:11}").unwrap();
            // Whatever the table says by now.
            let is_confined = persona.role.is_some_and(|(_, scope)| scope == Scope::Namespace);
            let is_own = kind.2 == SHOP && !kind.1.ends_with("/status");
            assert!(!is_confined || is_own || found == "-", "{} {}: {found}", persona.title, kind.0);
        }
    }
    let table: Vec<_> = table.lines().map(str::trim_end).collect();
    expect![[r#"
                                viewer     editor     admin      gitops     policies   approver   reader     controller tokens
        registrations of shop   glw        glwcupdD   glwcupdD   glwcupdD   glw        glw        -          glw        -
          their status          -          -          -          -          -          -          -          u          -
        registrations of bank   -          -          -          -          glw        glw        -          glw        -
          their status          -          -          -          -          -          -          -          u          -
        policies                -          -          -          -          glwcupd    glw        glw        lw         -
          their status          -          -          -          -          -          -          -          u          -
        approvals               -          -          -          -          -          glwcupd    -          glw        -
        authorization servers   -          -          -          -          glwcupd    -          glw        lw         -
          their status          -          -          -          -          -          -          -          u          -
        Secrets of shop         -          glwcupdD   glwcupdD   glwcupdD   -          -          -          glwcud     -
        Secrets of bank         -          -          -          -          -          -          -          glwcud     -
        the ledger              -          -          -          -          -          -          -          glwcud     glw
          a list of revocations -          -          -          -          -          -          -          glwcud     glwu
          the signing keys      -          -          -          -          -          -          -          glwcud     glw
        the CA's keys           -          -          -          -          -          -          -          glwcud     -"#]].assert_eq(&table.join("\n"));
}
