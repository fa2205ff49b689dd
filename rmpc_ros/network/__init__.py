"""What agents tell each other and agree on: the network's model, forecast sets, commitments, joint designs."""
