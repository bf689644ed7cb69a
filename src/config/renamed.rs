//! Fields of the configuration's policy under an earlier name: how each is called now.

use serde_json::Value;

use super::Error;

/// The old names below `policy`, and what to do.
const FIELDS: [(&str, &str); 6] = [
    ("audiences", "is called apis now: write apis: [{audiences: […], scopes: […]}]"),
    ("resourceAudiences", "is called servedAudiences now: rename it"),
    ("kinds", "is called credentialKinds now: write credentialKinds: […], with kinds such as ClientSecret"),
    ("clientSecret", "is called durations.clientSecret now: move it into durations"),
    ("certificate", "is called durations.certificate now: move it into durations"),
    ("accessToken", "is called durations.accessToken now: move it into durations"),
];

/// What is wrong with a configuration that has one of them.
pub(super) fn find(yaml: &str) -> Option<Error> {
    let document: Value = serde_yaml::from_str(yaml).ok()?;
    let policy = document.get("policy")?;
    let (name, problem) = FIELDS.iter().find(|(name, _)| policy.get(*name).is_some())?;
    Some(Error::Invalid { field: format!("policy.{name}"), problem })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Policy};
    use super::*;

    #[test]
    fn every_old_name_is_refused_with_the_new_one() {
        let today = serde_json::to_value(Policy::default()).unwrap();
        for (old, problem) in FIELDS {
            let yaml = format!("authorizationServer: {{issuer: \"https://a.example\"}}\npolicy: {{{old}: []}}");
            let said = Config::parse(&yaml).unwrap_err().to_string();
            assert_eq!(said, format!("The configuration field policy.{old} {problem}"));
            let new = problem.split_whitespace().nth(2).unwrap();
            assert!(
                today.get(old).is_none() && today.pointer(&format!("/{}", new.replace('.', "/"))).is_some(),
                "{new}"
            );
        }
    }
}
