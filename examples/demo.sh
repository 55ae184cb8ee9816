#!/usr/bin/env bash
# `make demo`: a backend, the gateway in front of it as gateway.yaml says, and the whole life of a token.
# The database lies in a temporary folder that is removed at the end, so the demo can be run again and again.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/release
gateway=http://127.0.0.1:8080
folder=$(mktemp -d)
pids=()

finish() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
  for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() {
  printf '\ndemo: %s\n' "$*" >&2
  if [ -s "$folder/portcullis.log" ]; then
    printf 'The last lines of the gateway'\''s log:\n' >&2
    tail -n 15 "$folder/portcullis.log" >&2
  fi
  exit 1
}

for port in 5000 8080 9180; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail "port $port is taken. gateway.yaml uses 8080 (gateway), 9180 (admin) and 5000 (backend): stop what listens there."
  fi
done
for program in "$target/portcullis" "$target/examples/backend"; do
  [ -x "$program" ] || fail "$program is missing: run \`make demo\`, which builds it"
done

await() { # await NAME PID URL: until URL answers 200
  local name=$1 pid=$2 url=$3 try
  for try in $(seq 100); do
    curl -fsS -o /dev/null "$url" 2>/dev/null && return
    kill -0 "$pid" 2>/dev/null || fail "the $name ended: $(tail -n 3 "$folder/$name.log")"
    sleep 0.1
  done
  fail "the $name did not answer at $url within 10 s"
}

cp gateway.yaml "$folder/"
"$target/examples/backend" 127.0.0.1:5000 >"$folder/backend.log" 2>&1 &
pids+=($!)
await backend $! http://127.0.0.1:5000/
"$target/portcullis" run --config "$folder/gateway.yaml" >"$folder/portcullis.log" 2>&1 &
pids+=($!)
await portcullis $! http://127.0.0.1:9180/readyz
echo "The backend listens on 127.0.0.1:5000 and knows nothing of tokens; the gateway stands before it on 127.0.0.1:8080."

answer=
step() { # step TITLE STATUS TEXT CURL-ARGUMENT...: the answer must have this status and hold this text
  local title=$1 status=$2 text=$3 shown= argument got
  shift 3
  for argument in "$@"; do
    case $argument in
      *[!A-Za-z0-9:/._=-]*) shown+=" '$argument'" ;;
      *) shown+=" $argument" ;;
    esac
  done
  # A token is long, and the same all along: shortened in what is shown.
  printf '\n\033[1m%s\033[0m\n$ curl%s\n' "$title" "$(sed -E 's/(Bearer [A-Za-z0-9_-]{12})[A-Za-z0-9_.-]+/\1.../' <<<"$shown")"
  got=$(curl -sS --max-time 10 -o "$folder/answer" -w '%{http_code}' "$@") || fail "$title: curl failed"
  answer=$(cat "$folder/answer")
  printf '%s  %s\n' "$got" "$(sed -E 's/(eyJ[A-Za-z0-9_-]{9})[A-Za-z0-9_.-]+/\1.../g' <<<"$answer")"
  [ "$got" = "$status" ] || fail "$title: expected status $status, got $got"
  [[ $answer == *"$text"* ]] || fail "$title: expected the answer to hold: $text"
}
token() { # token NAME: the value of this field in the last answer
  local value
  value=$(sed -nE "s/.*\"$1\" ?: ?\"([^\"]+)\".*/\1/p" <<<"$answer")
  [ -n "$value" ] || fail "no $1 in the answer"
  printf '%s' "$value"
}

json='content-type: application/json'
credentials='{"username":"alice","password":"correct horse battery staple"}'

step 'A public route passes' 200 'Hello' "$gateway/"
step 'Register' 201 'access_token' -H "$json" -d "$credentials" "$gateway/registration"
step 'Log in' 200 'access_token' -H "$json" -d "$credentials" "$gateway/login"
access=$(token access_token)
refresh=$(token refresh_token)
step 'The secret, without a token' 401 'token_missing' "$gateway/secret"
step 'The secret, with the access token' 200 '42' -H "Authorization: Bearer $access" "$gateway/secret"
step 'A new access token for the refresh token' 200 'access_token' \
  -X POST -H "Authorization: Bearer $refresh" "$gateway/token/refresh"
renewed=$(token access_token)
step 'The secret, with the new access token' 200 '42' -H "Authorization: Bearer $renewed" "$gateway/secret"
step 'Log out: revoke the new access token' 200 'revoked' \
  -X POST -H "Authorization: Bearer $renewed" "$gateway/logout/access"
step 'The secret again: the token is dead at once' 401 'token_revoked' \
  -H "Authorization: Bearer $renewed" "$gateway/secret"
step 'Revoke the refresh token as well' 200 'revoked' \
  -X POST -H "Authorization: Bearer $refresh" "$gateway/logout/refresh"
step 'It refreshes nothing any more' 401 'token_revoked' \
  -X POST -H "Authorization: Bearer $refresh" "$gateway/token/refresh"
step 'Log in again' 200 'access_token' -H "$json" -d "$credentials" "$gateway/login"
access=$(token access_token)
refresh=$(token refresh_token)
step 'Log out: end the session, both tokens at once' 200 'Session ended' \
  -X POST -H "Authorization: Bearer $access" "$gateway/logout"
step 'The refresh token is dead as well' 401 'token_revoked' \
  -X POST -H "Authorization: Bearer $refresh" "$gateway/token/refresh"

printf '\nEvery step gave what it should. README.md tells how to put the gateway before your own application.\n'
