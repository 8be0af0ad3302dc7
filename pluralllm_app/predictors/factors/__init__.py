"""The latent-factor predictor: offsets and loadings of every option, learned by sums over groups."""
