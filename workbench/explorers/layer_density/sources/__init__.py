"""Nets to prune before their training, one file each."""
