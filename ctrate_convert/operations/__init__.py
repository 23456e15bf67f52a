"""What each command does, free of any command-line parsing or printing."""
