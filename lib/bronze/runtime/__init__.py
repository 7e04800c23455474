"""What runs around the product: session, jars, paths, logs, errors of Spark."""
