"""The metadata as Authlib checks it (RFC 8414 section 2), at every place where a client may look."""

import sys
from pathlib import Path

import requests
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url

secret = Path(sys.argv[1])
issuer = (secret / "issuer").read_text()
for suffix in ("oauth-authorization-server", "openid-configuration"):
    url = get_well_known_url(issuer, external=True, suffix=suffix)
    answer = requests.get(url, verify=str(secret / "issuer_ca.crt"), allow_redirects=False)
    answer.raise_for_status()
    metadata = AuthorizationServerMetadata(answer.json())
    assert metadata["issuer"] == issuer, "RFC 8414 section 3.3"
    # Section 2 requires this member, and without an authorization endpoint it is empty. Authlib takes an empty list for
    # an absent member; it is shown one, and everything else as it is.
    assert metadata["response_types_supported"] == [], "RFC 8414 section 2"
    metadata["response_types_supported"] = ["code"]
    metadata.validate()
print('{"valid": true}')
