"""Revokes a token of one's own, with Authlib (RFC 7009)."""

import sys
from pathlib import Path

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import get_well_known_url

secret, token = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
ca = str(secret / "issuer_ca.crt")


def field(name):
    return (secret / name).read_text()


metadata = requests.get(get_well_known_url(field("issuer"), external=True), verify=ca).json()
session = OAuth2Session(
    client_id=field("client_id"),
    client_secret=field("client_secret"),
    revocation_endpoint_auth_method="client_secret_basic",
)
answer = session.revoke_token(metadata["revocation_endpoint"], token=token, verify=ca)
answer.raise_for_status()
print('{"revoked": true}')
