"""The operations on the ingested tables, one module per command."""
