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
apis:
- {audiences: ["https://api.shop.example", "https://*.{namespace}.svc"], scopes: ["orders:*", "{name}"]}
- {audiences: ["*"]}
- {audiences: ["*"], scopes: []}
servedAudiences: ["*"]
customers: ["*"]
customerGroups: [retail]
redirectURIs: {hosts: ["*.shop.example"], schemes: [https, http]}
clientIDs: ["{namespace}.*"]
dnsNames: ["*.{namespace}.svc"]
grantTypes: [client_credentials]
tokenEndpointAuthMethods: [private_key_jwt]
credentialKinds: [ClientSecret, Certificate, AccessToken, PublicKey, ServiceAccount]
privateKeys: [{algorithm: ECDSA}, {algorithm: RSA, minSize: 3072}, {algorithm: Ed25519, minSize: 256}]
deletionPolicies: [Delete, Orphan]
durations: {certificate: {min: 1h, max: 90d}, accessToken: {max: 1h}, publicKey: {max: 365d}}
limits: {registrationsPerNamespace: 10, credentials: 4}
approvalRequired:
  scopes: ["orders:write"]
  apis: [{audiences: ["https://pay.example"]}, {audiences: ["*"], scopes: ["*:write"]}]
  servedAudiences: ["*"]
  customers: ["*"]
  customerGroups: ["*"]
  redirectURIs: ["*"]
onViolation: Withdraw
"#,
    ),
    ("RegistrationPolicy", "{namespaceSelector: {}, durations: {clientSecret: {min: 1d, max: 24h}}}"),
    ("RegistrationPolicy", "{namespaceSelector: {}, credentialKinds: [], privateKeys: [], deletionPolicies: []}"),
    ("RegistrationApproval", "{registrationRef: {namespace: shop, name: storefront}, scopes: ['orders:write']}"),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, redirectURIs: ['https://shop.example/cb'], customers: ['*'], expirationTime: '2027-01-01T00:00:00Z', description: by the owner of the API}",
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront, uid: 7f0c2d4e-1b5a-4c3d-8e9f-0a1b2c3d4e5f}, apis: [{audience: 'https://api.example', scopes: [a, b]}, {audience: b}], expirationTime: '9999-12-31T23:59:59Z'}",
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, servedAudiences: ['https://api.example'], expirationTime: '9999-12-31T23:59:59-99:99'}",
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, customerGroups: [emea], expirationTime: '2099-12-31T00:00:00.5+26:00'}",
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
        &[
            "spec.namespaceSelector.matchExpressions[0].values",
            "values must have an item for In and NotIn, and none for Exists",
        ],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        &["spec.namespaceSelector.matchExpressions[0].values", "none for Exists and DoesNotExist"],
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
    ("RegistrationPolicy", "{namespaceSelector: {}, apis: ['*']}", &["spec.apis[0]", "must be of type object"]),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, apis: [{scopes: [a]}]}",
        &["spec.apis[0].audiences: Required value"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, apis: [{audiences: []}]}",
        &["spec.apis[0].audiences", "at least 1 items"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, apis: [{audiences: ['{team}']}]}",
        &["spec.apis[0].audiences[0]", "should match", "namespace"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, apis: [{audiences: [a], scopes: ['{team}']}]}",
        &["spec.apis[0].scopes[0]", "should match", "namespace"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, apis: [{audiences: [a], scopes: [b, b]}]}",
        &["spec.apis[0].scopes[1]: Duplicate value"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, servedAudiences: ['{team}']}",
        &["spec.servedAudiences[0]", "should match", "namespace"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, approvalRequired: {apis: [{scopes: [a]}]}}",
        &["spec.approvalRequired.apis[0].audiences: Required value"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, approvalRequired: {apis: [{audiences: [a], scopes: []}]}}",
        &["spec.approvalRequired.apis[0].scopes", "at least 1 items"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, approvalRequired: {servedAudiences: ['{team}']}}",
        &["spec.approvalRequired.servedAudiences[0]", "should match", "namespace"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [password]}",
        &["spec.credentialKinds[0]: Unsupported value", "\"ClientSecret\""],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [ClientSecret, clientSecret]}",
        &["spec.credentialKinds[1]: Unsupported value", "\"ClientSecret\""],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, credentialKinds: [Certificate, Certificate]}",
        &["spec.credentialKinds[1]: Duplicate value"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, privateKeys: [{minSize: 256}]}",
        &["spec.privateKeys[0].algorithm: Required value"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, privateKeys: [{algorithm: ECDSAP256}]}",
        &["spec.privateKeys[0].algorithm: Unsupported value", "\"ECDSA\""],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, privateKeys: [{algorithm: RSA, minSize: 8192}]}",
        &["spec.privateKeys[0].minSize", "should be less than or equal to 4096"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, privateKeys: [{algorithm: RSA, minSize: 2048}, {algorithm: RSA, minSize: 3072}]}",
        &["spec.privateKeys[1]: Duplicate value", "\"algorithm\":\"RSA\""],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, deletionPolicies: [Keep]}",
        &["spec.deletionPolicies[0]: Unsupported value", "\"Orphan\""],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {publicKey: {}}}",
        &["spec.durations.publicKey.max: Required value"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {publicKey: {max: 0s}}}",
        &["spec.durations.publicKey.max", "must be longer than 0s"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {publicKey: {max: 1097d}}}",
        &["spec.durations.publicKey.max", "must be at most 1096d"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {clientSecret: {min: 30d, max: 1w}}}",
        &["spec.durations.clientSecret.max", "max must be at least as long as min: lengthen max, or shorten min"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {accessToken: {min: 0s}}}",
        &["spec.durations.accessToken.min", "must be longer than 0s"],
    ),
    (
        "RegistrationPolicy",
        "{namespaceSelector: {}, durations: {certificate: {min: 1097d}}}",
        &["spec.durations.certificate.min", "min must be at most 1096d (three years): shorten it"],
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
    ("RegistrationApproval", "{scopes: [a]}", &["spec.registrationRef: Required value"]),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}}",
        &["spec", "spec must approve something: list items in one of scopes, apis, servedAudiences"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {name: storefront}, scopes: [a]}",
        &["spec.registrationRef.namespace: Required value"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, scopes: ['a b']}",
        &["spec.scopes[0]", "should match"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: Shop, name: storefront}, scopes: [a]}",
        &["spec.registrationRef.namespace", "should match"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, redirectURIs: ['http://shop.example/cb']}",
        &["spec.redirectURIs[0]", "must be an https URI"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, scopes: [a], expirationTime: tomorrow}",
        &["spec.expirationTime"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, scopes: [a], expirationTime: '2027-01-01'}",
        &["spec.expirationTime"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront, uid: ''}, scopes: [a]}",
        &["spec.registrationRef.uid", "at least 1 char"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, scopes: ['orders:*']}",
        &["spec.scopes[0]", "scopes must not contain *"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, apis: [{scopes: [a]}]}",
        &["spec.apis[0].audience: Required value"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, apis: [{audience: a, scopes: ['*']}]}",
        &["spec.apis[0].scopes[0]", "scopes must not contain *"],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, apis: [{audience: a}, {audience: a}]}",
        &["spec.apis[1]: Duplicate value", "\"audience\":\"a\""],
    ),
    (
        "RegistrationApproval",
        "{registrationRef: {namespace: shop, name: storefront}, servedAudiences: ['\"']}",
        &["spec.servedAudiences[0]", "should match"],
    ),
    ("AuthorizationServer", "{namespaceSelector: {}}", &["spec", "builtIn must be set", "add it"]),
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
        &[
            "spec.builtIn.servingNames[0]",
            "servingNames must be DNS names in lower case without wildcard, or IP addresses: change this one",
        ],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', servingNames: ['::ffff:10.0.0.1']}}",
        &["spec.builtIn.servingNames[0]", "or IP addresses"],
    ),
    (
        "AuthorizationServer",
        "{namespaceSelector: {}, builtIn: {issuer: 'https://partners.example', servingNames: ['fe80::1%eth0']}}",
        &["spec.builtIn.servingNames[0]", "or IP addresses"],
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
