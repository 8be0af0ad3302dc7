"""How well predictions agree with answers, and how evenly over groups."""
