"""A ServiceAccount token as the client assertion, with Requests: no credential is kept anywhere."""

import sys
from pathlib import Path

import requests

volume, api = Path(sys.argv[1]), sys.argv[2]


def field(name):
    return (volume / name).read_text()


answer = requests.post(
    field("token_endpoint"),
    data={
        "grant_type": "client_credentials",
        "client_id": field("client_id"),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": field("sa_token"),  # read again each time: the kubelet replaces it
    },
    verify=str(volume / "issuer_ca.crt"),
)
if not answer.ok:
    sys.exit(answer.text)
access_token = answer.json()["access_token"]

answer = requests.get(api, headers={"Authorization": f"Bearer {access_token}"})
answer.raise_for_status()
print(answer.text)
