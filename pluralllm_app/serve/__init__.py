"""A saved predictor as a service over HTTP, with a page."""
