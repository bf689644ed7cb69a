#!/bin/sh
# A token for one API, or for several, with curl: the arguments after the API's URL are resources (RFC 8707).
set -eu
secret=$1 api=$2
shift 2

for resource; do # each becomes a parameter
  shift
  set -- "$@" --data-urlencode "resource=$resource"
done
answer=$(
  printf 'user = "%s:%s"\n' "$(cat "$secret/client_id")" "$(cat "$secret/client_secret")" |
    curl --silent --show-error --fail --config - --cacert "$secret/issuer_ca.crt" \
      --data grant_type=client_credentials "$@" "$(cat "$secret/token_endpoint")"
)
access_token=$(printf '%s' "$answer" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/')
printf 'header = "Authorization: Bearer %s"\n' "$access_token" | curl --silent --show-error --fail --config - "$api"
