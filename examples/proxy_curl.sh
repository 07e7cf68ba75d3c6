#!/bin/sh
# Any language: a base URL, and a name for the run in the path (or in the header Leyline-Session).
#
#   leyline proxy --upstream https://api.openai.com/v1 --policy keep_last:n=2
#   OPENAI_API_KEY=... sh examples/proxy_curl.sh
set -e
proxy=${LEYLINE_PROXY:-http://127.0.0.1:8100}
key="Authorization: Bearer ${OPENAI_API_KEY:-none}"

# -i shows the headers that tell of the turn: leyline-session, -version, -edits, ...
curl -sSi "$proxy/s/by-hand/v1/chat/completions" -H "$key" -H 'Content-Type: application/json' -d '{
  "model": "'"${MODEL:-gpt-5-mini}"'",
  "messages": [{"role": "user", "content": "Say hello."}]
}'
echo
curl -sS "$proxy/v1/leyline/sessions" -H "$key"
