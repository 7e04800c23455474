"""Requests to Kafka: client, topics, offsets, timestamps and records."""
