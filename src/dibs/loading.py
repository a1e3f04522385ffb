"""From `module:app` to the app."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from dibs.app import Dibs
from dibs.errors import AppNotFound


def load_app(place: str) -> Dibs:
    """Import the module that `place` names and return its app.

    The working directory comes first on the module path, as in a program that is started there.

    Args:
        place: `module:app`; without the second part `app` is meant. The module may be written as a file,
            `tasks.py:app`.

    Raises:
        AppNotFound: no such module or name, or it is no `Dibs`. What the module itself raises passes through.
    """
    module_name, _, attribute = place.partition(":")
    if module_name.endswith(".py"):
        module_name = ".".join(Path(module_name).with_suffix("").parts)
    here = str(Path.cwd())
    if here not in sys.path[:1]:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise  # the module is there; something that it imports is not
        raise AppNotFound(
            f"There is no module {missing!r} (looked in {here} and the installed packages). Write the app as "
            "module:app, and start the command where `import module` works."
        ) from None
    except (TypeError, ValueError) as error:
        if module_name:
            raise
        raise AppNotFound(f"{place!r} names no module. Write the app as module:app.") from error
    app = getattr(module, attribute or "app", None)
    if not isinstance(app, Dibs):
        names = ", ".join(name for name, value in vars(module).items() if isinstance(value, Dibs)) or "none"
        what = "has no" if app is None else "is no Dibs app:"
        raise AppNotFound(
            f"Module {module_name!r} {what} {attribute or 'app'!r}. Its Dibs apps are: {names}. "
            f"Write {module_name}:app."
        )
    return app
