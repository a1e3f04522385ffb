#!/bin/sh
# Send a plain message with amqp-publish (Debian: apt-get install amqp-tools). Knows nothing of dibs.
#
#     ./new_task.sh Pune........
#
# amqp-publish does not look whether the queue is there: start a worker first.
set -eu
url=${AMQP_URL:-amqp://guest:guest@localhost:5672}
# It reads a slash at the end as a virtual host whose name is empty, so leave that out.
amqp-publish --url "${url%/}" --routing-key task_queue --persistent --body "$*"
