//! The kinds that govern registrations: by kind, specs that are accepted and specs that are refused.

use serde_json::{Value, json};

/// Specs that are accepted.
pub(crate) const ACCEPTED: &[(&str, &str)] = &[
    ("RegistrationPolicy", "{namespaceSelector: {}}"),
    (
        "RegistrationPolicy",
        r#"
description: web shops
namespaceSelector:
  matchLabels: {team: shop}
  matchExpressions:
  - {key: tier, operator: In, values: [front, back]}
  - {key: legacy, operator: DoesNotExist}
scopes: ["orders:*", "{namespace}:{name}:read"]
audiences: ["https://api.shop.example"]
resourceAudiences: ["*"]
customers: ["*"]
customerGroups: [retail]
redirectURIs: {hosts: ["*.shop.example"], schemes: [https, http]}
clientIDs: ["{namespace}.*"]
dnsNames: ["*.{namespace}.svc"]
grantTypes: [client_credentials]
tokenEndpointAuthMethods: [private_key_jwt]
kinds: [certificate, serviceAccount]
keyTypes: [ECDSAP256]
durations: {certificate: {min: 1h, max: 90d}, accessToken: {max: 1h}}
limits: {registrationsPerNamespace: 10, credentials: 4}
approvalRequired: {scopes: ["orders:write"]}
onViolation: Withdraw
"#,
    ),
    ("RegistrationPolicy", "{namespaceSelector: {}, durations: {clientSecret: {min: 1d, max: 24h}}}"),
    ("RegistrationApproval", "{registration: {namespace: shop, name: storefront}, scopes: ['orders:write']}"),
    (
        "RegistrationApproval",
        "{registration: {namespace: shop, name: storefront}, redirectURIs: ['https://shop.example/cb'], customers: ['*'], expires: '2027-01-01T00:00:00Z', description: by the owner of the API}",
    ),
    ("AuthorizationServer", "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example'}}"),
    (
        "AuthorizationServer",
        "{description: for partners, namespaceSelector: {matchLabels: {partner: 'yes'}}, builtIn: {issuer: 'https://login.example:8443/partners', defaultAudience: 'https://api.example', accessTokenLifetime: 15m, signingAlgorithm: EdDSA, servingNames: [partners.example, 10.0.0.1, '2001:db8::1']}}",
    ),
];

/// Specs that are refused, with what the answer says.
pub(crate) const REFUSED: &[(&str, &str, &[&str])] = &[
    ("RegistrationPolicy", "{}", &["spec.namespaceSelector: Required value"]),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {matchExpressions: [{key: a, operator: In}]}}",
        &["spec.namespaceSelector.matchExpressions[0].values", "In and NotIn need values"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        &["spec.namespaceSelector.matchExpressions[0].values", "Exists and DoesNotExist take none"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {matchExpressions: [{key: a, operator: Near}]}}",
        &["spec.namespaceSelector.matchExpressions[0].operator: Unsupported value", "\"NotIn\""],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, scopes: ['{team}:read']}",
        &["spec.scopes[0]", "should match", "namespace"],
    ),
    ("RegistrationPolicy", "{namespaceSelector: {}, scopes: [a, a]}", &["spec.scopes[1]: Duplicate value"]),
    ("RegistrationPolicy", "{namespaceSelector: {}, redirectURIs: {}}", &["spec.redirectURIs.hosts: Required value"]),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, redirectURIs: {hosts: []}}",
        &["spec.redirectURIs.hosts", "at least 1 items"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, redirectURIs: {hosts: [a], schemes: [ftp]}}",
        &["spec.redirectURIs.schemes[0]: Unsupported value"],
    ),
    ("RegistrationPolicy", "{namespaceSelector: {}, kinds: [password]}", &["spec.kinds[0]: Unsupported value"]),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {clientSecret: {min: 30d, max: 1w}}}",
        &["spec.durations.clientSecret.max", "max must not be shorter than min"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {accessToken: {min: 0s}}}",
        &["spec.durations.accessToken.min", "must be longer than 0s"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {certificate: {max: 1097d}}}",
        &["spec.durations.certificate.max", "must be at most 1096d"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {certificate: {max: 4y}}}",
        &["spec.durations.certificate.max"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, limits: {credentials: 17}}",
        &["spec.limits.credentials", "should be less than or equal to 16"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, limits: {registrationsPerNamespace: -1}}",
        &["spec.limits.registrationsPerNamespace", "should be greater than or equal to 0"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, limits: {credentials: 1.5}}",
        &["spec.limits.credentials", "must be of type integer"],
    ),
    ("RegistrationPolicy", "{namespaceSelector: {}, onViolation: Delete}", &["spec.onViolation: Unsupported value"]),
    ("RegistrationApproval", "{scopes: [a]}", &["spec.registration: Required value"]),
    (
        "RegistrationApproval",
        "{registration: {namespace: shop, name: storefront}}",
        &["spec", "an approval approves something"],
    ),
    (
        "RegistrationApproval",
        "{registration: {name: storefront}, scopes: [a]}",
        &["spec.registration.namespace: Required value"],
    ),
    (
        "RegistrationApproval",
        "{registration: {namespace: shop, name: storefront}, scopes: ['a b']}",
        &["spec.scopes[0]", "should match"],
    ),
    (
        "RegistrationApproval",
        "{registration: {namespace: Shop, name: storefront}, scopes: [a]}",
        &["spec.registration.namespace", "should match"],
    ),
    (
        "RegistrationApproval",
        "{registration: {namespace: shop, name: storefront}, redirectURIs: ['http://shop.example/cb']}",
        &["spec.redirectURIs[0]", "use https"],
    ),
    (
        "RegistrationApproval",
        "{registration: {namespace: shop, name: storefront}, scopes: [a], expires: tomorrow}",
        &["spec.expires"],
    ),
    ("AuthorizationServer", "{namespaceSelector: {}}", &["spec", "set the type of the server: builtIn"]),
    (
        "AuthorizationServer",
        "{builtIn: {issuer: 'https://partners.example'}}",
        &["spec.namespaceSelector: Required value"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example/'}}",
        &["spec.builtIn.issuer", "without trailing slash"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example/.well-known'}}",
        &["spec.builtIn.issuer", "beginning with a dot"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', accessTokenLifetime: 25h}}",
        &["spec.builtIn.accessTokenLifetime", "must be at most 24h"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', accessTokenLifetime: 0s}}",
        &["spec.builtIn.accessTokenLifetime", "must be longer than 0s"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', servingNames: ['*.example']}}",
        &["spec.builtIn.servingNames[0]", "write a DNS name in lower case without wildcard, or an IP address"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', servingNames: ['::ffff:10.0.0.1']}}",
        &["spec.builtIn.servingNames[0]", "or an IP address"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', servingNames: ['fe80::1%eth0']}}",
        &["spec.builtIn.servingNames[0]", "or an IP address"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', signingAlgorithm: HS256}}",
        &["spec.builtIn.signingAlgorithm: Unsupported value", "\"EdDSA\""],
    ),
];

/// An object of these tables.
pub(crate) fn object(kind: &str, name: &str, spec: &str) -> Value {
    let spec: Value = serde_yaml::from_str(spec).unwrap();
    json!({"apiVersion": "appreg.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
