"""What a run leaves behind: record, identity, folder, predictions; their reader. No torch."""
