"""Kafka to a Delta Lake bronze table: every record exactly once in bronze or in the DLQ."""
