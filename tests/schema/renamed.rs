//! Objects with a field or a value under the name that it had before: all are refused, and `appreg lint` says the new name.

/// A field that was renamed: the kind, a spec with the old name, the field, and its name now.
pub(crate) const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("AppRegistration", "{displayName: Shop, audiences: ['https://api.example']}", "spec.audiences", "apis"),
    ("AppRegistration", "{displayName: Shop, resourceAudiences: [a]}", "spec.resourceAudiences", "servedAudiences"),
    (
        "AppRegistration",
        "{displayName: Shop, credentials: [{name: a, clientSecret: {}}, {name: b, certificate: {keyType: ECDSAP256}}]}",
        "spec.credentials[1].certificate.keyType",
        "privateKey",
    ),
    (
        "AppRegistration",
        "{displayName: Shop, credentials: [{name: a, accessToken: {audiences: ['https://api.example']}}]}",
        "spec.credentials[0].accessToken.audiences",
        "audience",
    ),
    ("RegistrationPolicy", "{namespaceSelector: {}, audiences: ['*']}", "spec.audiences", "apis"),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, resourceAudiences: ['*']}",
        "spec.resourceAudiences",
        "servedAudiences",
    ),
    ("RegistrationPolicy", "{namespaceSelector: {}, kinds: [clientSecret]}", "spec.kinds", "credentialKinds"),
    ("RegistrationPolicy", "{namespaceSelector: {}, keyTypes: [ECDSAP256]}", "spec.keyTypes", "privateKeys"),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, approvalRequired: {audiences: ['*']}}",
        "spec.approvalRequired.audiences",
        "apis",
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, approvalRequired: {resourceAudiences: ['*']}}",
        "spec.approvalRequired.resourceAudiences",
        "servedAudiences",
    ),
    (
        "RegistrationApproval",
        "{registration: {namespace: shop, name: a}, registrationRef: {namespace: shop, name: a}, scopes: [a]}",
        "spec.registration",
        "registrationRef",
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: a}, scopes: [a], audiences: ['https://api.example']}",
        "spec.audiences",
        "apis",
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: a}, scopes: [a], resourceAudiences: [a]}",
        "spec.resourceAudiences",
        "servedAudiences",
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: a}, scopes: [a], expires: '2027-01-01T00:00:00Z'}",
        "spec.expires",
        "expirationTime",
    ),
];

/// A value that was renamed: the kind, a spec with the old value, the field, and the value now.
pub(crate) const VALUES: &[(&str, &str, &str, &str)] = &[
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [clientSecret]}",
        "spec.credentialKinds[0]",
        "ClientSecret",
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [certificate]}",
        "spec.credentialKinds[0]",
        "Certificate",
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [accessToken]}",
        "spec.credentialKinds[0]",
        "AccessToken",
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [publicKey]}",
        "spec.credentialKinds[0]",
        "PublicKey",
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [serviceAccount]}",
        "spec.credentialKinds[0]",
        "ServiceAccount",
    ),
];

/// The fields of a status that were renamed, beside what they are in, and their names now.
pub(crate) const STATUS: &[(&str, &str, &str)] = &[
    ("{nextTransitionTime: '2027-01-01T00:00:00Z'}", "status.nextTransitionTime", "nextRotationTime"),
    ("{granted: {audiences: [a]}}", "status.granted.audiences", "apis"),
    ("{granted: {resourceAudiences: [a]}}", "status.granted.resourceAudiences", "servedAudiences"),
    ("{credentials: [{name: a, audiences: [a]}]}", "status.credentials[0].audiences", "audience"),
    (
        "{credentials: [{name: a, current: {revision: 1, mintedAt: '2027-01-01T00:00:00Z'}}]}",
        "status.credentials[0].current.mintedAt",
        "mintedTime",
    ),
    (
        "{credentials: [{name: a, current: {revision: 1, acceptedUntil: '2027-01-01T00:00:00Z'}}]}",
        "status.credentials[0].current.acceptedUntil",
        "acceptedUntilTime",
    ),
    (
        "{credentials: [{name: a, previous: {revision: 1, mintedAt: '2027-01-01T00:00:00Z'}}]}",
        "status.credentials[0].previous.mintedAt",
        "mintedTime",
    ),
    (
        "{credentials: [{name: a, previous: {revision: 1, acceptedUntil: '2027-01-01T00:00:00Z'}}]}",
        "status.credentials[0].previous.acceptedUntil",
        "acceptedUntilTime",
    ),
];
