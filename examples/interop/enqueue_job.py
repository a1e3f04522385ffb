"""Enqueue a dibs job with nothing but pika.

    python enqueue_job.py default tasks.resize '"a.png"' 200

The arguments are the queue, the task's name and the task's arguments as JSON. The queue is there once a dibs
worker or producer has used it.
"""

import json
import os
import sys
import uuid

import pika

queue, task, *args = sys.argv[1:]
connection = pika.BlockingConnection(
    pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/"))
)
channel = connection.channel()
channel.confirm_delivery()  # with mandatory=True: an error unless the job is stored
channel.basic_publish(
    exchange="",
    routing_key=queue,
    body=json.dumps({"args": [json.loads(arg) for arg in args], "kwargs": {}}).encode(),
    properties=pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika is typed in part only
        type=task, message_id=str(uuid.uuid4()), content_type="application/json", delivery_mode=2
    ),
    mandatory=True,
)
connection.close()
