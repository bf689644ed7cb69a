"""A token for one API, with Authlib: the argument after the API's URL is the resource (RFC 8707)."""

import sys
from pathlib import Path

from authlib.integrations.requests_client import OAuth2Session

secret, api = Path(sys.argv[1]), sys.argv[2]
resource = sys.argv[3] if len(sys.argv) > 3 else None  # Authlib sends one, the last, of several


def field(name):
    return (secret / name).read_text()


session = OAuth2Session(
    client_id=field("client_id"),
    client_secret=field("client_secret"),
    token_endpoint_auth_method="client_secret_basic",
)
session.fetch_token(
    field("token_endpoint"),
    grant_type="client_credentials",
    resource=resource,
    verify=str(secret / "issuer_ca.crt"),
)
answer = session.get(api)
answer.raise_for_status()
print(answer.text)
