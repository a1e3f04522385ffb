"""The work queue of RabbitMQ's tutorial, with dibs.

Start three workers, each in a terminal of its own, all in the same directory:

    dibs worker examples/tutorial.py -p 1

and hand them work from a fourth. A dot is a second of work:

    dibs send task_queue "Pune........" "Delhi..." "Agra."

With nothing else installed the messages wait in the file dibs.db. `export DIBS_URL=amqp://localhost` in each
terminal, and they wait in RabbitMQ: the same code, and any AMQP client can take part.
"""

import time

from dibs import Dibs, Message

app = Dibs()


@app.consumer("task_queue")
def work(message: Message) -> None:
    print(f" [x] Received {message.text}", flush=True)
    time.sleep(message.body.count(b"."))
    print(" [x] Done", flush=True)
