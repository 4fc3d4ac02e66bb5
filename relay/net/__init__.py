"""One protocol per file, each ignorant of the store."""
