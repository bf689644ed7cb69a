#!/bin/sh
# client_secret_post with curl, which reads the parameters from the mounted Secret itself.
set -eu
secret=$1 api=$2

answer=$(
  curl --silent --show-error --fail --cacert "$secret/issuer_ca.crt" \
    --data grant_type=client_credentials \
    --data-urlencode "client_id@$secret/client_id" \
    --data-urlencode "client_secret@$secret/client_secret" \
    "$(cat "$secret/token_endpoint")"
)
access_token=$(printf '%s' "$answer" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/')
printf 'header = "Authorization: Bearer %s"\n' "$access_token" | curl --silent --show-error --fail --config - "$api"
