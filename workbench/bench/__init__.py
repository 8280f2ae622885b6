"""Times kernels side by side with their peers."""
