"""The HTTP door: decode, call, respond."""
