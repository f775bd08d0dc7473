"""The control plane: Gateway API routes and policies in, xDS out."""
