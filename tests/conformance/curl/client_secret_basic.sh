#!/bin/sh
# client_secret_basic with curl. Credentials go by standard input: arguments are for everybody to see.
set -eu
secret=$1 api=$2

answer=$(
  printf 'user = "%s:%s"\n' "$(cat "$secret/client_id")" "$(cat "$secret/client_secret")" |
    curl --silent --show-error --fail --config - --cacert "$secret/issuer_ca.crt" \
      --data grant_type=client_credentials "$(cat "$secret/token_endpoint")"
)
access_token=$(printf '%s' "$answer" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/')
printf 'header = "Authorization: Bearer %s"\n' "$access_token" | curl --silent --show-error --fail --config - "$api"
