"""A saved predictor in use: by texts, with a group's own answers, for any question."""
