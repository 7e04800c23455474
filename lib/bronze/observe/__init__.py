"""Progress reports of a running ingestion."""
