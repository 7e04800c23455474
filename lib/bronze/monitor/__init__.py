"""Observes a running ingestion from outside."""
