"""What a notebook can tell of its page: whether it is a visitor's, and what was asked for behind the question mark."""

import os

SERVED = {"SERVER_SOFTWARE": "sparse-workbench"}  # in the environment of each kernel whose notebook is shown as a page


def is_served() -> bool:
    """Tell whether the notebook is shown as a page, whose cells its reader cannot edit; Voila itself says so, too."""
    return any(os.environ.get(name) for name in SERVED)


def query_string() -> str:
    """Return the query string of the page being shown, without the question mark; empty outside a dashboard.

    A dashboard calls this in the first cell that depends on the visitor. The server runs the cells above it before
    anybody comes, and waits in front of the first cell that mentions ``query_string``.
    """
    return os.environ.get("QUERY_STRING", "")
