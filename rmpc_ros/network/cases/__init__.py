"""Networks of the papers and of our benchmarks, as data for `design_network`."""
