"""Many processes at once lose nothing and do nothing twice."""
