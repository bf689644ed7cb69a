#!/bin/sh
# The access token of the mounted Secret: it is replaced there before it ends, so read it for every call.
set -eu
secret=$1 api=$2

printf 'header = "Authorization: Bearer %s"\n' "$(cat "$secret/access_token")" |
  curl --silent --show-error --fail --config - "$api"
