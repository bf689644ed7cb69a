//! What the API server itself accepts and refuses of an `AppRegistration`, and what it says: every rule of the schema.
//!
//! Each refusal names the field and the fix. Creations are dry runs, so that the cases are independent.

use appreg::api::{AppRegistration, Entry, Kind, crds, secret_name};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use serde_json::{Value, json};

use crate::harness;

/// Specs that are accepted, as YAML.
const ACCEPTED: &[(&str, &str)] = &[
    ("a display name is enough", "{}"),
    (
        "the example of the documentation",
        r#"
description: Public web shop
clientID: shop.storefront
clientURI: https://shop.example
logoURI: https://shop.example/logo.png
initiateLoginURI: https://shop.example/login?from=console
policyURI: https://shop.example/privacy#data
tosURI: https://shop.example/terms
contacts: [shop-team@example.com]
redirectURIs: [https://shop.example/callback, "http://localhost:8000"]
resourceAudiences: [https://shop.example]
postLogoutRedirectURIs: ["http://127.0.0.1:8000/bye", "http://[::1]:8000/bye"]
grantTypes: [client_credentials, authorization_code, refresh_token]
tokenEndpointAuthMethod: client_secret_basic
scopes: [orders:read, orders:write]
audiences: [https://api.shop.example]
customerScope: {type: Groups, groups: [emea-retail]}
authorizationServerRef: {name: default}
deletionPolicy: Orphan
secretTemplate:
  labels: {app.kubernetes.io/name: shop, team.example/owner: web}
  annotations: {reloader.example.com/match: "true", note: "any text, also with spaces"}
rotateMintedBefore: "2026-11-22T07:00:00Z"
revokeMintedBefore: "2026-11-22T08:00:00.5+01:00"
credentials:
- {name: web, description: web tier, effectiveDuration: 365d, renewBefore: 30d, clientSecret: {}}
- name: mtls
  effectiveDuration: 90d
  secretName: storefront-mtls
  certificate: {keyType: ECDSAP256, dnsNames: [storefront.shop.svc, "*.storefront.shop.svc"]}
- {name: partner, publicKey: {pem: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}}
- {name: api, effectiveDuration: 1h, accessToken: {scopes: [orders:read]}}
- {name: workload, serviceAccount: {name: storefront}}
"#,
    ),
    (
        "public keys in both forms, one with a revocation",
        "{tokenEndpointAuthMethod: private_key_jwt, credentials: [{name: a, description: x, revokeMintedBefore: '2026-11-22T07:00:00Z', publicKey: {pem: '-----BEGIN PUBLIC KEY-----'}}, {name: b, publicKey: {der: 'MAA='}}, {name: c, publicKey: {der: \"TUFB\\nTUFB\\n\"}}]}",
    ),
    (
        "a ServiceAccount alone",
        "{tokenEndpointAuthMethod: private_key_jwt, credentials: [{name: a, serviceAccount: {name: shop.front}}]}",
    ),
    (
        "an uploaded certificate for mutual TLS",
        "{tokenEndpointAuthMethod: self_signed_tls_client_auth, credentials: [{name: a, publicKey: {der: 'MAA='}}]}",
    ),
    (
        "a minted certificate for mutual TLS",
        "{tokenEndpointAuthMethod: tls_client_auth, credentials: [{name: a, certificate: {}}]}",
    ),
    ("a client secret in the body", "{tokenEndpointAuthMethod: client_secret_post}"),
    ("audiences to serve", "{resourceAudiences: [https://api.shop.example, orders]}"),
    (
        "a public client with a code",
        "{credentials: [], redirectURIs: [https://shop.example/cb], grantTypes: [authorization_code]}",
    ),
    ("a public client", "{credentials: [], redirectURIs: [https://shop.example/cb], tokenEndpointAuthMethod: none}"),
    (
        "the longest durations",
        "{credentials: [{name: a, effectiveDuration: 1096d, renewBefore: 1095d, clientSecret: {}}, {name: t, effectiveDuration: 24h, accessToken: {}}]}",
    ),
    (
        "durations of several units",
        "{credentials: [{name: a, effectiveDuration: 1w2d3h4m5s, renewBefore: 90m, clientSecret: {}}]}",
    ),
    (
        "a client secret and a certificate in one Secret",
        "{credentials: [{name: a, clientSecret: {}}, {name: b, certificate: {}}]}",
    ),
    (
        "two client secrets in a Secret each",
        "{credentials: [{name: a, clientSecret: {}}, {name: b, secretName: other, clientSecret: {}}]}",
    ),
    (
        "a certificate alone in the Secret that is named like the registration",
        "{credentials: [{name: a, secretName: rules, certificate: {}}]}",
    ),
    ("all customers", "{customerScope: {type: All}}"),
    ("a client ID of one character", "{clientID: a}"),
    ("sixteen credentials", SIXTEEN_CREDENTIALS),
];

const SIXTEEN_CREDENTIALS: &str = "
credentials:
- {name: a1, secretName: a1, clientSecret: {}}
- {name: a2, secretName: a2, clientSecret: {}}
- {name: a3, secretName: a3, clientSecret: {}}
- {name: a4, secretName: a4, clientSecret: {}}
- {name: a5, secretName: a5, clientSecret: {}}
- {name: a6, secretName: a6, clientSecret: {}}
- {name: a7, secretName: a7, clientSecret: {}}
- {name: a8, secretName: a8, clientSecret: {}}
- {name: b1, secretName: b1, certificate: {}}
- {name: b2, secretName: b2, certificate: {}}
- {name: b3, secretName: b3, certificate: {}}
- {name: b4, secretName: b4, certificate: {}}
- {name: c1, secretName: c1, accessToken: {}}
- {name: c2, secretName: c2, accessToken: {}}
- {name: c3, secretName: c3, accessToken: {}}
- {name: c4, accessToken: {}}
";

/// Specs that are refused, as YAML, with what the answer says.
const REFUSED: &[(&str, &str, &[&str])] = &[
    ("no display name", "{displayName: null}", &["spec.displayName: Required value"]),
    ("an empty display name", "{displayName: ''}", &["spec.displayName", "at least 1 char"]),
    ("a long display name", "{displayName: LONG}", &["spec.displayName: Too long", "128"]),
    ("a long description", "{description: LONG}", &["spec.description: Too long", "1024"]),
    (
        "a client ID with capitals",
        "{clientID: Shop}",
        &["spec.clientID", "should match '^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$'"],
    ),
    ("a client ID that ends in a dot", "{clientID: shop.}", &["spec.clientID", "should match"]),
    (
        "a client ID like a UUID",
        "{clientID: 7f0c2d4e-1b5a-4c3d-8e9f-0a1b2c3d4e5f}",
        &["spec.clientID", "choose an ID that is not shaped like a UUID"],
    ),
    // URIs
    ("a URI without a scheme", "{clientURI: shop.example}", &["spec.clientURI", "write an absolute URI"]),
    ("a URI without a host", "{logoURI: 'https:///logo.png'}", &["spec.logoURI", "with a host"]),
    (
        "a URI with a user name",
        "{tosURI: 'https://shop.example@evil.example/'}",
        &["spec.tosURI", "without a user name"],
    ),
    ("a URI with a space", "{policyURI: 'https://shop.example/a b'}", &["spec.policyURI", "write an absolute URI"]),
    ("a URI beyond ASCII", "{clientURI: 'https://schön.example/'}", &["spec.clientURI", "write an absolute URI"]),
    (
        "a URI with http",
        "{initiateLoginURI: 'http://shop.example/login'}",
        &["spec.initiateLoginURI", "use https, or http on localhost"],
    ),
    ("a URI with javascript", "{logoURI: 'javascript:alert(1)'}", &["spec.logoURI", "write an absolute URI"]),
    ("a URI with ftp", "{clientURI: 'ftp://localhost/'}", &["spec.clientURI", "use https"]),
    (
        "a redirect URI with http off loopback",
        "{redirectURIs: [https://shop.example/cb, 'http://localhost.evil.example/cb']}",
        &["spec.redirectURIs[1]", "use https, or http on localhost, 127.0.0.1 or [::1]"],
    ),
    (
        "a redirect URI with a fragment",
        "{redirectURIs: ['https://shop.example/#cb']}",
        &["spec.redirectURIs[0]", "remove the fragment"],
    ),
    (
        "a logout URI with a fragment",
        "{postLogoutRedirectURIs: ['https://shop.example/#']}",
        &["spec.postLogoutRedirectURIs[0]", "remove the fragment"],
    ),
    (
        "a redirect URI twice",
        "{redirectURIs: [https://a.example/, https://a.example/]}",
        &["spec.redirectURIs[1]: Duplicate value"],
    ),
    ("33 redirect URIs", "{redirectURIs: MANY}", &["spec.redirectURIs: Too many", "32"]),
    ("9 contacts", "{contacts: MANY}", &["spec.contacts: Too many", "8"]),
    // grants
    (
        "an unknown grant type",
        "{grantTypes: [password]}",
        &["spec.grantTypes[0]: Unsupported value", "\"client_credentials\""],
    ),
    ("no grant type", "{grantTypes: []}", &["spec.grantTypes", "at least 1 items"]),
    (
        "a refresh token without a code",
        "{grantTypes: [client_credentials, refresh_token]}",
        &["spec.grantTypes", "refresh_token needs authorization_code: add it"],
    ),
    (
        "a code without redirect URIs",
        "{grantTypes: [authorization_code]}",
        &["spec.grantTypes", "authorization_code needs redirectURIs: add one"],
    ),
    (
        "an unknown method",
        "{tokenEndpointAuthMethod: basic}",
        &["spec.tokenEndpointAuthMethod: Unsupported value", "\"tls_client_auth\""],
    ),
    (
        "the method none with credentials",
        "{tokenEndpointAuthMethod: none, credentials: [{name: a, clientSecret: {}}]}",
        &["spec.tokenEndpointAuthMethod", "none is for public clients: set credentials: []"],
    ),
    (
        "the method none with omitted credentials",
        "{tokenEndpointAuthMethod: none}",
        &["spec.tokenEndpointAuthMethod", "none is for public clients: set credentials: []"],
    ),
    (
        "another method for a public client",
        "{tokenEndpointAuthMethod: client_secret_basic, credentials: [], redirectURIs: [https://a.example/]}",
        &["spec.tokenEndpointAuthMethod", "a public client (credentials: []) has the method none"],
    ),
    (
        "a public client without redirect URIs",
        "{credentials: []}",
        &["spec.redirectURIs", "add redirectURIs, or add credentials"],
    ),
    // scopes, audiences, customers
    ("a scope with a space", "{scopes: ['orders read']}", &["spec.scopes[0]", "should match"]),
    ("a scope with a quote", "{scopes: ['a\"b']}", &["spec.scopes[0]", "should match"]),
    ("a scope with a backslash", "{scopes: ['a\\b']}", &["spec.scopes[0]", "should match"]),
    ("a scope beyond ASCII", "{scopes: ['ä']}", &["spec.scopes[0]", "should match"]),
    ("an empty scope", "{scopes: ['']}", &["spec.scopes[0]", "at least 1 char"]),
    ("a scope twice", "{scopes: [a, a]}", &["spec.scopes[1]: Duplicate value"]),
    ("65 scopes", "{scopes: MANY}", &["spec.scopes: Too many", "64"]),
    ("an audience with a quote", "{audiences: ['\"']}", &["spec.audiences[0]", "should match"]),
    ("a long audience", "{audiences: [LONG]}", &["spec.audiences[0]: Too long", "256"]),
    (
        "customers that are not listed",
        "{customerScope: {type: Customers}}",
        &["spec.customerScope.customers", "type Customers needs customers"],
    ),
    (
        "an empty list of customers",
        "{customerScope: {type: Customers, customers: []}}",
        &["spec.customerScope.customers", "list at least one"],
    ),
    (
        "customers with another type",
        "{customerScope: {type: All, customers: [acme]}}",
        &["spec.customerScope.customers", "remove it, or set that type"],
    ),
    (
        "groups that are not listed",
        "{customerScope: {type: Groups, customers: [acme]}}",
        &["spec.customerScope.groups", "type Groups needs groups", "spec.customerScope.customers"],
    ),
    (
        "groups with another type",
        "{customerScope: {type: Customers, customers: [a], groups: [b]}}",
        &["spec.customerScope.groups", "remove it, or set that type"],
    ),
    (
        "a customer named *",
        "{customerScope: {type: Customers, customers: ['*']}}",
        &["spec.customerScope.customers[0]", "all customers are customerScope.type: All"],
    ),
    (
        "a group with a backslash",
        "{customerScope: {type: Groups, groups: ['a\\b']}}",
        &["spec.customerScope.groups[0]", "should match"],
    ),
    ("an unknown type of customers", "{customerScope: {type: Some}}", &["spec.customerScope.type: Unsupported value"]),
    ("a server without a name", "{authorizationServerRef: {}}", &["spec.authorizationServerRef.name: Required value"]),
    ("an unknown deletion policy", "{deletionPolicy: Keep}", &["spec.deletionPolicy: Unsupported value", "\"Orphan\""]),
    // what goes onto Secrets
    (
        "a label of appreg",
        "{secretTemplate: {labels: {appreg.dev/registration-uid: x}}}",
        &["spec.secretTemplate.labels", "remove names of appreg.dev"],
    ),
    (
        "a label of Argo CD",
        "{secretTemplate: {labels: {argocd.argoproj.io/instance: x}}}",
        &["spec.secretTemplate.labels", "argoproj.io"],
    ),
    (
        "an annotation of Argo CD",
        "{secretTemplate: {annotations: {argocd.argoproj.io/tracking-id: x}}}",
        &["spec.secretTemplate.annotations", "argoproj.io"],
    ),
    (
        "a label of Flux",
        "{secretTemplate: {labels: {kustomize.toolkit.fluxcd.io/name: x}}}",
        &["spec.secretTemplate.labels", "fluxcd.io"],
    ),
    (
        "an annotation of helm",
        "{secretTemplate: {annotations: {meta.helm.sh/release-name: x}}}",
        &["spec.secretTemplate.annotations", "helm.sh"],
    ),
    (
        "a resource policy of helm",
        "{secretTemplate: {annotations: {helm.sh/resource-policy: keep}}}",
        &["spec.secretTemplate.annotations", "helm.sh"],
    ),
    (
        "the label managed-by",
        "{secretTemplate: {labels: {app.kubernetes.io/managed-by: x}}}",
        &["spec.secretTemplate.labels", "allowed are app.kubernetes.io/name"],
    ),
    (
        "the label instance",
        "{secretTemplate: {labels: {app.kubernetes.io/instance: x}}}",
        &["spec.secretTemplate.labels", "allowed are"],
    ),
    (
        "an annotation of kubernetes",
        "{secretTemplate: {annotations: {kubectl.kubernetes.io/last-applied-configuration: x}}}",
        &["spec.secretTemplate.annotations"],
    ),
    ("a label of k8s", "{secretTemplate: {labels: {node.k8s.io/x: x}}}", &["spec.secretTemplate.labels", "k8s.io"]),
    (
        "a label name with a space",
        "{secretTemplate: {labels: {'a b': x}}}",
        &["spec.secretTemplate.labels", "write names of labels"],
    ),
    (
        "a label name of 64 characters",
        "{secretTemplate: {labels: {CHARACTERS_64: x}}}",
        &["spec.secretTemplate.labels", "at most 63 characters"],
    ),
    (
        "a label value with a space",
        "{secretTemplate: {labels: {a: 'x y'}}}",
        &["spec.secretTemplate.labels.a", "should match"],
    ),
    (
        "a long annotation",
        "{secretTemplate: {annotations: {a: LONG}}}",
        &["spec.secretTemplate.annotations.a: Too long", "4096"],
    ),
    // times
    ("a time without an offset", "{rotateMintedBefore: '2026-11-22T07:00:00'}", &["spec.rotateMintedBefore"]),
    ("a day", "{revokeMintedBefore: '2026-11-22'}", &["spec.revokeMintedBefore"]),
    (
        "a time of an entry that is none",
        "{credentials: [{name: a, clientSecret: {}, rotateMintedBefore: now}]}",
        &["spec.credentials[0].rotateMintedBefore", "date-time"],
    ),
    // entries
    ("an entry without a name", "{credentials: [{clientSecret: {}}]}", &["spec.credentials[0].name: Required value"]),
    (
        "an entry with a tilde",
        "{credentials: [{name: a~b, clientSecret: {}}]}",
        &["spec.credentials[0].name", "should match"],
    ),
    (
        "a long entry name",
        "{credentials: [{name: LONG, clientSecret: {}}]}",
        &["spec.credentials[0].name: Too long", "40"],
    ),
    (
        "an entry name twice",
        "{credentials: [{name: a, clientSecret: {}}, {name: a, certificate: {}}]}",
        &["spec.credentials[1]: Duplicate value", "\"name\":\"a\""],
    ),
    ("17 entries", "{credentials: MANY_ENTRIES}", &["spec.credentials: Too many", "16"]),
    (
        "an entry without a kind",
        "{credentials: [{name: a}]}",
        &[
            "spec.credentials[0]",
            "write exactly one of clientSecret, certificate, accessToken, publicKey and serviceAccount",
        ],
    ),
    (
        "an entry of two kinds",
        "{credentials: [{name: a, clientSecret: {}, certificate: {}}]}",
        &["spec.credentials[0]", "write exactly one of"],
    ),
    (
        "a Secret's name with capitals",
        "{credentials: [{name: a, secretName: Shop, clientSecret: {}}]}",
        &["spec.credentials[0].secretName", "should match"],
    ),
    (
        "an unknown key type",
        "{credentials: [{name: a, certificate: {keyType: DSA}}]}",
        &["spec.credentials[0].certificate.keyType: Unsupported value", "\"Ed25519\""],
    ),
    (
        "a DNS name with a wildcard inside",
        "{credentials: [{name: a, certificate: {dnsNames: ['a.*.svc']}}]}",
        &["spec.credentials[0].certificate.dnsNames[0]", "should match"],
    ),
    (
        "a token scope with a space",
        "{credentials: [{name: a, accessToken: {scopes: ['a b']}}]}",
        &["spec.credentials[0].accessToken.scopes[0]", "should match"],
    ),
    // what is given
    (
        "an audience to serve with a quote",
        "{resourceAudiences: ['\"']}",
        &["spec.resourceAudiences[0]", "should match"],
    ),
    ("17 audiences to serve", "{resourceAudiences: MANY}", &["spec.resourceAudiences: Too many", "16"]),
    (
        "a public key without a file",
        "{credentials: [{name: a, publicKey: {}}]}",
        &["spec.credentials[0].publicKey", "write exactly one of pem and der"],
    ),
    (
        "a public key in two forms",
        "{credentials: [{name: a, publicKey: {pem: '-----BEGIN PUBLIC KEY-----', der: 'MAA='}}]}",
        &["spec.credentials[0].publicKey", "write exactly one of pem and der"],
    ),
    (
        "a private key",
        "{credentials: [{name: a, publicKey: {pem: '-----BEGIN EC PRIVATE KEY-----canary'}}]}",
        &["spec.credentials[0].publicKey.pem: Forbidden", "this is a private key: remove it, and treat it as leaked"],
    ),
    (
        "a private key beside its certificate",
        "{credentials: [{name: a, publicKey: {pem: '-----BEGIN CERTIFICATE----- canary -----BEGIN PRIVATE KEY-----'}}]}",
        &["spec.credentials[0].publicKey.pem: Forbidden", "treat it as leaked"],
    ),
    (
        "a private key in the wrong field",
        "{credentials: [{name: a, publicKey: {der: '-----BEGIN PRIVATE KEY-----canary'}}]}",
        &["spec.credentials[0].publicKey.der: Forbidden", "treat it as leaked"],
    ),
    (
        "another PEM",
        "{credentials: [{name: a, publicKey: {pem: '-----BEGIN CERTIFICATE REQUEST-----canary'}}]}",
        &[
            "spec.credentials[0].publicKey.pem: Forbidden",
            "write a certificate (-----BEGIN CERTIFICATE-----) or a public key",
        ],
    ),
    (
        "PEM where base64 belongs",
        "{credentials: [{name: a, publicKey: {der: '-----BEGIN CERTIFICATE-----canary'}}]}",
        &["spec.credentials[0].publicKey.der: Forbidden", "write the file in base64", "belongs into pem"],
    ),
    (
        "a long file",
        "{credentials: [{name: a, publicKey: {der: LONGEST}}]}",
        &["spec.credentials[0].publicKey.der: Too long", "12288"],
    ),
    (
        "a public key with a Secret",
        "{credentials: [{name: a, secretName: x, publicKey: {der: 'MAA='}}]}",
        &[
            "spec.credentials[0].secretName",
            "publicKey and serviceAccount are not written to a Secret: remove secretName",
        ],
    ),
    (
        "a public key with a duration",
        "{credentials: [{name: a, effectiveDuration: 1d, renewBefore: 1h, publicKey: {der: 'MAA='}}]}",
        &[
            "spec.credentials[0].effectiveDuration",
            "remove effectiveDuration",
            "spec.credentials[0].renewBefore",
            "remove renewBefore",
        ],
    ),
    (
        "a ServiceAccount that is to be rotated",
        "{credentials: [{name: a, rotateMintedBefore: '2026-11-22T07:00:00Z', serviceAccount: {name: x}}]}",
        &[
            "spec.credentials[0].rotateMintedBefore",
            "are not minted: write another one yourself: remove rotateMintedBefore",
        ],
    ),
    (
        "a ServiceAccount without a name",
        "{credentials: [{name: a, serviceAccount: {}}]}",
        &["spec.credentials[0].serviceAccount.name: Required value"],
    ),
    (
        "a ServiceAccount of another namespace",
        "{credentials: [{name: a, serviceAccount: {name: 'other:shop'}}]}",
        &["spec.credentials[0].serviceAccount.name", "should match"],
    ),
    (
        "a key and a ServiceAccount in one entry",
        "{credentials: [{name: a, publicKey: {der: 'MAA='}, serviceAccount: {name: x}}]}",
        &["spec.credentials[0]", "write exactly one of"],
    ),
    (
        "a client secret's method without a client secret",
        "{tokenEndpointAuthMethod: client_secret_basic, credentials: [{name: a, serviceAccount: {name: x}}]}",
        &["spec.tokenEndpointAuthMethod", "client_secret_basic and client_secret_post need a clientSecret: add one"],
    ),
    (
        "a key's method with the implied client secret",
        "{tokenEndpointAuthMethod: private_key_jwt}",
        &[
            "spec.tokenEndpointAuthMethod",
            "private_key_jwt needs a certificate, a publicKey or a serviceAccount: add one",
        ],
    ),
    (
        "mutual TLS with a ServiceAccount",
        "{tokenEndpointAuthMethod: tls_client_auth, credentials: [{name: a, serviceAccount: {name: x}}, {name: b, publicKey: {der: 'MAA='}}]}",
        &["spec.tokenEndpointAuthMethod", "tls_client_auth needs a certificate: add one"],
    ),
    (
        "mutual TLS with an own certificate that is minted",
        "{tokenEndpointAuthMethod: self_signed_tls_client_auth, credentials: [{name: a, certificate: {}}]}",
        &[
            "spec.tokenEndpointAuthMethod",
            "self_signed_tls_client_auth needs a publicKey that is a certificate: add one",
        ],
    ),
    (
        "a public client with client_credentials",
        "{credentials: [], redirectURIs: [https://a.example/], grantTypes: [client_credentials]}",
        &["spec.grantTypes", "a public client (credentials: []) has nothing to use client_credentials with"],
    ),
    // durations
    (
        "a duration in years",
        "{credentials: [{name: a, effectiveDuration: 1y, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration", "(s|m|h|d|w)"],
    ),
    (
        "a duration of ISO 8601",
        "{credentials: [{name: a, effectiveDuration: P90D, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration"],
    ),
    (
        "a duration with a fraction",
        "{credentials: [{name: a, effectiveDuration: 1.5h, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration", "should match"],
    ),
    (
        "a duration with a space",
        "{credentials: [{name: a, effectiveDuration: 1h 30m, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration", "should match"],
    ),
    (
        "a negative duration",
        "{credentials: [{name: a, effectiveDuration: '-1h', clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration", "should match"],
    ),
    (
        "no duration",
        "{credentials: [{name: a, effectiveDuration: 0s, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration", "must be longer than 0s"],
    ),
    (
        "over three years",
        "{credentials: [{name: a, effectiveDuration: 1097d, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration", "must be at most 1096d"],
    ),
    (
        "a duration that overflows",
        "{credentials: [{name: a, effectiveDuration: 30500568904944w, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration"],
    ),
    (
        "a token for over a day",
        "{credentials: [{name: a, effectiveDuration: 25h, accessToken: {}}]}",
        &["spec.credentials[0].effectiveDuration", "an accessToken lives at most 24h"],
    ),
    (
        "renewal without a duration",
        "{credentials: [{name: a, renewBefore: 1d, clientSecret: {}}]}",
        &["spec.credentials[0].renewBefore", "renewBefore needs effectiveDuration"],
    ),
    (
        "renewal as long as the duration",
        "{credentials: [{name: a, effectiveDuration: 24h, renewBefore: 1d, clientSecret: {}}]}",
        &["spec.credentials[0].renewBefore", "must be shorter than effectiveDuration"],
    ),
    (
        "renewal before no time",
        "{credentials: [{name: a, effectiveDuration: 1d, renewBefore: 0m, clientSecret: {}}]}",
        &["spec.credentials[0].renewBefore", "must be longer than 0s"],
    ),
    // two entries, one field of one Secret
    (
        "two client secrets in the default Secret",
        "{credentials: [{name: one, clientSecret: {}}, {name: two, clientSecret: {}}]}",
        CONFLICT,
    ),
    (
        "two certificates in the default Secret",
        "{credentials: [{name: one, certificate: {}}, {name: two, certificate: {}}]}",
        CONFLICT,
    ),
    (
        "two tokens in the default Secret",
        "{credentials: [{name: one, accessToken: {}}, {name: two, accessToken: {}}]}",
        CONFLICT,
    ),
    (
        "two client secrets in a named Secret",
        "{credentials: [{name: one, secretName: x, clientSecret: {}}, {name: two, secretName: x, clientSecret: {}}]}",
        CONFLICT,
    ),
    (
        "a client secret in a token's Secret",
        "{credentials: [{name: one, secretName: x, accessToken: {}}, {name: two, secretName: x, clientSecret: {}}]}",
        CONFLICT,
    ),
    (
        "a client secret in a token's default Secret",
        "{credentials: [{name: one, secretName: rules-token, clientSecret: {}}, {name: two, accessToken: {}}]}",
        CONFLICT,
    ),
    (
        "a certificate in a token's default Secret",
        "{credentials: [{name: one, accessToken: {}}, {name: two, secretName: rules-token, certificate: {}}]}",
        CONFLICT,
    ),
    (
        "a token in the default Secret",
        "{credentials: [{name: one, secretName: rules, accessToken: {}}, {name: two, certificate: {}}]}",
        CONFLICT,
    ),
    (
        "a client secret in a certificate's own Secret",
        "{credentials: [{name: one, secretName: x, clientSecret: {}}, {name: two, secretName: x, certificate: {}}]}",
        CONFLICT,
    ),
    (
        "a certificate's own Secret that is the default one",
        "{credentials: [{name: one, secretName: rules, certificate: {}}, {name: two, clientSecret: {}}]}",
        CONFLICT,
    ),
    (
        "two certificates in the default Secret, one by name",
        "{credentials: [{name: one, certificate: {}}, {name: two, secretName: rules, certificate: {}}]}",
        CONFLICT,
    ),
    (
        "two client secrets in the default Secret, one by name",
        "{credentials: [{name: one, secretName: rules, clientSecret: {}}, {name: two, clientSecret: {}}]}",
        CONFLICT,
    ),
];

const CONFLICT: &[&str] = &[
    "spec.credentials: Invalid value",
    "credentials one and two would write the same field of one Secret: give one of them a secretName of its own",
];

/// Changes that are refused: before, after, and what the answer says.
const FIXED: &[(&str, &str, &str, &[&str])] = &[
    ("a client ID is changed", "{clientID: a}", "{clientID: b}", &["spec.clientID", "clientID is immutable"]),
    ("a client ID is set", "{}", "{clientID: b}", &["spec.clientID", "clientID is immutable, also from unset to set"]),
    ("a client ID is taken away", "{clientID: a}", "{}", &["spec.clientID", "clientID is immutable"]),
    (
        "the server is changed",
        "{authorizationServerRef: {name: a}}",
        "{authorizationServerRef: {name: b}}",
        &["spec.authorizationServerRef", "authorizationServerRef is immutable"],
    ),
    (
        "the server is set",
        "{}",
        "{authorizationServerRef: {name: b}}",
        &["spec.authorizationServerRef", "also from unset to set"],
    ),
    ("the server is taken away", "{authorizationServerRef: {name: a}}", "{}", &["spec.authorizationServerRef"]),
    (
        "a kind is changed",
        "{credentials: [{name: a, clientSecret: {}}, {name: b, accessToken: {}}]}",
        "{credentials: [{name: b, certificate: {}}, {name: a, clientSecret: {}}]}",
        &["spec.credentials[0].name", "the kind of a credential is fixed for its name: give the new one another name"],
    ),
    (
        "a given kind becomes a minted one",
        "{credentials: [{name: a, serviceAccount: {name: x}}, {name: b, publicKey: {der: 'MAA='}}]}",
        "{credentials: [{name: a, publicKey: {der: 'MAA='}}, {name: b, certificate: {}}]}",
        &["spec.credentials[0].name", "spec.credentials[1].name", "the kind of a credential is fixed"],
    ),
    (
        "a Secret's name is changed",
        "{credentials: [{name: a, secretName: x, clientSecret: {}}]}",
        "{credentials: [{name: a, secretName: z, clientSecret: {}}]}",
        &["spec.credentials[0].secretName", "secretName is fixed for the name of a credential"],
    ),
    (
        "a Secret's name is set",
        "{credentials: [{name: a, clientSecret: {}}]}",
        "{credentials: [{name: a, secretName: z, clientSecret: {}}]}",
        &["spec.credentials[0].secretName", "secretName is fixed"],
    ),
    (
        "an implied kind is changed",
        "{}",
        "{credentials: [{name: default, certificate: {}}]}",
        &["spec.credentials", "omitted credentials are a clientSecret named default and an accessToken named token"],
    ),
    (
        "an implied Secret's name is changed",
        "{}",
        "{credentials: [{name: token, secretName: x, accessToken: {}}]}",
        &["spec.credentials", "use another name for another kind or Secret"],
    ),
    (
        "a written kind gives way to an implied one",
        "{credentials: [{name: token, clientSecret: {}}]}",
        "{}",
        &["spec.credentials", "omitted credentials are"],
    ),
];

/// Changes that are accepted.
const CHANGES: &[(&str, &str, &str)] = &[
    (
        "everything that may be edited",
        "{scopes: [a], credentials: [{name: a, effectiveDuration: 1d, clientSecret: {}}]}",
        "{displayName: Other, scopes: [b], redirectURIs: [https://a.example/], credentials: [{name: a, effectiveDuration: 2d, description: x, clientSecret: {}}, {name: b, accessToken: {}}]}",
    ),
    (
        "implied credentials are written down",
        "{}",
        "{credentials: [{name: token, effectiveDuration: 2h, accessToken: {}}, {name: default, clientSecret: {}}]}",
    ),
    ("written credentials become implied", "{credentials: [{name: a, certificate: {}}]}", "{}"),
    (
        "an entry of another kind takes another name",
        "{credentials: [{name: a, clientSecret: {}}]}",
        "{credentials: [{name: b, certificate: {}}]}",
    ),
    (
        "what is given is replaced",
        "{credentials: [{name: a, serviceAccount: {name: x}}, {name: b, publicKey: {der: 'MAA='}}]}",
        "{credentials: [{name: a, serviceAccount: {name: z}}, {name: b, publicKey: {pem: '-----BEGIN PUBLIC KEY-----'}}]}",
    ),
    (
        "the server stays named",
        "{authorizationServerRef: {name: a}, clientID: x}",
        "{authorizationServerRef: {name: a}, clientID: x, scopes: [s]}",
    ),
];

#[tokio::test]
async fn the_api_server_accepts_what_the_rules_allow_and_nothing_else_and_names_field_and_fix() {
    let registrations = registrations().await;
    let mut wrong = Vec::new();
    for (case, spec) in ACCEPTED {
        if let Err(message) = create(&registrations, "rules", spec).await {
            wrong.push(format!("{case}: should be accepted, but: {message}"));
        }
    }
    for (case, spec, said) in REFUSED {
        expect_refusal(&mut wrong, case, create(&registrations, "rules", spec).await, said);
    }
    let long_name = create(&registrations, &"a".repeat(64), "{}").await;
    expect_refusal(&mut wrong, "a long metadata.name", long_name, &["metadata.name: use at most 63 characters"]);
    if let Err(message) = create(&registrations, &"a".repeat(63), "{credentials: [{name: a, accessToken: {}}]}").await {
        wrong.push(format!("a metadata.name of 63 characters: should be accepted, but: {message}"));
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn two_entries_may_share_a_secret_only_as_a_client_secret_and_a_certificate_without_a_secret_name() {
    let registrations = registrations().await;
    let secret_names = ["", "secretName: rules,", "secretName: rules-token,", "secretName: x,"];
    let kinds = ["clientSecret", "certificate", "accessToken"];
    // What is given beside it is in nobody's way.
    let given = "{name: k, publicKey: {der: 'MAA='}}, {name: l, publicKey: {der: 'MAA='}}, {name: s, serviceAccount: {name: rules}}";
    let entry = |name: &str, which: usize| {
        let yaml = format!("{{name: {name}, {} {}: {{}}}}", secret_names[which / 3], kinds[which % 3]);
        let entry: Entry = serde_yaml::from_str(&yaml).unwrap();
        (yaml, entry)
    };
    let own = |entry: &Entry| match entry.kind().unwrap() {
        Kind::ClientSecret => false,
        Kind::Certificate => entry.secret_name.is_some(),
        Kind::AccessToken => true,
        Kind::PublicKey | Kind::ServiceAccount => panic!("it has no Secret"),
    };
    let mut wrong = Vec::new();
    for (first, second) in (0..12).flat_map(|first| (0..12).map(move |second| (first, second))) {
        let ((yaml_one, one), (yaml_two, two)) = (entry("one", first), entry("two", second));
        let conflict = secret_name(&one, "rules") == secret_name(&two, "rules")
            && (one.kind() == two.kind() || own(&one) || own(&two));
        let spec = format!("credentials: [{yaml_one}, {yaml_two}, {given}]");
        let answer = create(&registrations, "rules", &spec).await;
        match answer {
            Err(message) if conflict => expect_refusal(&mut wrong, &spec, Err(message), CONFLICT),
            Ok(()) if conflict => wrong.push(format!("{spec}: should be refused")),
            Ok(()) => {}
            Err(message) => wrong.push(format!("{spec}: should be accepted, but: {message}")),
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_is_fixed_stays_fixed_and_the_rest_may_be_edited() {
    let registrations = registrations().await;
    let mut wrong = Vec::new();
    for (number, (case, before, after, said)) in FIXED.iter().enumerate() {
        let answer = change(&registrations, &format!("fixed-{number}"), before, after).await;
        expect_refusal(&mut wrong, case, answer, said);
    }
    for (number, (case, before, after)) in CHANGES.iter().enumerate() {
        if let Err(message) = change(&registrations, &format!("change-{number}"), before, after).await {
            wrong.push(format!("{case}: should be accepted, but: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_stored_registration_has_no_defaults_and_a_status_that_says_not_observed() {
    let registrations = registrations().await;
    let stored = registrations.create(&PostParams::default(), &object("bare", "{}")).await.unwrap();
    assert_eq!(stored.data["spec"], json!({"displayName": "Shop"}));
    assert_eq!(stored.data["status"], json!({"observedGeneration": -1}));

    // What is null is dropped rather than stored.
    let nulls = "{scopes: null, customerScope: null, credentials: null, deletionPolicy: null}";
    let stored = registrations.create(&PostParams::default(), &object("nulls", nulls)).await.unwrap();
    assert_eq!(stored.data["spec"], json!({"displayName": "Shop"}));
    let read: AppRegistration = stored.try_parse().unwrap();
    assert_eq!(read.status.unwrap().observed_generation, Some(-1));
}

#[tokio::test]
async fn kubectl_shows_readiness_client_id_and_next_change_and_selects_by_client_id() {
    let registrations = registrations().await;
    let mut object =
        registrations.create(&PostParams::default(), &object("shown", "{clientID: shop.a}")).await.unwrap();
    object.data["status"] = json!({
        "observedGeneration": 1, "clientID": "shop.a", "nextTransitionTime": "2027-01-01T00:00:00Z",
        "authorizationServer": {"name": "default", "issuer": "https://i.example", "tokenEndpoint": "https://i.example/token"},
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Issued", "message": "ok", "lastTransitionTime": "2026-11-22T07:00:00Z"},
            {"type": "Approved", "status": "False", "reason": "ApprovalRequired", "message": "no", "lastTransitionTime": "2026-11-22T07:00:00Z"},
        ],
    });
    registrations.replace_status("shown", &PostParams::default(), &object).await.unwrap();

    let namespace = object.metadata.namespace.unwrap();
    let control_plane = harness::shared().await;
    let wide = ["get", "appreg", "-n", &namespace, "-o", "wide", "--field-selector", "spec.clientID=shop.a"];
    let table = control_plane.kubectl(&wide).await.unwrap().ok().unwrap();
    let cells = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(cells[0], "NAME READY CLIENT ID APPROVED NEXT AGE PROBLEM SERVER MESSAGE");
    let [age] = cells[1].split(' ').filter(|cell| cell.ends_with('s')).collect::<Vec<_>>()[..] else {
        panic!("{table}")
    };
    assert_eq!(cells[1], format!("shown True shop.a False 2027-01-01T00:00:00Z {age} no default ok"));

    let other = ["get", "appreg-all", "-n", &namespace, "-o", "name", "--field-selector", "spec.clientID=shop.b"];
    assert_eq!(control_plane.kubectl(&other).await.unwrap().ok().unwrap(), "");
}

async fn registrations() -> Api<DynamicObject> {
    let control_plane = harness::shared().await;
    let client = control_plane.client("admin");
    apply_crds(&client).await;
    let namespace = control_plane.namespace("rules").await.unwrap();
    Api::namespaced_with(client, &namespace, &ApiResource::erase::<AppRegistration>(&()))
}

async fn apply_crds(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await.unwrap();
        harness::eventually("the CRD is established", async || {
            let crd = api.get(&name).await.map_err(|error| error.to_string())?;
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            let established = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
            if established { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
}

/// A dry run of a creation; the error is the message of the API server.
async fn create(registrations: &Api<DynamicObject>, name: &str, spec: &str) -> Result<(), String> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let object = object(name, spec);
    let answer = registrations.create(&dry_run, &object).await.map_err(message)?;
    // Unknown fields vanish silently: a typo in a case would test nothing.
    assert_eq!(answer.data["spec"], object.data["spec"], "fields vanished");
    Ok(())
}

/// A creation that must succeed, and the dry run of a change.
async fn change(registrations: &Api<DynamicObject>, name: &str, before: &str, after: &str) -> Result<(), String> {
    let created = registrations.create(&PostParams::default(), &object(name, before)).await.map_err(message)?;
    let mut changed = object(name, after);
    changed.metadata.resource_version = created.metadata.resource_version;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    registrations.replace(name, &dry_run, &changed).await.map(|_| ()).map_err(message)
}

fn object(name: &str, spec: &str) -> DynamicObject {
    let texts = (0..70).map(|n| format!("https://shop.example/{n}")).collect::<Vec<_>>();
    let entries = (0..17).map(|n| json!({"name": n.to_string(), "clientSecret": {}})).collect::<Vec<_>>();
    let spec = spec
        .replace("MANY_ENTRIES", &json!(entries).to_string())
        .replace("MANY", &json!(texts).to_string())
        .replace("CHARACTERS_64", &"x".repeat(64))
        .replace("LONGEST", &"x".repeat(13_000))
        .replace("LONG", &"x".repeat(5000));
    let mut all = json!({"displayName": "Shop"});
    let Value::Object(fields) = serde_yaml::from_str(&spec).unwrap() else { panic!("not a map: {spec}") };
    all.as_object_mut().unwrap().extend(fields);
    let mut object = DynamicObject::new(name, &ApiResource::erase::<AppRegistration>(&()));
    object.data = json!({"spec": all});
    object
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => format!("not an answer of the API server: {other}"),
    }
}

fn expect_refusal(wrong: &mut Vec<String>, case: &str, answer: Result<(), String>, said: &[&str]) {
    match answer {
        Ok(()) => wrong.push(format!("{case}: should be refused")),
        Err(message) => {
            if message.contains("canary") {
                wrong.push(format!("{case}: should not repeat what may be a private key, but: {message}"));
            }
            for part in said.iter().filter(|part| !message.contains(**part)) {
                wrong.push(format!("{case}: should say `{part}`, but: {message}"));
            }
        }
    }
}
