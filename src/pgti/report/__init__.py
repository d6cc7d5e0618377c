"""Reports in HTML: the pages that show where and when a model is wrong."""
