"""The runtime environment: session, jars, paths, logs, errors of Spark."""
