#!/bin/sh
# Reads `feedback` with kcat in its own consumer group; prints each rating as a JSON line.
#
#   apt install kcat
#   KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 GROUP=my-ratings sh feedback_kcat.sh | jq .rating
#
# A new group starts at the beginning, an existing one at its committed offsets. kcat commits at
# intervals, so ratings that the next program of the pipe has not handled when it dies are lost: use
# it to inspect events, not for work that must not miss one.
exec kcat -q -u -b "${KAFKA_BOOTSTRAP_SERVERS:-127.0.0.1:9092}" \
  -X auto.offset.reset=earliest -X session.timeout.ms=6000 -G "${GROUP:-my-ratings}" feedback
