"""What is asked of Kafka: its client, topics, offsets, times and records."""
