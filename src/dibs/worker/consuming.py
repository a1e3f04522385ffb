"""From what an executor says of its app to the queues that its worker consumes."""

from __future__ import annotations

from dibs.broker import Broker, Consumer
from dibs.brokers import connect
from dibs.errors import BadURL, UnknownQueue
from dibs.worker.frames import Ready
from dibs.worker.options import WorkerOptions
from dibs.worker.window import MOST


def consume(ready: Ready, options: WorkerOptions) -> tuple[Broker, Consumer, tuple[str, ...]]:
    """Connect to the app's broker and begin to consume; returns the queues too.

    Raises:
        UnknownQueue: `-q` names a queue that the app does not, or there is none at all.
        BadURL: the broker can't be shared with other processes.
        BrokerError: the broker can't be used.
    """
    names = sorted(queue.name for queue in ready.queues)
    if unknown := sorted(set(options.queues) - set(names)):
        raise UnknownQueue(
            f"The app knows no queue {unknown[0]!r}; it knows: {', '.join(names) or 'none'}. "
            f"Declare it in the app with app.queue({unknown[0]!r})."
        )
    if not names:
        raise UnknownQueue(f"{options.app} has no task, no consumer and no queue: there is nothing to work on.")
    broker = connect(ready.url, namespace=ready.namespace, may_declare=ready.may_declare)
    if not broker.capabilities.is_shared:
        raise BadURL(
            f"{broker.location} can't be reached from other processes, so a worker would wait for ever. "
            "Use app.drain() in the process itself, or a broker that is shared, such as sqlite:///dibs.db."
        )
    broker.declare(ready.queues)
    queues = options.queues or tuple(names)
    return broker, broker.consume(queues, limit=max(options.slots, MOST) * options.executors), queues
