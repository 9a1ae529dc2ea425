"""Sphinx's configuration: the reference, from the docstrings. ``tox run -e docs`` builds it."""

import sys
from importlib import metadata
from pkgutil import resolve_name

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "azure-communication-common"
author = "Microsoft Corporation"
project_copyright = "Microsoft Corporation"
version = release = metadata.version(project)
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
nitpicky = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

nitpick_ignore_regex = [
    # Type variables, which have no documentation of their own, in ours and in azure-core's bases.
    ("py:class", r"(.*\.)?_PropertiesT|(.*\.)?_TokenCredentialT|.*\.HTTPRe(quest|sponse)Type"),
]


def resolve_outside(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Link a name of azure-core or of Python, if it exists: what intersphinx does, offline."""
    target = node.get("reftarget", "")
    # What a module imports for type checkers alone is in its annotations without a module.
    places = ("", "builtins.", "azure.core.credentials.", "azure.core.pipeline.")
    for name in (place + target for place in places):
        try:
            resolve_name(name)
        except (ValueError, ImportError, AttributeError):
            continue
        if name.startswith("azure.core."):
            uri = f"https://learn.microsoft.com/python/api/azure-core/{name.lower()}"
        elif name.partition(".")[0] in sys.stdlib_module_names:
            uri = f"https://docs.python.org/3/library/{name.rpartition('.')[0]}.html"
        else:
            continue
        return nodes.reference("", "", content, internal=False, refuri=uri, reftitle=name)
    return None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", resolve_outside)
