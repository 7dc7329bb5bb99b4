#!/bin/sh
# A consumer group of its own on `feedback`, from the command line: prints each rating as a JSON line.
#
#   apt install kcat
#   KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 GROUP=my-ratings sh feedback_kcat.sh | jq .rating
#
# A group first reads from the beginning, later from where it stopped. kcat commits by time, so what
# the next program of the pipe has not handled yet when it dies may be lost: for a look at the
# events, not for work that must not miss one.
exec kcat -q -u -b "${KAFKA_BOOTSTRAP_SERVERS:-127.0.0.1:9092}" \
  -X auto.offset.reset=earliest -X session.timeout.ms=6000 -G "${GROUP:-my-ratings}" feedback
