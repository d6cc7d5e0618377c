"""The memory of data sets by formula, and of training, evaluating and forecasting as measured."""
