"""The paper's scaling study: measured with local ranks, modelled beyond."""
