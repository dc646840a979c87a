#!/usr/bin/env bash
# Streams an answer. Kill it and start it again: it continues after the last event that it saved.
set -euo pipefail
url=${HEADRACE_URL:-http://localhost:8000} saved=curl.txt
auth="Authorization: Bearer ${HEADRACE_API_KEY:-none}"
save() { echo "$@" >$saved.new && mv $saved.new $saved; }
if [ ! -e $saved ]; then
  body='{"model": "'${HEADRACE_MODEL:-demo/demo}'", "messages": [{"role": "user", "content": "Tell me a story."}]}'
  answer=$(curl -sS --fail-with-body "$url/chat" -H "$auth" -H 'Content-Type: application/json' -d "$body") ||
    { echo "$answer" >&2; exit 1; }
  save "$(sed -E 's/.*"stream_id": ?"([0-9a-f]+)".*/\1/' <<<"$answer")"
fi
read -r stream last <$saved || true
curl -sSN "$url/chat/stream/$stream" -H "$auth" -H "Last-Event-ID: ${last:-0}" |
  while IFS= read -r line; do
    case $line in
      "id: "*) last=${line#id: } ;;
      "event: "*) event=${line#event: } ;;
      "data: "*'"reset":true'*) echo "[again, from the start]" ;; # a worker was lost
      "data: "*) [ "$event" != token ] || echo "${line#data: }" ;;
      "") save "$stream" "${last:-0}" ;;
    esac
  done
rm $saved
