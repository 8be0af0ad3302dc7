"""How a predictor is learned from the groups' answers."""
