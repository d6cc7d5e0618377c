"""The HTTP server of a trained run."""
