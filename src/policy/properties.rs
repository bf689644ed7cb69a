//! What holds for all policies, approvals and requests, and histories of edits held against a reference.

use proptest::prelude::*;

use super::*;
use crate::api::{ApiAccess, ApiRule, ApprovalRequired, RegistrationPolicySpec};

const SHOP: Subject<'static> = Subject { namespace: "shop", name: "storefront" };
const SCOPES: [&str; 4] = ["a", "b", "c", "d"];
const NAMES: [&str; 3] = ["p", "q", "r"];

/// A policy that lists names, so that the reference needs no globs.
#[derive(Clone, Debug, Default)]
struct Plain {
    allows: BTreeSet<usize>,
    wants_approval: BTreeSet<usize>,
    withdraws: bool,
}

fn texts(items: &BTreeSet<usize>) -> Vec<String> {
    items.iter().map(|item| SCOPES[*item].to_owned()).collect()
}

fn rules(name: &str, plain: &Plain) -> Arc<Rules> {
    let spec = RegistrationPolicySpec {
        scopes: texts(&plain.allows),
        approval_required: Some(ApprovalRequired {
            scopes: texts(&plain.wants_approval),
            ..ApprovalRequired::default()
        }),
        on_violation: plain.withdraws.then_some(OnViolation::Withdraw),
        ..RegistrationPolicySpec::default()
    };
    Arc::new(Rules::of_object(name, &spec).unwrap())
}

fn some() -> impl Strategy<Value = BTreeSet<usize>> {
    prop::collection::btree_set(0..SCOPES.len(), 0..=SCOPES.len())
}

fn plain() -> impl Strategy<Value = Plain> {
    (some(), some(), any::<bool>()).prop_map(|(allows, wants_approval, withdraws)| Plain {
        allows,
        wants_approval,
        withdraws,
    })
}

fn policies() -> impl Strategy<Value = BTreeMap<usize, Plain>> {
    prop::collection::btree_map(0..NAMES.len(), plain(), 0..=NAMES.len())
}

fn asking(scopes: &BTreeSet<usize>) -> AppRegistrationSpec {
    AppRegistrationSpec { scopes: texts(scopes), ..AppRegistrationSpec::default() }
}

fn governance(policies: &BTreeMap<usize, Plain>, approved: &BTreeSet<usize>) -> Governance {
    let approval = RegistrationApprovalSpec { scopes: texts(approved), ..RegistrationApprovalSpec::default() };
    Governance {
        policies: policies.iter().map(|(name, plain)| rules(NAMES[*name], plain)).collect(),
        approvals: BTreeMap::from([("yes".to_owned(), Arc::new(approval))]),
        ..Governance::default()
    }
}

fn granted(decision: &Decision) -> BTreeSet<String> {
    decision.grant.scopes.keys().cloned().collect()
}

fn decide(spec: &AppRegistrationSpec, governance: &Governance, before: &Grant) -> Decision {
    evaluate(spec, SHOP, governance, before, Timestamp::UNIX_EPOCH)
}

proptest! {
    #[test]
    fn adding_a_policy_never_removes_a_grant(
        asked in some(), first in policies(), then in policies(), more in plain(), approved in some(), name in 0..NAMES.len(),
    ) {
        let spec = asking(&asked);
        let before = decide(&spec, &governance(&first, &approved), &Grant::default()).grant;
        let fewer: BTreeMap<_, _> = then.iter().filter(|(n, _)| **n != name).map(|(n, p)| (*n, p.clone())).collect();
        // One that is there again and says Withdraw is an edit, and no addition to what granted before.
        let more = Plain { withdraws: false, ..more };
        let mut added = fewer.clone();
        added.insert(name, more);
        for before in [&Grant::default(), &before] {
            let without = granted(&decide(&spec, &governance(&fewer, &approved), before));
            let with = granted(&decide(&spec, &governance(&added, &approved), before));
            prop_assert!(without.is_subset(&with), "{without:?} {with:?}");
        }
    }

    #[test]
    fn no_edit_of_policies_touches_what_is_kept(asked in some(), first in policies(), then in policies()) {
        let keep = |policies: BTreeMap<usize, Plain>| -> BTreeMap<usize, Plain> {
            policies.into_iter().map(|(name, plain)| (name, Plain { withdraws: false, ..plain })).collect()
        };
        let (first, then) = (keep(first), keep(then));
        let spec = asking(&asked);
        let before = decide(&spec, &governance(&first, &BTreeSet::new()), &Grant::default());
        let after = decide(&spec, &governance(&then, &BTreeSet::new()), &before.grant);
        prop_assert!(granted(&before).is_subset(&granted(&after)));
    }

    #[test]
    fn neither_the_order_of_policies_nor_that_of_a_request_matters(
        asked in some(), first in policies(), then in policies(), approved in some(),
    ) {
        let spec = asking(&asked);
        let before = decide(&spec, &governance(&first, &approved), &Grant::default()).grant;
        let (mut spec_reversed, mut reversed) = (spec.clone(), governance(&then, &approved));
        spec_reversed.scopes.reverse();
        reversed.policies.reverse();
        let (one, other) = (decide(&spec, &governance(&then, &approved), &before), decide(&spec_reversed, &reversed, &before));
        prop_assert_eq!(granted(&one), granted(&other));
        prop_assert_eq!(one.denied.len(), other.denied.len());
        prop_assert_eq!(one.kept.len(), other.kept.len());
    }

    #[test]
    fn what_was_decided_stays_decided(asked in some(), first in policies(), then in policies(), approved in some()) {
        let spec = asking(&asked);
        let before = decide(&spec, &governance(&first, &approved), &Grant::default()).grant;
        let governance = governance(&then, &approved);
        let once = decide(&spec, &governance, &before);
        prop_assert_eq!(&once.grant, &decide(&spec, &governance, &once.grant).grant);
    }

    #[test]
    fn each_item_asked_for_is_granted_or_denied_and_nothing_else_is(asked in some(), policies in policies(), approved in some()) {
        let decision = decide(&asking(&asked), &governance(&policies, &approved), &Grant::default());
        let mut all = granted(&decision);
        all.extend(decision.denied.iter().map(|denied| denied.item.name.clone()));
        prop_assert_eq!(all, texts(&asked).into_iter().collect::<BTreeSet<_>>());
        prop_assert_eq!(decision.grant.scopes.len() + decision.denied.len(), asked.len());
        prop_assert!(decision.kept.is_empty() && decision.unseen.is_empty());
    }
}

/// What a person does between two decisions.
#[derive(Clone, Debug)]
enum Edit {
    Ask(BTreeSet<usize>),
    Policy(usize, Plain),
    DeletePolicy(usize),
    Approve(usize, BTreeSet<usize>),
    Revoke(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        some().prop_map(Edit::Ask),
        (0..NAMES.len(), plain()).prop_map(|(name, plain)| Edit::Policy(name, plain)),
        (0..NAMES.len()).prop_map(Edit::DeletePolicy),
        (0..2_usize, some()).prop_map(|(name, scopes)| Edit::Approve(name, scopes)),
        (0..2_usize).prop_map(Edit::Revoke),
    ]
}

const APPROVALS: [&str; 2] = ["x", "y"];

/// The world, and what the reference says is granted: by item, the policy or the approval.
#[derive(Default)]
struct History {
    asked: BTreeSet<usize>,
    policies: BTreeMap<usize, Plain>,
    approvals: BTreeMap<usize, BTreeSet<usize>>,
    granted: BTreeMap<usize, By>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Policy(usize),
    Approval(usize),
}

impl History {
    fn edit(&mut self, edit: &Edit) {
        match edit.clone() {
            Edit::Ask(asked) => self.asked = asked,
            Edit::Policy(name, plain) => drop(self.policies.insert(name, plain)),
            Edit::DeletePolicy(name) => drop(self.policies.remove(&name)),
            Edit::Approve(name, scopes) => drop(self.approvals.insert(name, scopes)),
            Edit::Revoke(name) => drop(self.approvals.remove(&name)),
        }
    }

    /// The sentences of the product's section, one by one.
    fn settle(&mut self) {
        let is_free = |plain: &Plain, item| plain.allows.contains(&item) && !plain.wants_approval.contains(&item);
        let mut after = BTreeMap::new();
        for item in self.asked.iter().copied() {
            let free = self.policies.iter().find(|(_, plain)| is_free(plain, item)).map(|(name, _)| By::Policy(*name));
            let is_allowed = self.policies.values().any(|plain| plain.allows.contains(&item));
            let approving = self.approvals.iter().find(|(_, items)| items.contains(&item));
            let approved = approving.filter(|_| is_allowed).map(|(name, _)| By::Approval(*name));
            let allowed = free.or(approved);
            let by = match self.granted.get(&item).copied() {
                None => allowed,
                Some(By::Policy(name)) => match self.policies.get(&name) {
                    Some(plain) if is_free(plain, item) => Some(By::Policy(name)),
                    Some(plain) if plain.withdraws => allowed,
                    Some(_) | None => allowed.or(Some(By::Policy(name))),
                },
                Some(By::Approval(name)) => match self.approvals.get(&name) {
                    Some(items) if items.contains(&item) => Some(By::Approval(name)),
                    Some(_) | None => allowed,
                },
            };
            after.extend(by.map(|by| (item, by)));
        }
        self.granted = after;
    }

    /// What the product says, looking once more where it must, as a controller does.
    fn decide(&self, before: &Grant) -> Grant {
        let mut governance = Governance {
            policies: self.policies.iter().map(|(name, plain)| rules(NAMES[*name], plain)).collect(),
            approvals: self
                .approvals
                .iter()
                .map(|(name, items)| {
                    let spec = RegistrationApprovalSpec { scopes: texts(items), ..RegistrationApprovalSpec::default() };
                    (APPROVALS[*name].to_owned(), Arc::new(spec))
                })
                .collect(),
            ..Governance::default()
        };
        let first = decide(&asking(&self.asked), &governance, before);
        governance.absent = first.unseen.into_iter().map(|name| (name, Absence::Confirmed)).collect();
        decide(&asking(&self.asked), &governance, before).grant
    }
}

proptest! {
    #[test]
    fn after_every_edit_of_a_history_exactly_what_the_sentences_say_is_granted(edits in prop::collection::vec(edit(), 1..24)) {
        let (mut history, mut grant) = (History::default(), Grant::default());
        for edit in &edits {
            history.edit(edit);
            history.settle();
            grant = history.decide(&grant);
            let expected: BTreeMap<String, String> = history
                .granted
                .iter()
                .map(|(item, by)| {
                    let by = match by {
                        By::Policy(name) => format!("policy/{}", NAMES[*name]),
                        By::Approval(name) => format!("approval/{}", APPROVALS[*name]),
                    };
                    (SCOPES[*item].to_owned(), by)
                })
                .collect();
            prop_assert_eq!(&grant.scopes, &expected, "after {:?}", edit);
        }
    }
}

/// Pairs of an API and a scope, by their numbers.
type Pairs = BTreeSet<(usize, usize)>;

fn pairs() -> impl Strategy<Value = Pairs> {
    prop::collection::btree_set((0..3_usize, 0..SCOPES.len()), 0..8)
}

fn audience(number: usize) -> String {
    format!("https://{number}.example")
}

/// A policy with one rule for each pair, or with rules that have all scopes of their audience.
fn with_pairs(name: &str, pairs: &Pairs, is_grouped: bool) -> Arc<Rules> {
    let rule = |audience_: usize, scopes: Vec<usize>| ApiRule {
        audiences: vec![audience(audience_)],
        scopes: scopes.into_iter().map(|scope| SCOPES[scope].to_owned()).collect(),
    };
    let apis = if is_grouped {
        let scopes =
            |of: usize| pairs.iter().filter(move |(audience, _)| *audience == of).map(|(_, scope)| *scope).collect();
        (0..3).map(|of| rule(of, scopes(of))).filter(|rule| !rule.scopes.is_empty()).collect()
    } else {
        pairs.iter().map(|(audience, scope)| rule(*audience, vec![*scope])).collect()
    };
    Arc::new(Rules::of_object(name, &RegistrationPolicySpec { apis, ..RegistrationPolicySpec::default() }).unwrap())
}

proptest! {
    #[test]
    fn two_policies_never_combine_into_a_pair_that_neither_has(
        asked in pairs(), one in pairs(), other in pairs(), is_grouped in any::<bool>(),
    ) {
        let scopes = |of: usize| asked.iter().filter(move |(api, _)| *api == of).map(|(_, scope)| SCOPES[*scope].to_owned());
        let apis = (0..3).map(|of| ApiAccess { audience: audience(of), scopes: scopes(of).collect() }).collect();
        let spec = AppRegistrationSpec { apis, ..AppRegistrationSpec::default() };
        let governance = Governance {
            policies: vec![with_pairs("p", &one, is_grouped), with_pairs("q", &other, is_grouped)],
            ..Governance::default()
        };
        let grant = decide(&spec, &governance, &Grant::default()).grant;
        for api in 0..3 {
            for (number, scope) in SCOPES.iter().enumerate() {
                let has = |pairs: &Pairs| pairs.contains(&(api, number));
                let is_granted = grant.scopes_at(&audience(api), "https://default.example").is_some_and(|s| s.contains(scope));
                prop_assert_eq!(is_granted, has(&asked) && (has(&one) || has(&other)), "{} at {}", scope, audience(api));
            }
        }
        prop_assert!(grant.scopes.is_empty(), "a scope of an API is none of the server's");
    }
}
