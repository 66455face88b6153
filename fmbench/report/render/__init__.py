"""The benchmark in a terminal, as Markdown, as a web page, as CSV and as JSON."""
