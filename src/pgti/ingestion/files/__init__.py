"""Several files as one source."""
