"""From `module:app` to the app."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from dibs.app import Dibs
from dibs.errors import AppNotFound
from dibs.outcome import clip_error
from dibs.url import mask


def load_app(place: str) -> Dibs:
    """Import the module that `place` names and return its app.

    The working directory comes first on the module path, as in a program that is started there.

    Args:
        place: `module:app`; without the second part `app` is meant. The module may be written as a file,
            `examples/tasks.py:app`: its folder then comes first on the module path, and the module has the
            file's name, as in `python examples/tasks.py`, so that producer and worker call its tasks the same.
            A file of a package is imported as part of the package.

    Raises:
        AppNotFound: no such module, file or name, or it is no `Dibs`, or the module can't be imported: then the
            text has its traceback.
    """
    module_name, _, attribute = place.partition(":")
    _put_first(Path.cwd())
    is_file = module_name.endswith(".py")
    module = _import_file(Path(module_name)) if is_file else _import(module_name, place)
    return _find_app(module, attribute or "app")


def _put_first(folder: Path) -> None:
    if str(folder) not in sys.path[:1]:
        sys.path.insert(0, str(folder))


def _import_file(written: Path) -> ModuleType:
    file = written.absolute()
    if not file.is_file():
        raise AppNotFound(f"There is no file {file}. Write the app as module:app or path/to/file.py:app.")
    parts = [file.stem]
    folder = file.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    _put_first(folder)
    name = ".".join(parts)
    module = _import(name, str(written))
    found = module.__file__
    if found is None or not file.samefile(found):
        raise AppNotFound(
            f"{file} can't be imported: there is another module {name!r}, {found or 'built into Python'}. "
            "Rename the file."
        )
    return module


def _import(name: str, place: str) -> ModuleType:
    if not all(name.split(".")) or "\0" in name:
        raise AppNotFound(f"{mask(place)!r} names no module. Write the app as module:app.")
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        missing = getattr(error, "name", None) or "" if isinstance(error, ModuleNotFoundError) else ""
        if missing and (name == missing or name.startswith(f"{missing}.")):
            raise AppNotFound(
                f"There is no module {missing!r} (looked in {Path.cwd()} and the installed packages). Write the app "
                "as module:app, and start the command where `import module` works."
            ) from None
        raise AppNotFound(f"Module {name!r} can't be imported:\n{_describe(error)}") from error


def _describe(error: BaseException) -> str:
    """Return the error with its traceback, from the module's own frame on."""
    trace = error.__traceback__
    while (
        trace
        and (file := trace.tb_frame.f_code.co_filename)
        and (file in {__file__, importlib.__file__} or file.startswith("<frozen importlib"))
    ):
        trace = trace.tb_next
    return clip_error(mask("".join(traceback.format_exception(type(error), error, trace)).rstrip()))


def _find_app(module: ModuleType, attribute: str) -> Dibs:
    app = getattr(module, attribute, None)
    if isinstance(app, Dibs):
        return app
    names = [name for name, value in vars(module).items() if isinstance(value, Dibs)]
    hint = f"Write {module.__name__}:{names[0]}." if names else "Make one in it: app = Dibs()."
    if app is None:
        raise AppNotFound(f"Module {module.__name__!r} has no {attribute!r}. {hint}")
    raise AppNotFound(f"{attribute!r} of module {module.__name__!r} is a {type(app).__name__}, no Dibs app. {hint}")
