"""The latent-factor predictor: an offset and loadings for every option, shared by all groups."""
