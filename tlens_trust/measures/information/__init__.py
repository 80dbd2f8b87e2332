"""Estimates of mutual information in nats, each with what it takes to believe it."""
