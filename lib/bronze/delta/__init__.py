"""The Delta tables: their log, ledger, features, commits and look-ups."""
