"""A single-node Apache Kafka and realistic sample events, for development."""
