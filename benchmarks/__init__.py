"""How fast fmbench is, beside what people use instead; README.md has a command for each."""
