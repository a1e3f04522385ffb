"""`dibs top` in a terminal, with workers at work: what is seen, what keys do, and how it ends."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from dibs import Dibs
from tests.cli.conftest import Shell
from tests.top.tmux import Tmux
from tests.waiting import until
from tests.workers import Worker

#: What is seen differs from run to run in times, rates, memory and the worker's name.
_MASKS = (
    (r"^dibs top  .*  \d\d:\d\d:\d\d$", "dibs top  PLACE  CLOCK"),
    (r"\S+:\d+  (fragile, mail) +(\d+/\d+) +\S+/s +\S+/s +\d+ MB +\d+[sm]", r"WORKER  \1  \2"),
    (r"[\d.]+/s", "RATE"),
    (r"\d\d:\d\d:\d\d", "CLOCK"),
    (r" +[\d.]+s  (tasks\.)", r" SPAN  \1"),
    (r" +\S*RATE +[+−]?(RATE)? +(\d+)$", r"     RATE                   \2"),
)

AT_80 = """\
dibs top  PLACE  CLOCK
1 ready   1 of 1 slots busy   RATE done   RATE failed   1 dead
▸ QUEUES 3                ready running delayed  dead    done   change consumers
▸ fragile                     0       0       0     1     RATE                   1
  mail                        0       1       0     0     RATE                   1
  other                       1       0       0     0     RATE                   0

  WORKERS 1                                slots    done   failed   memory    up
  WORKER  fragile, mail  1/1
 SPAN  tasks.send                 mail         ████░░░░░░ 45% half way

  FAILURES 1       task                       error
  CLOCK  dead   tasks.fail                 ValueError: boom









 queue fragile
 p pause/resume   ↑↓ choose   Tab pane   ? help   q quit
"""

AT_120_QUEUES = f"""\
{"▸ QUEUES 3":66}ready running delayed  dead    done   change consumers
{"▸ fragile":70}0       0       0     1     0/s                  1
"""


def masked(screen: str) -> str:
    lines = screen.splitlines()
    for pattern, name in _MASKS:
        lines = [re.sub(pattern, name, line) for line in lines]
    return "\n".join(lines) + "\n"


def busy(shell: Shell, start_worker: Callable[..., Worker]) -> tuple[Dibs, str]:
    """Have a job run, one dead, and a message that nobody consumes; return the app and the running job's id."""
    start_worker("-p", "1")
    app = shell.open()
    shell.ok("enqueue", "tasks:app.fail")
    until(lambda: shell.counts("fragile").dead == 1)
    running = shell.ok("enqueue", "tasks:app.send", '"half way"').out.strip()
    shell.ok("send", "other", "x", DIBS_APP="")
    return app, running


def test_it_fits_80_by_24_and_larger_and_follows_the_window(
    shell: Shell, start_worker: Callable[..., Worker], tmux: Tmux
) -> None:
    busy(shell, start_worker)

    tmux.type("dibs top")
    tmux.wait("1 of 1 slots busy +[^–]*45% half way")
    until(lambda: masked(tmux.screen) == AT_80)

    tmux.resize(120, 40)
    until(lambda: AT_120_QUEUES in tmux.screen)
    assert len(tmux.screen.splitlines()) == 40
    assert tmux.screen.splitlines()[-1] == " p pause/resume   ↑↓ choose   Tab pane   ? help   q quit"

    tmux.resize(40, 10)
    until(lambda: "WORKERS" not in tmux.screen and "▸ QUEUES" in tmux.screen)

    tmux.resize(80, 24)
    until(lambda: masked(tmux.screen) == AT_80)


def test_keys_pause_and_resume_a_queue_once_confirmed(
    shell: Shell, start_worker: Callable[..., Worker], tmux: Tmux
) -> None:
    app, _ = busy(shell, start_worker)
    tmux.type("dibs top")
    tmux.wait("▸ fragile")

    tmux.press("Down", "p")
    tmux.wait(r"Pause queue mail\? y/n")
    tmux.press("n")
    tmux.wait("left alone")
    assert not any(info.is_paused for info in app.broker.queues())

    tmux.press("p")
    tmux.wait(r"Pause queue mail\? y/n")
    tmux.press("y")
    tmux.wait("mail +paused ")
    assert [info.name for info in app.broker.queues() if info.is_paused] == ["mail"]

    tmux.press("p")
    tmux.wait(r"Resume queue mail\? y/n")
    tmux.press("y")
    tmux.wait("mail +paused ", gone=True)
    assert not any(info.is_paused for info in app.broker.queues())


def test_keys_cancel_what_runs_and_replay_what_is_dead(
    shell: Shell, start_worker: Callable[..., Worker], tmux: Tmux
) -> None:
    app, running = busy(shell, start_worker)
    tmux.type("dibs top")
    tmux.wait("45% half way")

    tmux.press("2", "Down")
    tmux.wait(f"job {running} · tasks.send")
    tmux.press("c")
    tmux.wait(rf"Cancel tasks.send {running}\? y/n")
    tmux.press("y")
    until(lambda: app.job(running).status() == "cancelled")
    tmux.wait("45% half way", gone=True)

    before = re.search(r"(\d\d:\d\d:\d\d)  dead   tasks.fail", tmux.screen)
    assert before is not None
    tmux.press("3", "r")
    tmux.wait(r"Run tasks.fail .*\? y/n")
    tmux.press("y")
    tmux.wait("replayed tasks.fail")
    until(lambda: re.search(f"{before[1]}  dead   tasks.fail", tmux.screen) is None)
    tmux.wait("dead   tasks.fail")


def test_what_was_typed_before_the_question_could_be_seen_is_no_answer(
    shell: Shell, start_worker: Callable[..., Worker], tmux: Tmux
) -> None:
    app, _ = busy(shell, start_worker)
    tmux.type("dibs top")
    tmux.wait("▸ fragile")

    tmux._tmux("send-keys", "-l", "pypy")  # as from the clipboard

    tmux.wait(r"Pause queue fragile\? y/n")
    assert not any(info.is_paused for info in app.broker.queues())


def test_it_leaves_the_terminal_as_it_was(shell: Shell, tmux: Tmux) -> None:
    for key, code in (("q", 0), ("C-c", 130)):
        tmux.type(f"echo before-{code}; dibs top; echo code-$?; stty -a | grep -o -e '-\\?icanon'")
        tmux.wait("no failures")
        assert f"before-{code}" not in tmux.screen

        tmux.press(key)

        assert f"before-{code}\n" in tmux.wait(f"code-{code}\nicanon\n")


def test_a_stop_gives_the_terminal_back_and_a_term_ends_it(shell: Shell, tmux: Tmux) -> None:
    tmux.type("echo before; dibs top; echo code-$?")
    tmux.wait("no failures")

    tmux.press("C-z")
    screen = tmux.wait("Stopped")
    assert "before" in screen
    assert "no failures" not in screen
    tmux.type("fg")
    tmux.wait("no failures")
    os.kill(_top_in(shell.directory), signal.SIGTERM)

    tmux.wait("no failures", gone=True)
    tmux.type("echo code-$?")
    tmux.wait("code-143")


def test_a_file_that_is_gone_is_told_and_a_new_one_is_shown(shell: Shell, tmux: Tmux) -> None:
    shell.ok("send", "first", "x", DIBS_APP="")
    tmux.type("dibs top")
    tmux.wait("▸ first")

    for path in shell.directory.glob("queue.db*"):
        path.rename(path.with_name(f"aside-{path.name}"))
    assert "first" in tmux.wait(r"shown is what was seen at(.*\n)+.*removed\s+or\s+replaced")

    shell.ok("send", "second", "x", DIBS_APP="")
    tmux.wait("▸ second +1 ")
    assert "first" not in tmux.wait("shown is what was seen at", gone=True)


def test_colours_are_for_those_who_want_them(shell: Shell, tmux: Tmux) -> None:
    shell.make_dead("boom")
    colour = r"\x1b\[[\d;]*3[123]m"

    tmux.type("dibs top")
    tmux.wait("ValueError: boom")
    assert re.search(colour, tmux.coloured)
    tmux.press("q")
    tmux.wait("FAILURES", gone=True)
    tmux.type("NO_COLOR=1 dibs top")
    tmux.wait("ValueError: boom")

    assert not re.search(colour, tmux.coloured)
    assert "\x1b[1m" in tmux.coloured


def test_what_an_encoding_lacks_is_drawn_in_other_signs(
    shell: Shell, start_worker: Callable[..., Worker], tmux: Tmux
) -> None:
    start_worker("-p", "1")
    shell.ok("enqueue", "tasks:app.send", '"世界"')

    tmux.type("PYTHONIOENCODING=ascii dibs top")

    tmux.wait(r"> QUEUES(.*\n)+.*####\.\.\.\.\.\. 45% \?\?")


def test_strangers_text_does_nothing_to_the_terminal(shell: Shell, tmux: Tmux) -> None:
    shell.make_dead("\x1b[2J\x1b[31mred \x9b5mblink \u202eright")
    tmux.resize(160, 24)

    tmux.type("dibs top")

    tmux.wait(re.escape(r"ValueError: \x1b[2J\x1b[31mred \x9b5mblink \u202eright"))
    tmux.wait("QUEUES")
    assert "\x1b[5m" not in tmux.coloured


def _top_in(directory: Path) -> int:
    """Return the process id of the `dibs top` that runs in a directory."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if b"dibs\0top\0" in (place / "cmdline").read_bytes() and (place / "cwd").readlink() == directory:
                return int(place.name)
        except OSError:
            continue  # it has ended, or is not ours
    raise AssertionError(f"no dibs top runs in {directory}")
