"""Writes descriptions in the formats that trainers of music generators and data tools read."""
