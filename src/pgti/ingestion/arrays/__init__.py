"""Arrays without labels, and the axes that they have."""
