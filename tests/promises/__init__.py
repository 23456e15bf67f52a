"""What the program promises, attacked."""
