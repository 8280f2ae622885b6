"""The command line and the Voila application."""
