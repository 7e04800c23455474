"""The operations on what the ingestion wrote: one module per command."""
