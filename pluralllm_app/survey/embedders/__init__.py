"""What turns a question with one of its options into a vector, and the registry of all of them."""
