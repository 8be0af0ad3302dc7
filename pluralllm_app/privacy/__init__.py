"""Differential privacy of respondents and of whole groups: how noise is made and counted."""
