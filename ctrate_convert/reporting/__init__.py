"""The report as a page: facts gathered once, charts of them, and HTML that asks no network."""
