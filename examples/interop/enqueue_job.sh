#!/bin/sh
# Enqueue a dibs job from the shell, through the HTTP API of RabbitMQ's management plugin.
#
#     ./enqueue_job.sh default tasks.resize '["a.png", 200]'
#
# The arguments are the queue, the task's name and the list of the task's arguments as JSON. The queue is there
# once a dibs worker or producer has used it. (amqp-publish can send plain messages only: it can't set `type`.)
set -eu
api=${RABBITMQ_API:-http://guest:guest@localhost:15672/api}
id=$(cat /proc/sys/kernel/random/uuid)
body=$(printf '{"args": %s, "kwargs": {}}' "$3" | base64 -w 0)
answer=$(curl --silent --show-error --fail "$api/exchanges/%2F/amq.default/publish" --data @- <<JSON
{"routing_key": "$1", "payload": "$body", "payload_encoding": "base64", "properties":
 {"type": "$2", "message_id": "$id", "content_type": "application/json", "delivery_mode": 2}}
JSON
)
case $answer in
    *'"routed":true'*) ;;
    *) echo "there is no queue $1" >&2; exit 1 ;;
esac
