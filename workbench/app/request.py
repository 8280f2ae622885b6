"""What the visitor asked for: the part of the address behind the question mark, as a dashboard's notebook sees it."""

import os


def query_string() -> str:
    """Return the query string of the page being shown, without the question mark; empty outside a dashboard.

    A dashboard calls this in the first cell that depends on the visitor. The server runs the cells above it before
    anybody comes, and waits in front of the first cell that mentions ``query_string``.
    """
    return os.environ.get("QUERY_STRING", "")
