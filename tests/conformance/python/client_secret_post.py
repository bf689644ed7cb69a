"""client_secret_post with Authlib."""

import sys
from pathlib import Path

from authlib.integrations.requests_client import OAuth2Session

secret, api = Path(sys.argv[1]), sys.argv[2]


def field(name):
    return (secret / name).read_text()


session = OAuth2Session(
    client_id=field("client_id"),
    client_secret=field("client_secret"),
    token_endpoint_auth_method="client_secret_post",
)
session.fetch_token(
    field("token_endpoint"),
    grant_type="client_credentials",
    verify=str(secret / "issuer_ca.crt"),
)
answer = session.get(api)
answer.raise_for_status()
print(answer.text)
