"""What may happen: uncertainty sets, their support functions, and certificates for those fitted to data."""
