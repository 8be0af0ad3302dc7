"""PluralLLM on Flower: federated training of a group preference predictor.

The method is that of arXiv 2503.09925; README.md says how to use it.
"""

__version__ = "0.1.0"
