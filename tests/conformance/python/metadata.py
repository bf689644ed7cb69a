"""The metadata as Authlib checks it (RFC 8414 section 2, OpenID Connect Discovery section 3), wherever a client may look."""

import sys
from pathlib import Path

import requests
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oidc.discovery import OpenIDProviderMetadata

secret = Path(sys.argv[1])
issuer = (secret / "issuer").read_text()


def metadata(suffix):
    url = get_well_known_url(issuer, external=True, suffix=suffix)
    answer = requests.get(url, verify=str(secret / "issuer_ca.crt"), allow_redirects=False)
    answer.raise_for_status()
    document = answer.json()
    assert document["issuer"] == issuer, "RFC 8414 section 3.3"
    return document


oauth = AuthorizationServerMetadata(metadata("oauth-authorization-server"))
# Section 2 requires this member, and without an authorization endpoint it is empty. Authlib takes an empty list for
# an absent member; it is shown one, and everything else as it is.
assert oauth["response_types_supported"] == [], "RFC 8414 section 2"
oauth["response_types_supported"] = ["code"]
oauth.validate()

openid = OpenIDProviderMetadata(metadata("openid-configuration"))
openid.validate()
# Discovery section 3 requires this member too; Authlib misses it only with the grant types that use it.
answer = requests.get(openid["authorization_endpoint"], verify=str(secret / "issuer_ca.crt"), allow_redirects=False)
assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_response_type"), answer.text
print('{"valid": true}')
