"""scaling: declare, train, fit and predict ladders of language models."""
