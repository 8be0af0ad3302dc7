"""What predicts a group's answers, by kind, and how it is saved and loaded."""
