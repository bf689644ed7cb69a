#!/bin/sh
# Revokes a token of one's own, with curl (RFC 7009).
set -eu
secret=$1 token=$2

printf 'user = "%s:%s"\n' "$(cat "$secret/client_id")" "$(cat "$secret/client_secret")" |
  curl --silent --show-error --fail --config - --cacert "$secret/issuer_ca.crt" \
    --data-urlencode "token@$token" "$(cat "$secret/issuer")/revoke"
echo '{"revoked": true}'
