#!/bin/sh
# private_key_jwt with curl and openssl, for an Ed25519 key of one's own (`publicKey`).
set -eu
volume=$1 api=$2

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
client_id=$(cat "$volume/client_id")
now=$(date +%s)
claims=$(printf '{"iss":"%s","sub":"%s","aud":"%s","jti":"%s","iat":%d,"exp":%d}' \
  "$client_id" "$client_id" "$(cat "$volume/issuer")" "$(openssl rand -hex 16)" "$now" $((now + 60)))

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf '%s.%s' "$(printf '{"alg":"EdDSA"}' | base64url)" "$(printf '%s' "$claims" | base64url)" >"$scratch/signed"
signature=$(openssl pkeyutl -sign -rawin -inkey "$volume/private.pem" -in "$scratch/signed" | base64url)
printf '%s.%s' "$(cat "$scratch/signed")" "$signature" >"$scratch/assertion"

answer=$(
  curl --silent --show-error --fail --cacert "$volume/issuer_ca.crt" \
    --data grant_type=client_credentials \
    --data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
    --data-urlencode "client_assertion@$scratch/assertion" \
    "$(cat "$volume/token_endpoint")"
)
access_token=$(printf '%s' "$answer" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/')
printf 'header = "Authorization: Bearer %s"\n' "$access_token" | curl --silent --show-error --fail --config - "$api"
