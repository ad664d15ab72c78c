"""The fast path: parameters of which a step uses some rows, cached activations, the optimizer, grouped subnetworks."""
