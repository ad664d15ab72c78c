"""What several parts of the library need and no user sees."""
