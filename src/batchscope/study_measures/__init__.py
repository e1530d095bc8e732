"""What only one named study measures, with torch."""
