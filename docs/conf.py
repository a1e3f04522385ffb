"""Sphinx configuration. `make docs` builds the site; a warning is an error."""

from sphinx.application import Sphinx

import dibs  # noqa: F401 -- autodoc reads it; a missing install is told here

project = "dibs"
author = "The dibs authors"
copyright = "The dibs authors"  # noqa: A001 -- Sphinx's name

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "dibs"
html_show_copyright = False
html_copy_source = False

# Docstrings write code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

# The site builds without the network, so names of the standard library lead nowhere; dibs' own must lead somewhere.
nitpick_ignore_regex = [
    ("py:.*", r"(?!dibs\.).*"),
    ("py:.*", r"dibs\.\w+\.([A-Z]|TaskDecorator|Source)"),  # type variables, and what only a type checker sees
]


def setup(app: Sphinx) -> None:
    """Keep napoleon away from the text of fields: what stands before a colon there it takes for a type."""
    kept: list[str] = []

    def keep(_app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
        if what in {"attribute", "data"}:
            kept[:] = lines

    def restore(_app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
        if what in {"attribute", "data"}:
            lines[:] = kept

    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
