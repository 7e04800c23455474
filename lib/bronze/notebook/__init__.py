"""What the notebooks need and show."""
