"""Validates access tokens by discovery alone, with Authlib (RFC 9068 section 4, RFC 8705 section 3)."""

import hashlib
import time
from urllib.parse import urlsplit

import requests
from authlib.oauth2.rfc6750 import InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet
from joserfc.util import urlsafe_b64encode

KEYS_ARE_FRESH_FOR = 300  # seconds: the key set's max-age


class AccessTokens(JWTBearerTokenValidator):
    """Tokens of one issuer for one audience."""

    def __init__(self, issuer, audience, ca=True):
        super().__init__(issuer, audience)
        self.ca = ca
        host, path = urlsplit(issuer).netloc, urlsplit(issuer).path
        # RFC 8414 section 3.1: the well-known part stands between host and path.
        metadata = self.fetch(f"https://{host}/.well-known/oauth-authorization-server{path}")
        if metadata["issuer"] != issuer:
            raise ValueError("the metadata is another issuer's")
        self.jwks_uri, self.keys, self.fetched_at = metadata["jwks_uri"], None, 0

    def fetch(self, url):
        answer = requests.get(url, verify=self.ca, timeout=5, allow_redirects=False)
        answer.raise_for_status()
        return answer.json()

    def get_jwks(self):
        if time.monotonic() - self.fetched_at > KEYS_ARE_FRESH_FOR or self.keys is None:
            self.keys = KeySet.import_key_set(self.fetch(self.jwks_uri))
            self.fetched_at = time.monotonic()
        return self.keys

    def validate(self, token, scope, certificate=None):
        """The claims of `token`; `certificate` is the caller's, in DER. Raises OAuth2Error."""
        try:
            claims = self.authenticate_token(token)
        except ValueError as error:  # what is no JWT at all
            raise InvalidTokenError() from error
        self.validate_token(claims, [scope], None)
        # A bound token is good with its certificate alone.
        if "cnf" in claims:
            thumbprint = urlsafe_b64encode(hashlib.sha256(certificate or b"").digest()).decode()
            if certificate is None or claims["cnf"].get("x5t#S256") != thumbprint:
                raise InvalidTokenError()
        return claims
