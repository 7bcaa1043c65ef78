"""analysis: run directories or anybody's CSV in, laws, predictions and figures out."""
