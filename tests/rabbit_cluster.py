"""A cluster of three RabbitMQ nodes of the test run's own, any of which may be killed and started again."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import pika

from tests.rabbit_node import Node, _free_port
from tests.waiting import until

_CONFIG = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
"""
#: A delayed message whose next queue had no leader just then is sent on after this time; by default 3 minutes.
_ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n"
#: Saves a minute; unknown to RabbitMQ 4.
_HASTE = """\
cluster_formation.randomized_startup_delay_range.min = 0
cluster_formation.randomized_startup_delay_range.max = 1
"""


class ClusterNode(Node):
    """A node that knows its peers. An epmd of the cluster's own tells the nodes where the others are."""

    def __init__(self, directory: Path, *, config: str, cookie: str, epmd_port: int) -> None:
        super().__init__(directory, config=config)
        self._epmd_port = epmd_port
        directory.mkdir(parents=True)
        (directory / ".erlang.cookie").write_text(cookie)
        (directory / ".erlang.cookie").chmod(0o400)
        (directory / "advanced.config").write_text(_ADVANCED)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed since."""
        return self._process is not None

    @property
    def name(self) -> str:
        """What its peers call it."""
        return self._name

    def join(self, config: str) -> None:
        """Set what it is to know of its peers."""
        self._config = config

    def _environment(self) -> dict[str, str]:
        environment = super()._environment() | {
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        server = environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
        environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] = server.partition(" -erl_epmd_port")[0]
        environment["RABBITMQ_CTL_ERL_ARGS"] = "-start_epmd false"
        return environment


class Cluster:
    """Three nodes on one machine."""

    def __init__(self, directory: Path, *, version: int = 3) -> None:
        """Choose the ports, and start the epmd; `start` starts the nodes."""
        epmd_port, cookie = _free_port(), secrets.token_hex(20)
        self.nodes = [ClusterNode(directory / name, config="", cookie=cookie, epmd_port=epmd_port) for name in "abc"]
        peers = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {node.name}\n"
            for number, node in enumerate(self.nodes, 1)
        )
        for node in self.nodes:
            node.join(_CONFIG + peers + (_HASTE if version == 3 else ""))
        self._epmd = subprocess.Popen(["epmd", "-port", str(epmd_port), "-address", "127.0.0.1"])

    @property
    def url(self) -> str:
        """The URL with all hosts."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    def start(self) -> None:
        """Start the nodes that do not run, all at once, and wait until they know each other."""
        with ThreadPoolExecutor(len(self.nodes), thread_name_prefix="cluster") as pool:
            list(pool.map(ClusterNode.start, self.nodes))
        until(self._is_whole, within=60.0)

    def declare_last(self) -> None:
        """Make a quorum queue that nobody needs: a node of 3.10 that is killed forgets the one that it made last."""
        parameters = pika.URLParameters(f"{self._any().url}%2f")
        with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
            connection.channel().queue_declare("last", durable=True, arguments={"x-queue-type": "quorum"})

    def leader(self, queue: str) -> ClusterNode:
        """Return the node that leads a quorum queue."""
        listed = self._any().ctl("list_queues", "name", "leader", "--no-table-headers")
        leaders = dict(line.split("\t") for line in listed.splitlines() if "\t" in line)
        return next(node for node in self.nodes if node.name == leaders[queue])

    def connected(self, client: str) -> ClusterNode:
        """Return the node that a client of that name is connected to: "dibs publisher", "dibs consumer"."""
        listed = self._any().ctl("list_connections", "port", "client_properties", "--no-table-headers")
        ports = [line.split("\t")[0] for line in listed.splitlines() if f'"{client}"' in line]
        return next(node for node in self.nodes if str(node.port) in ports)

    def close(self) -> None:
        """Kill all of it."""
        for node in self.nodes:
            node.kill()
        self._epmd.kill()
        self._epmd.wait()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _any(self) -> ClusterNode:
        return next(node for node in self.nodes if node.is_running)

    def _is_whole(self) -> bool:
        return self._any().ctl("eval", "length(rabbit_nodes:all_running()).").strip() == str(len(self.nodes))
