"""The HTTP server of a run: forecasts, metrics and a dashboard. Needs the extra `serve`."""
