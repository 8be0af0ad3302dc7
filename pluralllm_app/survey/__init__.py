"""From survey sources to prepared surveys, the format every run reads."""
