"""The only SQL. Every function takes the connection first; the caller owns the database transaction."""
