"""Where volumes come from: a class for each kind of file."""
