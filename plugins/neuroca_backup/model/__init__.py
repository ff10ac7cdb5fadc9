"""The nouns of the project as plain data; nothing here does I/O."""
