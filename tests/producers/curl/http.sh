#!/usr/bin/env bash
# Sends what happened to one access request to owlpost over HTTP: structured, binary and as a batch.
#   OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… ./http.sh 4711 user.joe
set -euo pipefail

request=$1 member=$2

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# The token comes from a file descriptor: other users of the machine can read a command line.
# --retry repeats 408, 429, 500, 502, 503 and 504, and waits as long as Retry-After says; --retry-all-errors lost
# connections, too. A 400, 401, 413 or 415 would be the same again. Repeating is safe, since the ids stay.
post() { # post HEADER…; the body is standard input
    local headers=() status
    for header in "$@"; do headers+=(-H "$header"); done
    status=$(curl --silent --show-error --retry 8 --retry-all-errors --retry-max-time 300 --connect-timeout 5 \
        --max-time 30 -H @<(printf 'Authorization: Bearer %s\n' "$OWLPOST_TOKEN") "${headers[@]}" --data-binary @- \
        --output "$answer" --write-out '%{http_code}' "$OWLPOST_URL/v1/events")
    printf '%s %s\n' "$status" "$(<"$answer")"
    # 202 means that at least one event is stored; single ones of a batch may have been refused.
    [[ $status == 202 ]] && grep -q '"rejected":\[\]' "$answer"
}

# Structured: the event is one JSON document. The id names what happened, so it is the same when this runs again.
post 'Content-Type: application/cloudevents+json' <<END
{
  "specversion": "1.0", "id": "$request-requested", "source": "access-desk/curl",
  "type": "io.athenz.membership.requested.v1", "time": "$(date -u +%FT%TZ)",
  "data": {
    "domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": "$member", "change": "add",
    "requester": "$member", "reason": "on call this week", "recipients": ["user.alice"]
  }
}
END

# Binary: attributes are headers, the body is the data alone.
post 'ce-specversion: 1.0' "ce-id: $request-decided" 'ce-source: access-desk/curl' \
    'ce-type: io.athenz.membership.decided.v1' "ce-time: $(date -u +%FT%TZ)" 'Content-Type: application/json' <<END
{
  "domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": "$member", "change": "add",
  "requester": "$member", "decision": "approve", "actor": "user.alice", "recipients": ["$member"]
}
END

# Batch: several events in one request, up to 10,000 and 8 MiB.
post 'Content-Type: application/cloudevents-batch+json' <<END
[
  {
    "specversion": "1.0", "id": "$request-added", "source": "access-desk/curl",
    "type": "io.athenz.membership.added.v1", "time": "$(date -u +%FT%TZ)",
    "data": {
      "domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": "$member",
      "recipients": ["$member"]
    }
  },
  {
    "specversion": "1.0", "id": "$request-oncall", "source": "access-desk/curl",
    "type": "com.example.oncall.started.v1", "time": "$(date -u +%FT%TZ)",
    "data": {"team": "sports", "recipients": ["$member"]}
  }
]
END
