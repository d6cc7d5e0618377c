"""Forecasters, baselines, evaluation, and forecasts as files."""
