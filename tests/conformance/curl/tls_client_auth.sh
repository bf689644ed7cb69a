#!/bin/sh
# tls_client_auth with curl: the token is bound to the certificate, which the API asks for again.
set -eu
secret=$1 api=$2

answer=$(
  curl --silent --show-error --fail --cacert "$secret/issuer_ca.crt" \
    --cert "$secret/tls.crt" --key "$secret/tls.key" \
    --data grant_type=client_credentials \
    --data-urlencode "client_id@$secret/client_id" \
    "$(cat "$secret/token_endpoint")"
)
access_token=$(printf '%s' "$answer" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/')
printf 'header = "Authorization: Bearer %s"\n' "$access_token" |
  curl --silent --show-error --fail --config - --cert "$secret/tls.crt" --key "$secret/tls.key" "$api"
