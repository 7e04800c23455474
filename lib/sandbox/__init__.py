"""What a laptop lacks: a real single-node Apache Kafka and realistic sample events to fill a topic with."""
