//! Fields under an earlier name: how each is called now, and how it is written.
//!
//! An API server says of them what it says of every field that it does not know. Nothing was released with these names;
//! they stand in files that were written before.

use super::field_path::FieldPath;

/// A field that has another name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Renamed {
    kind: &'static str,
    /// Its path, with `[]` for any item of a list.
    old: &'static str,
    /// Its name now, in the same place.
    pub(super) new: &'static str,
    /// How it is written now.
    pub(super) fix: &'static str,
}

const REGISTRATION: &str = "AppRegistration";
const POLICY: &str = "RegistrationPolicy";
const APPROVAL: &str = "RegistrationApproval";

const APIS: &str = "write apis: [{audience: …, scopes: […]}], with the scopes of each API beside its audience";
const SERVED: &str = "rename it";
const STATUS: &str = "remove status, which the operator writes";

const fn field(kind: &'static str, old: &'static str, new: &'static str, fix: &'static str) -> Renamed {
    Renamed { kind, old, new, fix }
}

/// Every field that was renamed.
const FIELDS: &[Renamed] = &[
    field(REGISTRATION, "spec.audiences", "apis", APIS),
    field(REGISTRATION, "spec.resourceAudiences", "servedAudiences", SERVED),
    field(
        REGISTRATION,
        "spec.credentials[].certificate.keyType",
        "privateKey",
        "write privateKey: {algorithm: …, size: …}, such as {algorithm: ECDSA, size: 256}",
    ),
    field(
        REGISTRATION,
        "spec.credentials[].accessToken.audiences",
        "audience",
        "write audience: …, because a token is for one API, and an entry for each further API",
    ),
    field(REGISTRATION, "status.nextTransitionTime", "nextRotationTime", STATUS),
    field(REGISTRATION, "status.granted.audiences", "apis", STATUS),
    field(REGISTRATION, "status.granted.resourceAudiences", "servedAudiences", STATUS),
    field(REGISTRATION, "status.credentials[].audiences", "audience", STATUS),
    field(REGISTRATION, "status.credentials[].current.mintedAt", "mintedTime", STATUS),
    field(REGISTRATION, "status.credentials[].current.acceptedUntil", "acceptedUntilTime", STATUS),
    field(REGISTRATION, "status.credentials[].previous.mintedAt", "mintedTime", STATUS),
    field(REGISTRATION, "status.credentials[].previous.acceptedUntil", "acceptedUntilTime", STATUS),
    field(
        POLICY,
        "spec.audiences",
        "apis",
        "write apis: [{audiences: […], scopes: […]}], with the scopes of each API beside its audiences",
    ),
    field(POLICY, "spec.resourceAudiences", "servedAudiences", SERVED),
    field(POLICY, "spec.kinds", "credentialKinds", "write credentialKinds: […], with kinds such as ClientSecret"),
    field(
        POLICY,
        "spec.keyTypes",
        "privateKeys",
        "write privateKeys: [{algorithm: …, minSize: …}], such as [{algorithm: RSA, minSize: 3072}]",
    ),
    field(
        POLICY,
        "spec.approvalRequired.audiences",
        "apis",
        "write apis: [{audiences: […]}], with scopes where these alone need an approval",
    ),
    field(POLICY, "spec.approvalRequired.resourceAudiences", "servedAudiences", SERVED),
    field(APPROVAL, "spec.registration", "registrationRef", "rename it"),
    field(APPROVAL, "spec.audiences", "apis", APIS),
    field(APPROVAL, "spec.resourceAudiences", "servedAudiences", SERVED),
    field(APPROVAL, "spec.expires", "expirationTime", "rename it"),
];

/// The field of a kind that had this name once.
pub(super) fn renamed(kind: &str, field: &FieldPath) -> Option<&'static Renamed> {
    let path = field.without_numbers();
    FIELDS.iter().find(|renamed| renamed.kind == kind && renamed.old == path)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::api::crds;

    /// The schema at a path, if there is such a field.
    fn schema_at<'s>(root: &'s Value, path: &str) -> Option<&'s Value> {
        path.split('.').try_fold(root, |schema, part| {
            let field = schema.pointer(&format!("/properties/{}", part.trim_end_matches("[]")))?;
            if part.ends_with("[]") { field.get("items") } else { Some(field) }
        })
    }

    #[test]
    fn no_old_name_is_a_field_any_more_and_every_new_one_is() {
        let all: Vec<Value> = crds::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        for renamed in FIELDS {
            let crd = all.iter().find(|crd| crd["spec"]["names"]["kind"] == renamed.kind).unwrap();
            let root = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
            let (parent, _) = renamed.old.rsplit_once('.').unwrap();
            assert_eq!(schema_at(root, renamed.old), None, "{renamed:?}");
            assert!(schema_at(root, &format!("{parent}.{}", renamed.new)).is_some(), "{renamed:?}");
        }
    }

    #[test]
    fn a_field_is_found_in_its_kind_and_place_alone() {
        let path = FieldPath::default().below("spec.credentials").item(3).below("certificate.keyType");
        assert_eq!(renamed(REGISTRATION, &path).unwrap().new, "privateKey");
        assert_eq!(renamed(POLICY, &path), None);
        assert_eq!(renamed(REGISTRATION, &FieldPath::default().below("spec.keyType")), None);
        assert_eq!(renamed(REGISTRATION, &FieldPath::default()), None);
    }
}
