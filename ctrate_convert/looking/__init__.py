"""Look at volumes: three planes, a histogram and the facts, as a picture, a page or text."""
