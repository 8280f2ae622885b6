"""Pruners at initialisation, one file each."""
