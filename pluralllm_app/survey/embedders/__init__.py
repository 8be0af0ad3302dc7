"""What turns a question with one of its options into a vector."""
