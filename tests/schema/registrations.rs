//! Registrations: specs that are accepted, specs that are refused, and changes.

use appreg::api::{Entry, Kind, secret_name};

/// Specs that are accepted, as YAML.
pub(crate) const ACCEPTED: &[(&str, &str)] = &[
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
clientType: Confidential
redirectURIs: [https://shop.example/callback, "http://localhost:8000"]
servedAudiences: [https://shop.example]
postLogoutRedirectURIs: ["http://127.0.0.1:8000/bye", "http://[::1]:8000/bye"]
grantTypes: [client_credentials, authorization_code, refresh_token]
tokenEndpointAuthMethod: client_secret_basic
scopes: [profile]
apis:
- {audience: https://api.shop.example, scopes: [orders:read, orders:write]}
- {audience: invoices}
customerScope: {type: Groups, groups: [emea-retail]}
authorizationServerRef: {name: default}
deletionPolicy: Orphan
secretTemplate:
  labels: {app.kubernetes.io/name: shop, team.example/owner: web}
  annotations: {reloader.example.com/match: "true", note: "any text, also with spaces"}
  fields: {client-secret: client_secret, CLIENT_ID: client_id, .hidden: issuer_ca.crt, cert.pem: tls.crt}
rotateMintedBefore: "2026-11-22T07:00:00Z"
revokeMintedBefore: "2026-11-22T08:00:00.5+01:00"
credentials:
- {name: web, description: web tier, effectiveDuration: 365d, renewBefore: 30d, clientSecret: {}}
- name: mtls
  effectiveDuration: 90d
  secretName: storefront-mtls
  certificate: {privateKey: {algorithm: ECDSA, size: 256}, dnsNames: [storefront.shop.svc, "*.storefront.shop.svc"]}
- {name: partner, publicKey: {pem: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}}
- {name: api, effectiveDuration: 1h, accessToken: {audience: https://api.shop.example, scopes: [orders:read]}}
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
    ("audiences to serve", "{servedAudiences: [https://api.shop.example, orders]}"),
    (
        "a public client with a code",
        "{clientType: Public, redirectURIs: [https://shop.example/cb], grantTypes: [authorization_code, refresh_token]}",
    ),
    ("a public client", "{clientType: Public, redirectURIs: [https://shop.example/cb], tokenEndpointAuthMethod: none}"),
    ("a confidential client that says so", "{clientType: Confidential, credentials: [{name: a, clientSecret: {}}]}"),
    ("every size of a private key", EVERY_PRIVATE_KEY),
    (
        "the same scope at two APIs and at the server",
        "{scopes: [read], apis: [{audience: a, scopes: [read]}, {audience: b, scopes: [read]}]}",
    ),
    (
        "128 scopes at two APIs",
        "{apis: [{audience: a, scopes: ITEMS_64}, {audience: b, scopes: ITEMS_64}, {audience: c}]}",
    ),
    (
        "64 DNS names of two certificates",
        "{credentials: [{name: a, secretName: a, certificate: {dnsNames: ITEMS_32}}, {name: b, secretName: b, certificate: {dnsNames: ITEMS_32}}, {name: c, certificate: {}}]}",
    ),
    ("an audience with an asterisk, which is no glob here", "{apis: [{audience: 'https://*.example'}]}"),
    (
        "a token for the server's default audience",
        "{credentials: [{name: t, accessToken: {audience: a, scopes: [b]}}]}",
    ),
    (
        "sixteen further fields, and one source twice",
        "{secretTemplate: {fields: {A: client_id, B: client_id, C: client_secret, D: previous_client_secret, E: tls.crt, F: tls.key, G: ca.crt, H: access_token, I: token_type, J: expires_at, K: scope, L: issuer, M: token_endpoint, N: jwks_uri, O: token_endpoint_auth_method, P: issuer_ca.crt}}}",
    ),
    ("a further field with a name of 252 characters", "{secretTemplate: {fields: {CHARACTERS_252: client_id}}}"),
    ("a further field that differs from ours in case alone", "{secretTemplate: {fields: {Client_ID: client_id}}}"),
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
    ("a host in capitals", "{clientURI: 'https://SHOP.example/'}"),
    ("a port beyond all ports", "{clientURI: 'https://shop.example:99999/'}"),
    ("http on a loopback address of IPv6", "{redirectURIs: ['http://[::1]/cb']}"),
    ("the last second of a day", "{rotateMintedBefore: '2026-12-31T23:59:59.999999999-23:59'}"),
    (
        "a time that means never",
        "{rotateMintedBefore: '9999-12-31T23:59:59Z', revokeMintedBefore: '9999-12-31T23:59:59-23:59'}",
    ),
    (
        "times with offsets of no zone",
        "{rotateMintedBefore: '2026-12-31T00:00:00+26:00', revokeMintedBefore: '2026-12-31T00:00:00-99:99'}",
    ),
    ("all customers", "{customerScope: {type: All}}"),
    ("a client ID of one character", "{clientID: a}"),
    ("sixteen credentials", SIXTEEN_CREDENTIALS),
];

const EVERY_PRIVATE_KEY: &str = "
credentials:
- {name: default, secretName: a, certificate: {}}
- {name: empty, secretName: b, certificate: {privateKey: {}}}
- {name: size, secretName: c, certificate: {privateKey: {size: 384}}}
- {name: ecdsa, secretName: d, certificate: {privateKey: {algorithm: ECDSA}}}
- {name: p256, secretName: e, certificate: {privateKey: {algorithm: ECDSA, size: 256}}}
- {name: p384, secretName: f, certificate: {privateKey: {algorithm: ECDSA, size: 384}}}
- {name: rsa, secretName: g, certificate: {privateKey: {algorithm: RSA}}}
- {name: rsa2048, secretName: h, certificate: {privateKey: {algorithm: RSA, size: 2048}}}
- {name: rsa3072, secretName: i, certificate: {privateKey: {algorithm: RSA, size: 3072}}}
- {name: rsa4096, secretName: j, certificate: {privateKey: {algorithm: RSA, size: 4096}}}
- {name: ed25519, secretName: k, certificate: {privateKey: {algorithm: Ed25519}}}
";

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
pub(crate) const REFUSED: &[(&str, &str, &[&str])] = &[
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
        &["spec.clientID", "clientID must not be shaped like a UUID", "choose another one"],
    ),
    // URIs
    ("a URI without a scheme", "{clientURI: shop.example}", &["spec.clientURI", "must be an absolute URI"]),
    ("a URI without a host", "{logoURI: 'https:///logo.png'}", &["spec.logoURI", "with a host"]),
    (
        "a URI with a user name",
        "{tosURI: 'https://shop.example@evil.example/'}",
        &["spec.tosURI", "without a user name"],
    ),
    ("a URI with a space", "{policyURI: 'https://shop.example/a b'}", &["spec.policyURI", "must be an absolute URI"]),
    ("a URI beyond ASCII", "{clientURI: 'https://schön.example/'}", &["spec.clientURI", "must be an absolute URI"]),
    (
        "a URI with http",
        "{initiateLoginURI: 'http://shop.example/login'}",
        &["spec.initiateLoginURI", "must be an https URI, or an http URI on localhost"],
    ),
    (
        "a URI with half an escape",
        "{clientURI: 'https://shop.example/%4'}",
        &["spec.clientURI", "must be an absolute URI"],
    ),
    ("a host with an escape", "{clientURI: 'https://%73hop.example/'}", &["spec.clientURI", "must be an absolute URI"]),
    ("a port that is none", "{clientURI: 'https://shop.example:web/'}", &["spec.clientURI", "must be an absolute URI"]),
    ("a host of two ports", "{clientURI: 'https://shop.example:1:2/'}", &["spec.clientURI", "must be an absolute URI"]),
    ("half an address", "{clientURI: 'https://[::1/'}", &["spec.clientURI", "must be an absolute URI"]),
    ("loopback in capitals", "{clientURI: 'http://LOCALHOST/'}", &["spec.clientURI", "must be an https URI"]),
    ("an abbreviated loopback address", "{clientURI: 'http://127.1/'}", &["spec.clientURI", "must be an https URI"]),
    ("a URI with javascript", "{logoURI: 'javascript:alert(1)'}", &["spec.logoURI", "must be an absolute URI"]),
    ("a URI with ftp", "{clientURI: 'ftp://localhost/'}", &["spec.clientURI", "must be an https URI"]),
    (
        "a redirect URI with http off loopback",
        "{redirectURIs: [https://shop.example/cb, 'http://localhost.evil.example/cb']}",
        &[
            "spec.redirectURIs[1]",
            "must be an https URI, or an http URI on localhost, 127.0.0.1 or [::1]: change its scheme or its host",
        ],
    ),
    (
        "a redirect URI with a fragment",
        "{redirectURIs: ['https://shop.example/#cb']}",
        &["spec.redirectURIs[0]", "must have no fragment", "remove it"],
    ),
    (
        "a logout URI with a fragment",
        "{postLogoutRedirectURIs: ['https://shop.example/#']}",
        &["spec.postLogoutRedirectURIs[0]", "must have no fragment", "remove it"],
    ),
    (
        "a redirect URI twice",
        "{redirectURIs: [https://a.example/, https://a.example/]}",
        &["spec.redirectURIs[1]: Duplicate value"],
    ),
    (
        "a page to begin a login without a scheme",
        "{initiateLoginURI: shop.example/login}",
        &["spec.initiateLoginURI", "initiateLoginURI must be an absolute URI"],
    ),
    (
        "a privacy policy with http",
        "{policyURI: 'http://shop.example/privacy'}",
        &["spec.policyURI", "policyURI must be an https URI"],
    ),
    ("terms with http", "{tosURI: 'http://shop.example/terms'}", &["spec.tosURI", "tosURI must be an https URI"]),
    (
        "a redirect URI without a scheme",
        "{redirectURIs: [shop.example/cb]}",
        &["spec.redirectURIs[0]", "redirectURIs must be an absolute URI"],
    ),
    (
        "a logout URI without a scheme",
        "{postLogoutRedirectURIs: [/bye]}",
        &["spec.postLogoutRedirectURIs[0]", "postLogoutRedirectURIs must be an absolute URI"],
    ),
    (
        "a logout URI with http off loopback",
        "{postLogoutRedirectURIs: ['http://shop.example/bye']}",
        &["spec.postLogoutRedirectURIs[0]", "postLogoutRedirectURIs must be an https URI"],
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
        &["spec.grantTypes", "grantTypes must have authorization_code where it has refresh_token: add it"],
    ),
    (
        "a code without redirect URIs",
        "{grantTypes: [authorization_code]}",
        &["spec.grantTypes", "redirectURIs must have an item where grantTypes has authorization_code: add one"],
    ),
    (
        "an unknown method",
        "{tokenEndpointAuthMethod: basic}",
        &["spec.tokenEndpointAuthMethod: Unsupported value", "\"tls_client_auth\""],
    ),
    (
        "the method none with credentials",
        "{tokenEndpointAuthMethod: none, credentials: [{name: a, clientSecret: {}}]}",
        &["spec.tokenEndpointAuthMethod", NOT_NONE],
    ),
    (
        "the method none with omitted credentials",
        "{tokenEndpointAuthMethod: none}",
        &["spec.tokenEndpointAuthMethod", NOT_NONE],
    ),
    (
        "the method none of a client that says it is confidential",
        "{clientType: Confidential, tokenEndpointAuthMethod: none, redirectURIs: [https://a.example/]}",
        &["spec.tokenEndpointAuthMethod", NOT_NONE],
    ),
    (
        "another method for a public client",
        "{clientType: Public, tokenEndpointAuthMethod: client_secret_basic, redirectURIs: [https://a.example/]}",
        &[
            "spec.tokenEndpointAuthMethod",
            "tokenEndpointAuthMethod must be none for clientType Public: set it, leave it out, or set clientType: Confidential",
        ],
    ),
    (
        "a public client without redirect URIs",
        "{clientType: Public}",
        &[
            "spec.redirectURIs",
            "redirectURIs must have an item for clientType Public: add one, or set clientType: Confidential",
        ],
    ),
    (
        "a public client with an empty list of redirect URIs",
        "{clientType: Public, redirectURIs: []}",
        &["spec.redirectURIs", "redirectURIs must have an item for clientType Public"],
    ),
    (
        "a public client with credentials",
        "{clientType: Public, redirectURIs: [https://a.example/], credentials: [{name: a, clientSecret: {}}]}",
        &[
            "spec.credentials",
            "credentials must not be set for clientType Public: remove them, or set clientType: Confidential",
        ],
    ),
    ("no credentials, which once meant a public client", "{credentials: []}", EMPTY_CREDENTIALS),
    (
        "no credentials with redirect URIs",
        "{credentials: [], redirectURIs: [https://a.example/], grantTypes: [authorization_code]}",
        EMPTY_CREDENTIALS,
    ),
    (
        "no credentials of a public client",
        "{clientType: Public, credentials: [], redirectURIs: [https://a.example/]}",
        EMPTY_CREDENTIALS,
    ),
    (
        "an unknown type of client",
        "{clientType: Trusted}",
        &["spec.clientType: Unsupported value", "\"Confidential\"", "\"Public\""],
    ),
    // scopes, audiences, customers
    ("a scope with a space", "{scopes: ['orders read']}", &["spec.scopes[0]", "should match"]),
    ("a scope with a quote", "{scopes: ['a\"b']}", &["spec.scopes[0]", "should match"]),
    ("a scope with a backslash", "{scopes: ['a\\b']}", &["spec.scopes[0]", "should match"]),
    ("a scope beyond ASCII", "{scopes: ['ä']}", &["spec.scopes[0]", "should match"]),
    ("an empty scope", "{scopes: ['']}", &["spec.scopes[0]", "at least 1 char"]),
    ("a scope twice", "{scopes: [a, a]}", &["spec.scopes[1]: Duplicate value"]),
    ("65 scopes", "{scopes: MANY}", &["spec.scopes: Too many", "64"]),
    ("a scope with an asterisk", "{scopes: ['orders:*']}", &["spec.scopes[0]", NO_GLOB]),
    ("the scope *", "{scopes: [a, '*']}", &["spec.scopes[1]", NO_GLOB]),
    ("an API without an audience", "{apis: [{scopes: [a]}]}", &["spec.apis[0].audience: Required value"]),
    ("an API that is a text", "{apis: [https://api.example]}", &["spec.apis[0]", "must be of type object"]),
    ("an empty audience", "{apis: [{audience: ''}]}", &["spec.apis[0].audience", "at least 1 char"]),
    ("an audience with a quote", "{apis: [{audience: '\"'}]}", &["spec.apis[0].audience", "should match"]),
    ("a long audience", "{apis: [{audience: LONG}]}", &["spec.apis[0].audience: Too long", "256"]),
    (
        "an API twice",
        "{apis: [{audience: a, scopes: [x]}, {audience: a, scopes: [y]}]}",
        &["spec.apis[1]: Duplicate value", "\"audience\":\"a\""],
    ),
    ("17 APIs", "{apis: MANY_APIS}", &["spec.apis: Too many", "16"]),
    (
        "a scope at an API with a space",
        "{apis: [{audience: a, scopes: ['a b']}]}",
        &["spec.apis[0].scopes[0]", "should match"],
    ),
    (
        "a scope at an API with an asterisk",
        "{apis: [{audience: a, scopes: ['*']}]}",
        &["spec.apis[0].scopes[0]", NO_GLOB],
    ),
    (
        "a scope at an API twice",
        "{apis: [{audience: a, scopes: [b, b]}]}",
        &["spec.apis[0].scopes[1]: Duplicate value"],
    ),
    (
        "129 scopes at three APIs",
        "{apis: [{audience: a, scopes: ITEMS_43}, {audience: b, scopes: ITEMS_43}, {audience: c, scopes: ITEMS_43}]}",
        &["spec.apis", "apis must have at most 128 scopes in all: remove some, or make another registration for them"],
    ),
    ("65 scopes at an API", "{apis: [{audience: a, scopes: MANY}]}", &["spec.apis[0].scopes: Too many", "64"]),
    (
        "customers that are not listed",
        "{customerScope: {type: Customers}}",
        &["spec.customerScope.customers", "customers must have an item for type Customers: list at least one"],
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
        &["spec.customerScope.groups", "groups must have an item for type Groups", "spec.customerScope.customers"],
    ),
    (
        "groups with another type",
        "{customerScope: {type: Customers, customers: [a], groups: [b]}}",
        &["spec.customerScope.groups", "remove it, or set that type"],
    ),
    (
        "a customer named *",
        "{customerScope: {type: Customers, customers: ['*']}}",
        &["spec.customerScope.customers[0]", NO_CUSTOMER_GLOB],
    ),
    (
        "a customer with an asterisk",
        "{customerScope: {type: Customers, customers: [acme, 'globex-*']}}",
        &["spec.customerScope.customers[1]", NO_CUSTOMER_GLOB],
    ),
    (
        "a group with an asterisk",
        "{customerScope: {type: Groups, groups: ['emea-*']}}",
        &["spec.customerScope.groups[0]", NO_CUSTOMER_GLOB],
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
        &["spec.secretTemplate.labels", "names must not be of appreg.dev", "remove them"],
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
        &["spec.secretTemplate.labels", "(app.kubernetes.io/name, part-of, component and version are allowed)"],
    ),
    (
        "the label instance",
        "{secretTemplate: {labels: {app.kubernetes.io/instance: x}}}",
        &["spec.secretTemplate.labels", "are allowed"],
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
        &["spec.secretTemplate.labels", "names of labels and annotations must have at most 63 characters"],
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
    (
        "a further field with the name of one of ours",
        "{secretTemplate: {fields: {client_id: client_secret}}}",
        &["spec.secretTemplate.fields", "the field client_id must have another name", "rename it"],
    ),
    (
        "a further field with the name of one of ours beside others",
        "{secretTemplate: {fields: {A: client_id, issuer_ca.crt: ca.crt, z: scope}}}",
        &["spec.secretTemplate.fields", "the field issuer_ca.crt must have another name"],
    ),
    (
        "a further field of something that no Secret has",
        "{secretTemplate: {fields: {PASSWORD: password}}}",
        &["spec.secretTemplate.fields.PASSWORD: Unsupported value", "\"client_secret\""],
    ),
    (
        "a further field of another further field",
        "{secretTemplate: {fields: {A: client_id, B: A}}}",
        &["spec.secretTemplate.fields.B: Unsupported value"],
    ),
    ("a further field with a space", "{secretTemplate: {fields: {'client id': client_id}}}", FIELD_NAME),
    ("a further field with a slash", "{secretTemplate: {fields: {a/b: client_id}}}", FIELD_NAME),
    ("a further field beyond ASCII", "{secretTemplate: {fields: {ä: client_id}}}", FIELD_NAME),
    ("a further field that is the directory", "{secretTemplate: {fields: {..: client_id}}}", FIELD_NAME),
    ("a further field without a name", "{secretTemplate: {fields: {'': client_id}}}", FIELD_NAME),
    (
        "a further field with a name of 253 characters",
        "{secretTemplate: {fields: {CHARACTERS_253: client_id}}}",
        FIELD_NAME,
    ),
    ("17 further fields", "{secretTemplate: {fields: MANY_FIELDS}}", &["spec.secretTemplate.fields: Too many", "16"]),
    // types
    ("a display name that is a number", "{displayName: 1}", &["spec.displayName", "must be of type string"]),
    ("a list that is a text", "{scopes: a}", &["spec.scopes", "must be of type array"]),
    ("an item that is null", "{contacts: [null]}", &["spec.contacts[0]", "must be of type string"]),
    ("an entry that is a text", "{credentials: [a]}", &["spec.credentials[0]", "must be of type object"]),
    // times
    ("a thirteenth month", "{rotateMintedBefore: '2026-13-01T00:00:00Z'}", &["spec.rotateMintedBefore", "date-time"]),
    ("a leap second", "{rotateMintedBefore: '2026-12-31T23:59:60Z'}", &["spec.rotateMintedBefore", "date-time"]),
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
            "must have exactly one of clientSecret, certificate, accessToken, publicKey and serviceAccount",
        ],
    ),
    (
        "an entry of two kinds",
        "{credentials: [{name: a, clientSecret: {}, certificate: {}}]}",
        &["spec.credentials[0]", "must have exactly one of"],
    ),
    (
        "a Secret's name with capitals",
        "{credentials: [{name: a, secretName: Shop, clientSecret: {}}]}",
        &["spec.credentials[0].secretName", "should match"],
    ),
    (
        "an unknown algorithm of a private key",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: DSA}}}]}",
        &["spec.credentials[0].certificate.privateKey.algorithm: Unsupported value", "\"Ed25519\""],
    ),
    (
        "an algorithm with its size",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: ECDSAP256}}}]}",
        &["spec.credentials[0].certificate.privateKey.algorithm: Unsupported value", "\"ECDSA\""],
    ),
    (
        "an ECDSA key of a size that is RSA's",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: ECDSA, size: 2048}}}]}",
        &[PRIVATE_KEY_SIZE, "size must be 256 or 384: use one of them for ECDSA, or leave size out"],
    ),
    (
        "a key of a size that is RSA's without an algorithm",
        "{credentials: [{name: a, certificate: {privateKey: {size: 4096}}}]}",
        &[PRIVATE_KEY_SIZE, "size must be 256 or 384"],
    ),
    (
        "an ECDSA key on a curve that is not served",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: ECDSA, size: 521}}}]}",
        &[PRIVATE_KEY_SIZE, "size must be 256 or 384"],
    ),
    (
        "a short RSA key",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: RSA, size: 1024}}}]}",
        &[PRIVATE_KEY_SIZE, "size must be 2048, 3072 or 4096: use one of them for RSA, or leave size out"],
    ),
    (
        "an RSA key of a size that is ECDSA's",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: RSA, size: 256}}}]}",
        &[PRIVATE_KEY_SIZE, "size must be 2048, 3072 or 4096"],
    ),
    (
        "an Ed25519 key with a size",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: Ed25519, size: 256}}}]}",
        &[PRIVATE_KEY_SIZE, "size must not be set for Ed25519, which has one size: remove it"],
    ),
    (
        "a huge RSA key",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: RSA, size: 8192}}}]}",
        &[PRIVATE_KEY_SIZE, "should be less than or equal to 4096"],
    ),
    (
        "half a bit",
        "{credentials: [{name: a, certificate: {privateKey: {size: 256.5}}}]}",
        &[PRIVATE_KEY_SIZE, "must be of type integer"],
    ),
    (
        "a DNS name with a wildcard inside",
        "{credentials: [{name: a, certificate: {dnsNames: ['a.*.svc']}}]}",
        &["spec.credentials[0].certificate.dnsNames[0]", "should match"],
    ),
    (
        "66 DNS names of three certificates",
        "{credentials: [{name: a, secretName: a, certificate: {dnsNames: ITEMS_22}}, {name: b, secretName: b, certificate: {dnsNames: ITEMS_22}}, {name: c, certificate: {dnsNames: ITEMS_22}}]}",
        &[
            "spec.credentials",
            "credentials must have at most 64 dnsNames in all: remove some, or make another registration",
        ],
    ),
    (
        "a token scope with a space",
        "{credentials: [{name: a, accessToken: {scopes: ['a b']}}]}",
        &["spec.credentials[0].accessToken.scopes[0]", "should match"],
    ),
    (
        "a token scope with an asterisk",
        "{credentials: [{name: a, accessToken: {scopes: ['orders:*']}}]}",
        &["spec.credentials[0].accessToken.scopes[0]", NO_GLOB],
    ),
    (
        "a token for a list of audiences",
        "{credentials: [{name: a, accessToken: {audience: [a]}}]}",
        &["spec.credentials[0].accessToken.audience", "must be of type string"],
    ),
    (
        "a token for an audience with a space",
        "{credentials: [{name: a, accessToken: {audience: 'a b'}}]}",
        &["spec.credentials[0].accessToken.audience", "should match"],
    ),
    // what is given
    ("an audience to serve with a quote", "{servedAudiences: ['\"']}", &["spec.servedAudiences[0]", "should match"]),
    ("17 audiences to serve", "{servedAudiences: MANY}", &["spec.servedAudiences: Too many", "16"]),
    (
        "a public key without a file",
        "{credentials: [{name: a, publicKey: {}}]}",
        &["spec.credentials[0].publicKey", "must have exactly one of pem and der"],
    ),
    (
        "a public key in two forms",
        "{credentials: [{name: a, publicKey: {pem: '-----BEGIN PUBLIC KEY-----', der: 'MAA='}}]}",
        &["spec.credentials[0].publicKey", "must have exactly one of pem and der"],
    ),
    (
        "a private key",
        "{credentials: [{name: a, publicKey: {pem: '-----BEGIN EC PRIVATE KEY-----canary'}}]}",
        &[
            "spec.credentials[0].publicKey.pem: Forbidden",
            "must not be a private key: remove it, and treat it as leaked",
        ],
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
            "pem must have a certificate (-----BEGIN CERTIFICATE-----) or a public key",
        ],
    ),
    (
        "PEM where base64 belongs",
        "{credentials: [{name: a, publicKey: {der: '-----BEGIN CERTIFICATE-----canary'}}]}",
        &[
            "spec.credentials[0].publicKey.der: Forbidden",
            "der must be a file in base64: write the output of base64 -w0 app.cer",
            "into pem",
        ],
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
            "secretName must not be set for publicKey or serviceAccount, which are not written to a Secret: remove it",
        ],
    ),
    (
        "a public key with a duration",
        "{credentials: [{name: a, effectiveDuration: 1d, renewBefore: 1h, publicKey: {der: 'MAA='}}]}",
        &[
            "spec.credentials[0].effectiveDuration",
            "effectiveDuration must not be set for publicKey or serviceAccount",
            "spec.credentials[0].renewBefore",
            "renewBefore must not be set for publicKey or serviceAccount",
        ],
    ),
    (
        "a ServiceAccount that is to be rotated",
        "{credentials: [{name: a, rotateMintedBefore: '2026-11-22T07:00:00Z', serviceAccount: {name: x}}]}",
        &[
            "spec.credentials[0].rotateMintedBefore",
            "rotateMintedBefore must not be set for publicKey or serviceAccount, which are not rotated: remove it",
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
        &["spec.credentials[0]", "must have exactly one of"],
    ),
    (
        "a client secret's method without a client secret",
        "{tokenEndpointAuthMethod: client_secret_basic, credentials: [{name: a, serviceAccount: {name: x}}]}",
        &[
            "spec.tokenEndpointAuthMethod",
            "client_secret_basic and client_secret_post need a clientSecret: add one, or set another method",
        ],
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
        "{clientType: Public, redirectURIs: [https://a.example/], grantTypes: [client_credentials]}",
        &["spec.grantTypes", "grantTypes must not have client_credentials for clientType Public", "remove it"],
    ),
    // durations
    (
        "a duration in years",
        "{credentials: [{name: a, effectiveDuration: 1y, clientSecret: {}}]}",
        &["spec.credentials[0].effectiveDuration", "[0-9]{1,4}d"],
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
        &[
            "spec.credentials[0].effectiveDuration",
            "effectiveDuration must be at most 24h for an accessToken: shorten it",
        ],
    ),
    (
        "renewal without a duration",
        "{credentials: [{name: a, renewBefore: 1d, clientSecret: {}}]}",
        &["spec.credentials[0].renewBefore", "effectiveDuration must be set where renewBefore is: set it too"],
    ),
    (
        "renewal as long as the duration",
        "{credentials: [{name: a, effectiveDuration: 24h, renewBefore: 1d, clientSecret: {}}]}",
        &["spec.credentials[0].renewBefore", "renewBefore must be shorter than effectiveDuration: shorten it"],
    ),
    (
        "renewal over three years before the end",
        "{credentials: [{name: a, effectiveDuration: 1096d, renewBefore: 1097d, clientSecret: {}}]}",
        &["spec.credentials[0].renewBefore", "renewBefore must be at most 1096d (three years): shorten it"],
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

const NO_GLOB: &str = "scopes must not contain *, which an API could take for a pattern: write each scope";
const NO_CUSTOMER_GLOB: &str =
    "customers and groups must not contain *: write their names, or customerScope.type: All for all customers";
const NOT_NONE: &str =
    "tokenEndpointAuthMethod must not be none for a confidential client: set clientType: Public, or another method";
const EMPTY_CREDENTIALS: &[&str] = &[
    "spec.credentials",
    "credentials must not be empty: set clientType: Public for a client without credentials, or leave credentials out for a client secret and an access token",
];
const PRIVATE_KEY_SIZE: &str = "spec.credentials[0].certificate.privateKey.size";
const FIELD_NAME: &[&str] = &[
    "spec.secretTemplate.fields",
    "names of fields must be at most 252 letters, digits, dots, dashes and underscores, as in every Secret: rename the field",
];

pub(crate) const CONFLICT: &[&str] = &[
    "spec.credentials: Invalid value",
    "credentials one and two must not write the same field of one Secret: give one of them a secretName of its own",
];

/// Changes that are refused: before, after, and what the answer says.
pub(crate) const FIXED: &[(&str, &str, &str, &[&str])] = &[
    ("a client ID is changed", "{clientID: a}", "{clientID: b}", &["spec.clientID", "clientID must stay as it was"]),
    (
        "a client ID is set",
        "{}",
        "{clientID: b}",
        &["spec.clientID", "clientID must stay as it was, also unset: put it back"],
    ),
    ("a client ID is taken away", "{clientID: a}", "{}", &["spec.clientID", "clientID must stay as it was"]),
    (
        "the server is changed",
        "{authorizationServerRef: {name: a}}",
        "{authorizationServerRef: {name: b}}",
        &["spec.authorizationServerRef", "authorizationServerRef must stay as it was"],
    ),
    ("the server is set", "{}", "{authorizationServerRef: {name: b}}", &["spec.authorizationServerRef", "also unset"]),
    ("the server is taken away", "{authorizationServerRef: {name: a}}", "{}", &["spec.authorizationServerRef"]),
    (
        "a kind is changed",
        "{credentials: [{name: a, clientSecret: {}}, {name: b, accessToken: {}}]}",
        "{credentials: [{name: b, certificate: {}}, {name: a, clientSecret: {}}]}",
        &[
            "spec.credentials[0].name",
            "the kind of a credential must stay as it was: give the new credential another name",
        ],
    ),
    (
        "a given kind becomes a minted one",
        "{credentials: [{name: a, serviceAccount: {name: x}}, {name: b, publicKey: {der: 'MAA='}}]}",
        "{credentials: [{name: a, publicKey: {der: 'MAA='}}, {name: b, certificate: {}}]}",
        &["spec.credentials[0].name", "spec.credentials[1].name", "the kind of a credential must stay as it was"],
    ),
    (
        "a Secret's name is changed",
        "{credentials: [{name: a, secretName: x, clientSecret: {}}]}",
        "{credentials: [{name: a, secretName: z, clientSecret: {}}]}",
        &["spec.credentials[0].secretName", "secretName must stay as it was: give the new credential another name"],
    ),
    (
        "a Secret's name is set",
        "{credentials: [{name: a, clientSecret: {}}]}",
        "{credentials: [{name: a, secretName: z, clientSecret: {}}]}",
        &["spec.credentials[0].secretName", "secretName must stay as it was"],
    ),
    (
        "an implied kind is changed",
        "{}",
        "{credentials: [{name: default, certificate: {}}]}",
        &[
            "spec.credentials",
            "credentials must keep what omitted ones are, a clientSecret named default and an accessToken named token",
        ],
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
        &["spec.credentials", "credentials must keep what omitted ones are"],
    ),
];

/// Changes that are accepted.
pub(crate) const CHANGES: &[(&str, &str, &str)] = &[
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
        "a client becomes public and an API takes its scopes along",
        "{scopes: [a], redirectURIs: [https://a.example/]}",
        "{clientType: Public, apis: [{audience: b, scopes: [a]}], redirectURIs: [https://a.example/]}",
    ),
    (
        "a public client becomes confidential",
        "{clientType: Public, redirectURIs: [https://a.example/]}",
        "{redirectURIs: [https://a.example/], credentials: [{name: a, certificate: {privateKey: {algorithm: RSA}}}]}",
    ),
    (
        "a key of another algorithm",
        "{credentials: [{name: a, certificate: {privateKey: {size: 384}}}]}",
        "{credentials: [{name: a, certificate: {privateKey: {algorithm: Ed25519}}}]}",
    ),
    (
        "the server stays named",
        "{authorizationServerRef: {name: a}, clientID: x}",
        "{authorizationServerRef: {name: a}, clientID: x, scopes: [s]}",
    ),
];

/// Specs of two entries in every kind and with every name of a Secret, and whether they would write the same field of
/// one Secret. What is given beside them is in nobody's way.
pub(crate) fn pairs_of_entries() -> Vec<(String, bool)> {
    let secret_names = ["", "secretName: rules,", "secretName: rules-token,", "secretName: x,"];
    let kinds = ["clientSecret", "certificate", "accessToken"];
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
    let pairs = (0..12).flat_map(|first| (0..12).map(move |second| (first, second)));
    pairs
        .map(|(first, second)| {
            let ((yaml_one, one), (yaml_two, two)) = (entry("one", first), entry("two", second));
            let conflict = secret_name(&one, "rules") == secret_name(&two, "rules")
                && (one.kind() == two.kind() || own(&one) || own(&two));
            (format!("credentials: [{yaml_one}, {yaml_two}, {given}]"), conflict)
        })
        .collect()
}

/// Objects with a field that their kind does not have, and that field.
pub(crate) const UNKNOWN_FIELDS: &[(&str, &str)] = &[
    ("{metadata: {name: a}, spec: {displayName: Shop, redirectUris: []}}", "spec.redirectUris"),
    (
        "{metadata: {name: a}, spec: {displayName: Shop, customerScope: {type: All, all: true}}}",
        "spec.customerScope.all",
    ),
    (
        "{metadata: {name: a}, spec: {displayName: Shop, credentials: [{name: a, clientSecret: {length: 1}}]}}",
        "spec.credentials[0].clientSecret.length",
    ),
    ("{metadata: {name: a}, spec: {displayName: Shop}, data: {}}", "data"),
    ("{metadata: {name: a}, spec: {displayName: Shop}, status: {phase: x}}", "status.phase"),
    ("{metadata: {name: a, label: {}}, spec: {displayName: Shop}}", "metadata.label"),
];
