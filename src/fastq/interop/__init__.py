"""Guests: other libraries that fastq's arrays live in; each module is imported only by who uses it."""
