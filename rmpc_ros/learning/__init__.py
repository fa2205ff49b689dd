"""What improves with experience: training environments, policies, critics, the learner's store."""
