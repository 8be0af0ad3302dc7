"""Run directories: what is written, by whom it is seen on the way, and how it is read back."""
