"""What every part stands on: errors, files, signals, the console, the machine."""
