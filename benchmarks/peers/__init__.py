"""Other programs that do the same job, fetched, set up and run to be measured beside ours."""
