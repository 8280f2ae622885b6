"""Where files live: records and RESULTS.md in a checkout, everything of the user's own in one home folder.

``WORKBENCH_HOME`` moves the home folder; without it the system's place for application data is taken.
"""

import os
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).parent
APPLICATION = "sparse-workbench"
WEIGHTS = PACKAGE / "models" / "weights"  # what ships, each with its card


def checkout() -> Path | None:
    """Return the root of the source checkout that this package runs from, None when it is installed elsewhere."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "kernels").is_dir() else None


def home() -> Path:
    """Return the folder of the user's own records."""
    chosen = os.environ.get("WORKBENCH_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path(APPLICATION)


def cache() -> Path:
    """Return the folder of downloaded files."""
    chosen = os.environ.get("WORKBENCH_HOME")
    return Path(chosen).expanduser() / "cache" if chosen else platformdirs.user_cache_path(APPLICATION)


def published() -> Path:
    """Return the folder of records that readers see: the checkout's own, else one in the home folder."""
    return shipped() if checkout() else home() / "published"


def shipped() -> Path:
    """Return the folder of the records that came with the package."""
    return PACKAGE / "results"


def notebooks() -> Path:
    """Return the folder of the notebooks: beside the package in a checkout, inside it when installed."""
    root = checkout()
    return root / "notebooks" if root else PACKAGE / "notebooks"
