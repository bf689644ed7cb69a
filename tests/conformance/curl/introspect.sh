#!/bin/sh
# Asks whether a token is good, with curl (RFC 7662).
set -eu
secret=$1 token=$2

printf 'user = "%s:%s"\n' "$(cat "$secret/client_id")" "$(cat "$secret/client_secret")" |
  curl --silent --show-error --fail --config - --cacert "$secret/issuer_ca.crt" \
    --data-urlencode "token@$token" "$(cat "$secret/issuer")/introspect"
