"""What named studies are made of, beside the laboratory: numbers, findings, figures and measurements of their own."""
