"""The GPO preference predictor: its network and the products it is made of."""
