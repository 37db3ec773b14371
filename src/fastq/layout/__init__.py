"""Where codes lie in memory."""
