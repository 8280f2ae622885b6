"""What all views share: the base class, its toolbar, table twin, export and worker."""
