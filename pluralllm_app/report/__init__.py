"""`pluralllm report`: runs and comparisons as one HTML page and the figures behind it."""
