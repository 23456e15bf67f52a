"""Give other readers the index that they ask for, from the recorded offsets."""
