"""What replicas of the control plane tell one another: how far their Envoys are, and what who leads decides."""
