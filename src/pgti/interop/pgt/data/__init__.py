"""PGT's data sets, loaders and signals on index-batching and on stores."""
