"""What runs a federation: this process, Flower's simulation, or a deployment."""
