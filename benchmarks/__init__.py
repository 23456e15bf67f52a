"""How fast, how frugal and how close to the machine's limits the conversion is."""
