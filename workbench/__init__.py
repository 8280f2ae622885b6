"""Sparse Workbench: papers on sparse computing, each with its kernels, experiment, views and notebook."""

from pathlib import Path

import kernels

__version__ = "2026.12.0"

# PyPI has an unrelated package of the same name, which would answer to our imports.
if not (Path(kernels.__file__).parent / "matmul").is_dir():
    raise ImportError(
        f"workbench: the package 'kernels' found at {kernels.__file__} is not Sparse Workbench's. "
        "Cure: pip uninstall kernels, then reinstall this project."
    )
