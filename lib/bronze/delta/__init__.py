"""The Delta tables: their log, ledger, features and look-ups."""
