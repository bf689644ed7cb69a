"""Validates access tokens by discovery alone, with joserfc (RFC 9068 section 4, RFC 8705 section 3)."""

import hashlib
import time
from urllib.parse import urlsplit

import requests
from joserfc import jwt
from joserfc.errors import InvalidClaimError, InvalidKeyIdError
from joserfc.jwk import KeySet
from joserfc.util import urlsafe_b64encode

ALGORITHMS = ["ES256", "EdDSA", "RS256"]
FRESH_FOR = 300  # seconds: the max-age of the key set
AGAIN_AFTER = 30  # seconds: for a key that it does not have, not sooner


class AccessTokens:
    """Tokens of one issuer for one audience; `ca` is a file with the issuer's certificate authority."""

    def __init__(self, issuer, audience, ca=True):
        self.ca = ca
        host, path = urlsplit(issuer).netloc, urlsplit(issuer).path
        # RFC 8414 section 3.1: the well-known part stands between host and path.
        metadata = self.fetch(f"https://{host}/.well-known/oauth-authorization-server{path}")
        if metadata["issuer"] != issuer:
            raise ValueError("the metadata is another issuer's")
        self.jwks_uri = metadata["jwks_uri"]
        self.fetch_keys()
        required = {name: {"essential": True} for name in ("exp", "iat", "sub", "client_id", "jti")}
        exact = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": audience}}
        self.rules = jwt.JWTClaimsRegistry(leeway=60, **required, **exact)

    def fetch(self, url):
        answer = requests.get(url, verify=self.ca, timeout=5, allow_redirects=False)
        answer.raise_for_status()
        return answer.json()

    def fetch_keys(self):
        keys = KeySet.import_key_set(self.fetch(self.jwks_uri)).keys
        self.keys, self.fetched_at = {key.kid: key for key in keys}, time.monotonic()

    def key(self, token):
        kid, age = token.headers().get("kid"), time.monotonic() - self.fetched_at
        if age > FRESH_FOR or (age > AGAIN_AFTER and kid not in self.keys):
            try:
                self.fetch_keys()
            except requests.RequestException:
                pass  # what is known goes on
        if kid not in self.keys:
            raise InvalidKeyIdError()
        return self.keys[kid]

    def validate(self, token, certificate=None):
        """The claims of `token`; `certificate` is the caller's, in DER. Raises ValueError or JoseError."""
        decoded = jwt.decode(token, self.key, algorithms=ALGORITHMS)
        if decoded.header.get("typ") != "at+jwt":
            raise InvalidClaimError("typ")
        self.rules.validate(decoded.claims)
        # A bound token is good with its certificate alone.
        if "cnf" in decoded.claims:
            thumbprint = urlsafe_b64encode(hashlib.sha256(certificate or b"").digest()).decode()
            if certificate is None or decoded.claims["cnf"].get("x5t#S256") != thumbprint:
                raise InvalidClaimError("cnf")
        return decoded.claims
