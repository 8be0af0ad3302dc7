"""Where surveys come from: one module for each source, and the registry of all of them."""
