"""Test shared storage between two nodes for the doctor."""
