"""tls_client_auth with Requests and Authlib: the token is bound to the certificate, which the API asks for again."""

import sys
from pathlib import Path

from authlib.integrations.requests_client import OAuth2Session

secret, api = Path(sys.argv[1]), sys.argv[2]


def field(name):
    return (secret / name).read_text()


session = OAuth2Session(
    client_id=field("client_id"),
    token_endpoint_auth_method="none",  # in the form, only client_id: the connection proves it
)
session.cert = (str(secret / "tls.crt"), str(secret / "tls.key"))
session.fetch_token(
    field("token_endpoint"),
    grant_type="client_credentials",
    verify=str(secret / "issuer_ca.crt"),
)
answer = session.get(api)
answer.raise_for_status()
print(answer.text)
