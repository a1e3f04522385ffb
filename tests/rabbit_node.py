"""A RabbitMQ node of the test run's own: on a free port, in a temporary directory, without epmd, as any user.

The pid that is started is the Erlang VM itself, so a SIGKILL hits the broker as a power cut of the process would.
Nothing of the machine's own RabbitMQ (environment, configuration, cookie) reaches it.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_BIN = "/usr/lib/rabbitmq/bin"  # the wrappers in /usr/sbin refuse users other than root and rabbitmq
_LIB = "usr/lib/rabbitmq/lib"
_READY_WITHIN = 90.0
#: What lets a node watch its memory where no /proc is mounted.
_WITHOUT_PROC = "vm_memory_calculation_strategy = allocated\ntotal_memory_available_override_value = 4GB\n"
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"


class Node:
    """One RabbitMQ node. `start`, `kill` and `stop` may follow each other in any order, on the same data."""

    def __init__(
        self,
        directory: Path,
        *,
        root: Path = Path("/"),
        config: str = "",
        has_management: bool = False,
        has_streams: bool = True,
    ) -> None:
        """Choose the ports.

        Args:
            directory: where all of its files go; kept between starts. Below `root`.
            root: the system that RabbitMQ is installed in. Another one than the machine's own is entered by
                chroot, which takes root's rights; nothing is mounted in it.
            config: further lines for rabbitmq.conf.
            has_management: serve the management API too, at the port plus 10,000.
            has_streams: have streams, which only RabbitMQ 3 can be without.
        """
        self.port = _free_port()
        #: How often it was started.
        self.starts = 0
        self._dist_port = _free_port()
        self._name = f"dibs{self.port}@localhost"
        self._directory = directory
        self._root = root
        #: The directory as the node itself sees it.
        self._home = Path("/") / directory.relative_to(root)
        self._config = config
        self._has_management = has_management
        self._has_streams = has_streams
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for `connect`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def pid_file(self) -> Path:
        """Where the running node has written its process id."""
        return self._directory / "pid"

    def start(self) -> None:
        """Start the node and wait until it speaks AMQP. Does nothing where it runs."""
        if self._process is not None:
            return
        if not version_in(self._root):
            raise FileNotFoundError(
                f"No RabbitMQ in {self._root}: run `apt-get install rabbitmq-server` there for these tests."
            )
        self._write_files()
        with (self._directory / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                self._command("rabbitmq-server"),
                env=self._environment(),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.starts += 1
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the node (SIGKILL) and wait until it is gone."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the node in its tracks (SIGSTOP): its sockets stay open. `kill` ends that."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """Stop the node in good order and wait until it is gone."""
        self._end(signal.SIGTERM)

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` and return what it prints. Costs most of a second: not for waiting loops."""
        ran = subprocess.run(
            [*self._command("rabbitmqctl"), "-n", self._name, "-q", *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if ran.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)} failed: {ran.stdout}{ran.stderr}")
        return ran.stdout

    @contextlib.contextmanager
    def user(self, name: str, *, configure: str, write: str, read: str) -> Iterator[str]:
        """Have a user with these permissions for a while; yields the URL to log in with."""
        self.ctl("add_user", name, "secret")
        self.ctl("set_permissions", name, configure, write, read)
        try:
            yield f"amqp://{name}:secret@127.0.0.1:{self.port}/"
        finally:
            self.ctl("delete_user", name)

    @contextlib.contextmanager
    def alarm(self) -> Iterator[None]:
        """Have a memory alarm for a while: nothing more is taken from producers."""
        self.ctl("set_vm_memory_high_watermark", "0")
        try:
            yield
        finally:
            self.ctl("set_vm_memory_high_watermark", "0.4")

    @contextlib.contextmanager
    def message_limit(self, size: int) -> Iterator[None]:
        """Have a lower limit on messages' bytes for a while, on channels that are opened then."""
        place = "persistent_term:put(max_message_size, Size)"  # 4.x looks there, older ones into the environment
        set_to = f"application:set_env(rabbit, max_message_size, Size), {place}."
        before = self.ctl("eval", "{ok, Size} = application:get_env(rabbit, max_message_size), Size.").strip()
        self.ctl("eval", f"Size = {size}, {set_to}")
        try:
            yield
        finally:
            self.ctl("eval", f"Size = {before}, {set_to}")

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # nobody needs the data any more, and a stop takes a second

    def _command(self, name: str) -> list[str]:
        """Return how to run a program of RabbitMQ's. It replaces what leads to it, so the pid is its own."""
        if self._root == Path("/"):
            return [f"{_BIN}/{name}"]
        return ["chroot", str(self._root), "env", f"--chdir={self._home}", f"{_BIN}/{name}"]

    def _write_files(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        cookie = self._directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(20))
            cookie.chmod(0o400)
        lines = f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
        if self._root != Path("/"):
            lines += _WITHOUT_PROC
        if self._has_management:
            lines += f"management.tcp.port = {self.port + 10000}\nmanagement.tcp.ip = 127.0.0.1\n"
        (self._directory / "rabbitmq.conf").write_text(lines + self._config)
        plugins = "rabbitmq_management" * self._has_management
        (self._directory / "enabled_plugins").write_text(f"[{plugins}].")
        # What is due before its queue has a leader is sent on again after this time; by default three minutes, which
        # tests of delays would have to wait after a kill on a busy machine.
        advanced = "{dead_letter_worker_publisher_confirm_timeout, 2000}"
        if not self._has_streams:
            advanced += ", {forced_feature_flags_on_init, [quorum_queue]}"
        (self._directory / "advanced.config").write_text(f"[{{rabbit, [{advanced}]}}].\n")

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
        directory, port = str(self._home), str(self.port)
        no_epmd = f"-start_epmd false -erl_epmd_port {self._dist_port}"
        return kept | {
            "HOME": directory,  # the cookie is read from there
            "LANG": "C.UTF-8",
            "detached": "1",  # the script then becomes the VM (exec), so our pid is the broker's
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{directory}/mnesia",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{directory}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{directory}/gen",
            "RABBITMQ_PID_FILE": f"{directory}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {{127,0,0,1}} {no_epmd}"
            ),
            "RABBITMQ_CTL_ERL_ARGS": f"{no_epmd} -dist_listen false",
        }

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while not self._answers():
            if process.poll() is not None:
                raise RuntimeError(f"RabbitMQ ended with {process.returncode} while starting:\n{self._console()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not answer within {_READY_WITHIN:.0f} s:\n{self._console()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Tell whether the AMQP handshake begins: the port alone is open earlier than the broker is ready."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
            line.sendall(_AMQP_HEADER)
            return line.recv(1) == _METHOD_FRAME
        return False

    def _console(self) -> str:
        return (self._directory / "console.log").read_text(errors="replace")[-4000:]

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(sign)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def version_in(root: Path) -> str:
    """Return the version of the RabbitMQ that is installed below `root`; empty if none is."""
    found = sorted((root / _LIB).glob("rabbitmq_server-*"))
    return found[-1].name.partition("-")[2] if found else ""


def _free_port() -> int:
    """Return a port below those that the kernel gives to clients (32768 up).

    Else a client could take it while the node is down; worse, one that tries to connect to it could be given it
    as its own, and would be connected to itself.
    """
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("No free port between 20000 and 32000.")
