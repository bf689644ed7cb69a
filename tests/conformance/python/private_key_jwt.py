"""private_key_jwt with Authlib: the key of a certificate signs, and never leaves the application."""

import sys
import time
from pathlib import Path

from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

secret, api = Path(sys.argv[1]), sys.argv[2]


def field(name):
    return (secret / name).read_text()


class Assertion(PrivateKeyJWT):
    """The audience is the issuer, not the token endpoint; one assertion is used once, within a minute."""

    def sign(self, auth, token_endpoint):
        self.headers = {}
        self.claims = {"exp": int(time.time()) + 60}
        return super().sign(auth, field("issuer"))


session = OAuth2Session(
    client_id=field("client_id"),
    client_secret=ECKey.import_key(field("tls.key")),
    token_endpoint_auth_method="private_key_jwt",
)
session.register_client_auth_method(Assertion(alg="ES256"))
session.fetch_token(
    field("token_endpoint"),
    grant_type="client_credentials",
    verify=str(secret / "issuer_ca.crt"),
)
answer = session.get(api)
answer.raise_for_status()
print(answer.text)
