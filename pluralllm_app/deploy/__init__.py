"""Federations on machines of their own: keys, start scripts, registration and status."""
