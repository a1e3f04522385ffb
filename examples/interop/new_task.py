"""Send a plain message, as RabbitMQ's work-queue tutorial does. Knows nothing of dibs.

    python new_task.py Pune........

One dot is one second of work for whoever receives it.
"""

import os
import sys

import pika

message = " ".join(sys.argv[1:]) or "Hello World!"

connection = pika.BlockingConnection(
    pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/"))
)
channel = connection.channel()

channel.queue_declare(queue="task_queue", durable=True)
channel.basic_publish(
    exchange="",
    routing_key="task_queue",
    body=message.encode(),
    properties=pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika is typed in part only
        delivery_mode=pika.DeliveryMode.Persistent,
    ),
)
print(f" [x] Sent {message}")

connection.close()
