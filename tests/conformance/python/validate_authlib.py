"""The same with Authlib's own validator, which knows neither EdDSA nor tokens that are bound to a certificate."""

import requests
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc8414 import get_well_known_url
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet


class AccessTokens(JWTBearerTokenValidator):
    def __init__(self, issuer, audience, ca=True):
        super().__init__(issuer, audience)
        metadata = requests.get(get_well_known_url(issuer, external=True), verify=ca, timeout=5).json()
        self.jwks = KeySet.import_key_set(requests.get(metadata["jwks_uri"], verify=ca, timeout=5).json())

    def get_jwks(self):
        return self.jwks

    def validate(self, token, certificate=None):
        try:
            claims = self.authenticate_token(token)
            self.validate_token(claims, [], None)
        except OAuth2Error as error:
            raise ValueError(error.error) from error
        if "cnf" in claims:
            raise ValueError("it is bound")
        return claims
