#!/bin/sh
# A ServiceAccount token as the client assertion, with curl: no credential is kept anywhere.
set -eu
volume=$1 api=$2

answer=$(
  curl --silent --show-error --fail --cacert "$volume/issuer_ca.crt" \
    --data grant_type=client_credentials \
    --data-urlencode "client_id@$volume/client_id" \
    --data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
    --data-urlencode "client_assertion@$volume/sa_token" \
    "$(cat "$volume/token_endpoint")"
)
access_token=$(printf '%s' "$answer" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/')
printf 'header = "Authorization: Bearer %s"\n' "$access_token" | curl --silent --show-error --fail --config - "$api"
