"""What a report of runs shows: collected from run directories, drawn by `pgti.figures`."""
