"""The server's side: roster, rounds, strategies by name, and the record of a run."""
