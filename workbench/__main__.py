"""``python -m workbench``."""

from workbench.app.cli import main

main()
