"""Differential privacy of a group's respondents: noise on its answers; knows no federation."""
